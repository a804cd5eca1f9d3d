import { assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { createAnonymousNetns, type Netns } from "../../os/netns.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { findPodNetns } from "./pod_netns.ts";

const log = new Logger("test", { sink: () => {} });
const uid = (at: number) => `00000000-0000-4000-8000-00000000000${at}`;

/** A `/proc` as the node has it. */
class Proc implements Disposable {
  readonly folder = Deno.makeTempDirSync();
  readonly #opened: Netns[] = [];

  /** A namespace with addresses on its loopback. */
  netns(...addresses: string[]): Netns {
    const netns = createAnonymousNetns();
    this.#opened.push(netns);
    using routes = RouteSocket.open(netns);
    routes.setUp("lo");
    for (const address of addresses) routes.addAddress("lo", address);
    return netns;
  }

  /** A process of a pod; no pod: of the host. */
  process(pid: number, netns: Netns, pod?: number, startedAt = pid): void {
    Deno.mkdirSync(`${this.folder}/${pid}/ns`, { recursive: true });
    Deno.symlinkSync(`/proc/${Deno.pid}/fd/${netns.fd}`, `${this.folder}/${pid}/ns/net`);
    const path = pod === undefined ? "/init.scope" : `/kubepods/besteffort/pod${uid(pod)}/${"c".repeat(64)}`;
    Deno.writeTextFileSync(`${this.folder}/${pid}/cgroup`, `0::${path}\n`);
    Deno.writeTextFileSync(
      `${this.folder}/${pid}/stat`,
      `${pid} (a) b) S ${Array(40).fill(0).with(18, startedAt).join(" ")}\n`,
    );
  }

  /** Which namespace is found for each of the pods, by uid. */
  find(...wanted: { uid: string; ips: string[]; staticUid?: string }[]): Record<string, number> {
    const found = findPodNetns(this.folder, wanted, log);
    for (const netns of found.values()) netns[Symbol.dispose]();
    return Object.fromEntries([...found].map(([uid, { inode }]) => [uid, inode]));
  }

  [Symbol.dispose](): void {
    for (const netns of this.#opened) netns[Symbol.dispose]();
    Deno.removeSync(this.folder, { recursive: true });
  }
}

Deno.test({
  name:
    "findPodNetns() takes the namespace that has the pod's address, of its oldest process, and never the host's (CNI-085, CNI-086)",
  ignore: Deno.uid() !== 0,
  fn() {
    using proc = new Proc();
    const host = proc.netns("10.1.0.9/32"), own = proc.netns("10.1.0.2/32", "fd00:1::2/128"), foreign = proc.netns();
    proc.process(1, host);
    proc.process(100, own, 1);
    assertEquals(proc.find({ uid: uid(1), ips: ["10.1.0.2"] }), { [uid(1)]: own.inode });
    assertEquals(proc.find({ uid: uid(1), ips: ["::ffff:10.1.0.2"] }), { [uid(1)]: own.inode }, "mapped is the same");
    assertEquals(proc.find({ uid: uid(1), ips: ["10.1.0.3", "fd00:1::2"] }), { [uid(1)]: own.inode }, "any of them");
    assertEquals(proc.find({ uid: uid(1), ips: ["10.1.0.3"] }), {}, "another pod's, or not set up yet");
    assertEquals(proc.find({ uid: uid(1), ips: [] }), {}, "without an address it cannot be told");
    proc.process(50, foreign, 1); // Older, but without the address: a container that made a namespace of its own.
    assertEquals(proc.find({ uid: uid(1), ips: ["10.1.0.2"] }), { [uid(1)]: own.inode });
    const second = proc.netns("10.1.0.2/32");
    proc.process(60, second, 1, 7);
    assertEquals(proc.find({ uid: uid(1), ips: ["10.1.0.2"] }), { [uid(1)]: second.inode }, "it started first");
    proc.process(70, host, 2);
    assertEquals(proc.find({ uid: uid(2), ips: ["10.1.0.9"] }), {}, "a pod of the host's network");
    // Who has a part of the tree to himself may call it like a pod's, and have been there before its sandbox.
    const impostor = proc.netns("10.1.0.2/32");
    proc.process(65, impostor, 1, 3);
    const cgroup = `${proc.folder}/65/cgroup`, own1000 = "/user.slice/user-1000.slice/user@1000.service";
    Deno.writeTextFileSync(cgroup, Deno.readTextFileSync(cgroup).replace("0::", `0::${own1000}`));
    assertEquals(proc.find({ uid: uid(1), ips: ["10.1.0.2"] }), { [uid(1)]: second.inode });
    // A static pod's processes have the uid of its file; an annotation that says so of another finds nothing of his.
    const mirror = { uid: uid(3), ips: ["10.1.0.2"], staticUid: uid(1).replaceAll("-", "") };
    assertEquals(proc.find(mirror), { [uid(3)]: second.inode });
    assertEquals(proc.find({ ...mirror, ips: ["10.1.0.7"] }), {});
    assertEquals(proc.find({ uid: uid(1), ips: ["10.1.0.2"] }, mirror), { [uid(1)]: second.inode });
    Deno.mkdirSync(`${proc.folder}/80`);
    Deno.mkdirSync(`${proc.folder}/self`);
    assertEquals(Object.keys(proc.find({ uid: uid(1), ips: ["10.1.0.2"] })).length, 1, "one that has just ended");
  },
});
