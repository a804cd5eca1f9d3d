import { assertEquals, assertRejects } from "@std/assert";
import { assert } from "../base/assert.ts";
import { MeshError } from "../base/errors.ts";
import { Logger } from "../base/log.ts";
import { type EnrolRequest, parseEnrolRequest } from "../mesh/enrolment.ts";
import { countNetnsDescriptors } from "../os/descriptors_testing.ts";
import { createAnonymousNetns, createNamedNetns, deleteNamedNetns, type Netns, openNetns } from "../os/netns.ts";
import { FirewallSocket } from "../os/netlink/nftables.ts";
import { spawnWithin } from "../os/process.ts";
import { readEnrolled } from "./enrolled_file.ts";
import { Enrolments, type PodAnnouncer } from "./enrolments.ts";
import { checkPodRules } from "./pod_rules.ts";
import { NETLINK_REDIRECTION } from "./redirection/netlink.ts";
import type { AnnouncedPod } from "./zds_server.ts";

const privileged = Deno.uid() === 0;
const silent = new Logger("cni", { sink: () => {} });

/** ztunnel as the node agent sees it; checks that rules are in place whenever a pod is announced (CNI-080). */
class FakeZtunnel implements PodAnnouncer {
  readonly pods = new Map<string, number>();
  failure: string | undefined;

  addPod(pod: AnnouncedPod): Promise<void> {
    assertEquals(checkPodRules(pod.netns!, {}), [], "rules come before the announcement");
    if (this.failure !== undefined) return Promise.reject(new MeshError("AMB7211", this.failure, { remedy: "" }));
    this.pods.set(pod.uid, pod.netns!.inode);
    return Promise.resolve();
  }

  deletePod(uid: string): Promise<void> {
    this.pods.delete(uid);
    return Promise.resolve();
  }
}

class Bench implements Disposable {
  readonly folder = Deno.makeTempDirSync();
  readonly file = `${this.folder}/enrolled.json`;
  readonly ztunnel = new FakeZtunnel();
  readonly name = `ambit-enrol-${Deno.pid}`;
  netns: Netns = createNamedNetns(this.name);
  enrolments = this.open();

  open(): Enrolments {
    return new Enrolments({ file: this.file, rules: {}, redirection: NETLINK_REDIRECTION, log: silent });
  }

  /** As after a crash or restart of the node agent. */
  async restart(): Promise<AnnouncedPod[]> {
    this.enrolments[Symbol.dispose]();
    this.enrolments = this.open();
    return await this.enrolments.restore();
  }

  request(change: Record<string, string | boolean> = {}): EnrolRequest {
    const fields = { target: `netns/${this.name}`, namespace: "shop", serviceAccount: "web", name: "web-0", ...change };
    const request = parseEnrolRequest(fields);
    assert("target" in request, "the request is well formed");
    return request;
  }

  recreate(): void {
    this.netns[Symbol.dispose]();
    deleteNamedNetns(this.name);
    this.netns = createNamedNetns(this.name);
  }

  [Symbol.dispose](): void {
    this.enrolments[Symbol.dispose]();
    this.netns[Symbol.dispose]();
    deleteNamedNetns(this.name);
    Deno.removeSync(this.folder, { recursive: true });
  }
}

function tables(netns: Netns): string[] {
  using firewall = FirewallSocket.open(netns);
  return firewall.tableNames();
}

const codeOf = async (promise: Promise<unknown>) => (await assertRejects(() => promise, MeshError)).code;

function test(name: string, fn: (bench: Bench) => Promise<void>): void {
  Deno.test({
    name,
    ignore: !privileged,
    async fn() {
      using bench = new Bench();
      await fn(bench);
      bench.enrolments[Symbol.dispose]();
      assertEquals(countNetnsDescriptors(bench.netns), 1, "none is left open but the test's own");
    },
  });
}

test("Enrolments.enrol() ends with rules, ztunnel and the file agreeing; unenrol() with nothing left (CNI-080, CNI-083)", async (bench) => {
  const { enrolments, netns, ztunnel, file } = bench;
  const wanted = bench.request();
  const first = await enrolments.enrol(wanted, ztunnel);
  assertEquals(first.state, "enrolled");
  assertEquals(first.uid.length, 36);
  assertEquals(await enrolments.enrol(wanted, ztunnel), first, "again is fine");
  assertEquals(ztunnel.pods, new Map([[first.uid, netns.inode]]));
  assertEquals(readEnrolled(file).map(({ state, netnsInode }) => [state, netnsInode]), [["enrolled", netns.inode]]);
  assertEquals(enrolments.status(), [first]);
  await enrolments.unenrol(wanted.target, ztunnel);
  assertEquals([tables(netns).length, ztunnel.pods.size, enrolments.status().length, readEnrolled(file).length], [
    0,
    0,
    0,
    0,
  ]);
  assertEquals(await codeOf(enrolments.unenrol(wanted.target, ztunnel)), "AMB7106");
});

test("Enrolments.enrol() takes everything back when ztunnel refuses, but not from what was enrolled before (CNI-081)", async (bench) => {
  bench.ztunnel.failure = "no ztunnel is connected";
  assertEquals(await codeOf(bench.enrolments.enrol(bench.request(), bench.ztunnel)), "AMB7211");
  assertEquals([tables(bench.netns), readEnrolled(bench.file)], [[], []]);
  bench.ztunnel.failure = undefined;
  await bench.enrolments.enrol(bench.request(), bench.ztunnel);
  bench.ztunnel.failure = "no ztunnel is connected";
  assertEquals(await codeOf(bench.enrolments.enrol(bench.request(), bench.ztunnel)), "AMB7211");
  assertEquals(checkPodRules(bench.netns, {}), [], "it stays captured: fail closed");
});

test("Enrolments refuses the host's namespace, a second name for a namespace, and a second identity (CNI-273)", async (bench) => {
  const { enrolments, ztunnel } = bench;
  for (const target of ["netns-path:/proc/self/ns/net", `pid/${Deno.pid}`]) {
    assertEquals(await codeOf(enrolments.enrol(bench.request({ target }), ztunnel)), "AMB7101", target);
  }
  await enrolments.enrol(bench.request(), ztunnel);
  assertEquals(await codeOf(enrolments.enrol(bench.request({ serviceAccount: "other" }), ztunnel)), "AMB7105");
  const alias = `netns-path:/run/netns/${bench.name}`;
  assertEquals(await codeOf(enrolments.enrol(bench.request({ target: alias }), ztunnel)), "AMB7102");
  assertEquals(await codeOf(enrolments.enrol(bench.request({ target: "netns/not-there" }), ztunnel)), "AMB7002");
  assertEquals(enrolments.status().length, 1);
});

test("Enrolments keeps captured what cannot be looked at, which is not to be gone (CNI-097, CNI-278)", async (bench) => {
  const { enrolments, ztunnel, netns, folder } = bench, path = `${folder}/link`;
  Deno.symlinkSync(`/run/netns/${bench.name}`, path);
  const { target } = bench.request({ target: `netns-path:${path}` });
  await enrolments.enrol(bench.request({ target: target.text }), ztunnel);
  Deno.removeSync(path);
  Deno.symlinkSync(path, path); // As it is without descriptors left, or without the right to look: an error, but not that it is not there.
  await enrolments.audit(ztunnel);
  assertEquals([checkPodRules(netns, {}), ztunnel.pods.size], [[], 1]);
  assertEquals(enrolments.status().map(({ state, problems }) => [state, /ELOOP/.test(problems.join())]), [[
    "enrolled",
    true,
  ]]);
  assertEquals((await bench.restart()).length, 0, "nothing to announce");
  assertEquals(
    [checkPodRules(netns, {}), bench.enrolments.status().length],
    [[], 1],
    "listed, and captured, until it is seen again",
  );
  Deno.removeSync(path);
  Deno.symlinkSync(`/run/netns/${bench.name}`, path);
  await bench.enrolments.audit(ztunnel);
  assertEquals(bench.enrolments.status().map(({ state, problems }) => [state, problems]), [["enrolled", []]]);
  Deno.removeSync(path);
  await bench.enrolments.audit(ztunnel);
  assertEquals([tables(netns), ztunnel.pods.size, bench.enrolments.status()], [[], 0, []], "now it is gone");
});

test("Enrolments.restore() brings back rules, finishes what was being undone, and drops what is gone (CNI-270, CNI-313)", async (bench) => {
  const { uid } = await bench.enrolments.enrol(bench.request(), bench.ztunnel);
  using firewall = FirewallSocket.open(bench.netns);
  firewall.deleteTables(tables(bench.netns));
  const restored = await bench.restart();
  assertEquals(restored.map((pod) => [pod.uid, pod.netns!.inode, pod.workload.name]), [[
    uid,
    bench.netns.inode,
    "web-0",
  ]]);
  assertEquals(checkPodRules(bench.netns, {}), []);
  const text = Deno.readTextFileSync(bench.file);
  Deno.writeTextFileSync(bench.file, text.replace('"enrolled",', '"enrolling",'));
  assertEquals((await bench.restart()).length, 1, "interrupted while enrolling: carried through");
  Deno.writeTextFileSync(bench.file, text.replace('"enrolled",', '"unenrolling",'));
  assertEquals(await bench.restart(), [], "interrupted while leaving: not announced any more");
  assertEquals(tables(bench.netns).includes("istio-ambient-nat"), true, "its connections keep their way to ztunnel");
  await bench.enrolments.audit(bench.ztunnel);
  assertEquals([tables(bench.netns), readEnrolled(bench.file), bench.ztunnel.pods.size], [[], [], 0]);
  Deno.writeTextFileSync(bench.file, text.replaceAll(bench.name, "not-there"));
  assertEquals(await bench.restart(), []);
});

test("Enrolments.audit() repairs rules, follows a recreated namespace, and lets go of one that is gone (CNI-097, CNI-278, CNI-316)", async (bench) => {
  const { enrolments, ztunnel } = bench;
  const { uid } = await enrolments.enrol(bench.request(), ztunnel);
  using firewall = FirewallSocket.open(bench.netns);
  firewall.deleteTables(["istio-ambient-nat"]);
  await enrolments.audit(ztunnel);
  assertEquals(checkPodRules(bench.netns, {}), []);
  bench.recreate();
  ztunnel.failure = "no ztunnel is connected";
  await enrolments.audit(ztunnel);
  assertEquals(enrolments.status().map(({ state, problems }) => [state, problems]), [["enrolling", [
    "no ztunnel is connected",
  ]]]);
  assertEquals(checkPodRules(bench.netns, {}), [], "captured, though nobody serves it: fail closed");
  ztunnel.failure = undefined;
  await enrolments.audit(ztunnel);
  assertEquals(ztunnel.pods, new Map([[uid, bench.netns.inode]]));
  deleteNamedNetns(bench.name);
  await enrolments.audit(ztunnel);
  assertEquals([ztunnel.pods.size, enrolments.status().length, readEnrolled(bench.file).length], [0, 0, 0]);
});

test("Enrolments enrols a process by pid, and lets go when it ends", async (bench) => {
  const { enrolments, ztunnel } = bench;
  using netns = createAnonymousNetns();
  const child = spawnWithin(netns, "sleep", { args: ["60"] });
  await enrolments.enrol(bench.request({ target: `pid/${child.pid}` }), ztunnel);
  assertEquals([...ztunnel.pods.values()], [netns.inode]);
  using seen = openNetns(`/proc/${child.pid}/ns/net`);
  assertEquals(checkPodRules(seen, {}), []);
  child.kill("SIGKILL");
  await child.status;
  await enrolments.audit(ztunnel);
  assertEquals([ztunnel.pods.size, tables(netns).length], [0, 0]);
});

test("Enrolments follows no process to another namespace, by whichever of its names (CNI-278, CNI-316)", async (bench) => {
  const { enrolments, ztunnel, folder } = bench;
  using netns = createAnonymousNetns();
  for (const targetOf of [(pid: number) => `pid/${pid}`, (pid: number) => `netns-path:/proc/${pid}/ns/net`]) {
    // Another process that got the number is no different to us from one that went somewhere else.
    const script = `while [ ! -e ${folder}/go ]; do sleep 0.01; done; exec unshare --net sleep 60`;
    const child = spawnWithin(netns, "sh", { args: ["-c", script] }), target = targetOf(child.pid);
    try {
      await enrolments.enrol(bench.request({ target }), ztunnel);
      Deno.writeTextFileSync(`${folder}/go`, "");
      const deadline = performance.now() + 60_000;
      for (let moved = false; !moved;) {
        using now = openNetns(`/proc/${child.pid}/ns/net`);
        moved = !now.equals(netns);
        assert(performance.now() < deadline, "it moves");
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      await enrolments.audit(ztunnel);
      assertEquals([ztunnel.pods.size, enrolments.status().length], [0, 0], target);
    } finally {
      child.kill("SIGKILL");
      await child.status;
      Deno.removeSync(`${folder}/go`);
    }
  }
});

test("Enrolments does one thing at a time with one target, and releases all", async (bench) => {
  const { enrolments, ztunnel } = bench;
  const outcomes = await Promise.allSettled([
    enrolments.enrol(bench.request(), ztunnel),
    enrolments.unenrol(bench.request().target, ztunnel),
    enrolments.enrol(bench.request(), ztunnel),
  ]);
  assertEquals(outcomes.map(({ status }) => status), ["fulfilled", "fulfilled", "fulfilled"]);
  assertEquals(checkPodRules(bench.netns, {}), []);
  await enrolments.releaseAll(ztunnel);
  assertEquals([tables(bench.netns), enrolments.status()], [[], []]);
});

test("what an enrolment says of DNS holds for it alone, over a restart, until it is enrolled otherwise", async (bench) => {
  const { netns } = bench;
  const ztunnel: PodAnnouncer = { addPod: () => Promise.resolve(), deletePod: () => Promise.resolve() };
  const captured = await bench.enrolments.enrol(bench.request({ dnsCapture: true }), ztunnel);
  assertEquals([captured.dnsCapture, checkPodRules(netns, { dnsCapture: true })], [true, []]);
  assertEquals((await bench.restart()).length, 1);
  await bench.enrolments.audit(ztunnel);
  assertEquals([checkPodRules(netns, { dnsCapture: true }), bench.enrolments.status()], [[], [captured]]);
  const plain = await bench.enrolments.enrol(bench.request(), ztunnel);
  assertEquals([plain.dnsCapture, checkPodRules(netns, {}), tables(netns).length], [undefined, [], 2]);
  await bench.enrolments.unenrol(bench.request().target, ztunnel);
});
