/** `ambit cni check` on a node: what is captured, what is not and why, with and without the agent. */
import { assert, assertEquals } from "@std/assert";
import { CAPTURE_PORTS } from "../../cni/nft_rules.ts";
import { createNamedNetns, deleteNamedNetns, type Netns, ownNetns, writeSysctl } from "../../os/netns.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { runWithin } from "../../os/process.ts";
import { NETFILTER_BACKENDS, openBackend } from "./backends.ts";
import { SharedNode } from "../../cni/bare/shared_node.ts";
import { RawSocket } from "./raw_socket.ts";
import { ScratchCgroups } from "./scratch_cgroup.ts";

const MAIN = new URL("../../main.ts", import.meta.url).pathname;
const NAME = `ambit-check-${Deno.pid}`;
const PORTS = [CAPTURE_PORTS.outbound, CAPTURE_PORTS.inboundPlaintext, CAPTURE_PORTS.inboundHbone];

/** A named namespace with an address and a way out. */
class Pod implements Disposable {
  readonly netns: Netns;

  constructor() {
    this.netns = createNamedNetns(NAME);
    using routes = RouteSocket.open(this.netns);
    writeSysctl(this.netns, "net/ipv6/conf/all/disable_ipv6", "1");
    routes.addVeth({ name: "eth0", peerName: "other" });
    routes.setUp("lo");
    routes.addAddress("eth0", "10.58.0.2/24");
    routes.setUp("other");
    routes.setUp("eth0");
    routes.addRoute({ destination: "0.0.0.0/0", via: "10.58.0.1" });
  }

  [Symbol.dispose](): void {
    this.netns[Symbol.dispose]();
    deleteNamedNetns(NAME);
  }
}

interface Answer {
  readonly status: number;
  readonly verdicts: readonly {
    readonly target: string;
    readonly captured: boolean;
    readonly backend?: string;
    readonly proof: string;
    readonly findings: readonly { readonly check: string; readonly cause: string }[];
  }[];
}

/** Asks as a user does, on a node on which no agent runs; what else stands on this machine is left out. */
async function check(
  { targets = [`netns/${NAME}`], socket = "/nowhere" } = {},
  ...args: string[]
): Promise<Answer> {
  const agents = [`--enrol-socket=${socket}`, "--introspection-address=127.0.0.1:1"];
  const command = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", MAIN, "cni", "check", ...targets, ...agents, "-o", "json", ...args],
  });
  const { code, stdout, stderr } = await command.output();
  assert(code === 0 || code === 1, new TextDecoder().decode(stderr));
  return { status: code, ...JSON.parse(new TextDecoder().decode(stdout)) };
}

for (const name of NETFILTER_BACKENDS) {
  Deno.test(`cni check of a pod that ${name} redirects: captured with a proof; else what is missing, and a status of 1`, async () => {
    using backend = await openBackend(name), pod = new Pod();
    await backend.apply(pod.netns, {});
    const refused = await check();
    assertEquals(refused.status, 1);
    assertEquals(refused.verdicts.map(({ captured, proof }) => [captured, proof]), [[false, "yes"]]);
    assertEquals(refused.verdicts[0]!.findings.map(({ cause }) => cause), ["nothing listens on 15001, 15006, 15008"]);

    using listeners = new DisposableStack();
    for (const port of PORTS) listeners.use(RawSocket.listen(pod.netns, "0.0.0.0", port));
    const good = await check();
    assertEquals([good.status, good.verdicts[0]!.findings], [0, []]);
    const kind = name === "nft-binary" ? "nft" : name; // They write the same.
    assertEquals([good.verdicts[0]!.backend, good.verdicts[0]!.proof], [kind, "yes"]);

    using routes = RouteSocket.open(pod.netns);
    routes.deleteRule({ family: "ipv4", mark: 0x111, mask: 0xfff, priority: 32764, table: 100 });
    const damaged = await check({}, "--prove=false");
    assertEquals([damaged.status, damaged.verdicts[0]!.proof], [1, "not tried"]);
    assertEquals(damaged.verdicts[0]!.findings.map(({ cause }) => cause), ["the ipv4 rule for mark 0x111 is missing"]);
  });
}

Deno.test("cni check sees by a connection that nothing captures although the rules read well", async () => {
  using backend = await openBackend("nft"), pod = new Pod();
  await backend.apply(pod.netns, {});
  using listeners = new DisposableStack();
  for (const port of PORTS) listeners.use(RawSocket.listen(pod.netns, "0.0.0.0", port));
  const early = "add table inet early; add chain inet early out { type nat hook output priority -150; }; " +
    "add rule inet early out tcp dport 9 dnat ip to 10.58.0.9";
  const { success } = runWithin(pod.netns, "nft", { args: [early] });
  assert(success);
  const answer = await check();
  assertEquals([answer.status, answer.verdicts[0]!.proof], [1, "no"]);
  assertEquals(answer.verdicts[0]!.findings.map((it) => it.check), ["proof"]);
});

Deno.test("cni check goes by the list of an agent that answers, its problems included", async () => {
  using backend = await openBackend("nft"), pod = new Pod();
  await backend.apply(pod.netns, {});
  using listeners = new DisposableStack();
  for (const port of PORTS) listeners.use(RawSocket.listen(pod.netns, "0.0.0.0", port));
  const row = { uid: "a", namespace: "shop", serviceAccount: "web", name: "web", netnsInode: pod.netns.inode };
  const pods = [
    { ...row, target: `netns/${NAME}`, state: "enrolled", problems: [] as string[] },
    {
      ...row,
      target: "unit/web.service",
      state: "enrolled",
      outboundPort: 15107,
      dnsPort: 15507,
      problems: [] as string[],
    },
    { ...row, target: "netns/ambit-gone", state: "enrolled", problems: [] as string[] },
  ];
  const folder = Deno.makeTempDirSync(), path = `${folder}/enrol.sock`;
  await using server = Deno.serve({ path, onListen: () => {} }, () => Response.json({ pods, problems: [] }));
  const all = await check({ targets: [], socket: path });
  assertEquals(all.verdicts.map(({ target, captured }) => [target, captured]), [
    [`netns/${NAME}`, true],
    ["unit/web.service", false],
    ["netns/ambit-gone", false],
  ]);
  using cgroups = new ScratchCgroups(), host = ownNetns();
  using own = RawSocket.listen(host, "127.0.0.1", 15107);
  const node = new SharedNode({ never: [] });
  node.apply(7, cgroups.add("web"), { dnsCapture: true });
  try {
    const unit = async () => (await check({ targets: ["unit/web.service"], socket: path })).verdicts[0]!;
    assertEquals((await unit()).findings.map(({ cause }) => cause), ["nothing listens on 15507"]);
    using dns = RawSocket.listen(host, "127.0.0.1", 15507);
    assertEquals([(await unit()).captured, own.fd > 0, dns.fd > 0], [true, true, true]);
  } finally {
    node.delete(7);
  }
  assertEquals((await check({ targets: ["shop/web", "shop/none"], socket: path })).status, 1);
  pods[0]!.problems.push("ztunnel did not answer");
  const problem = await check({ targets: [`netns/${NAME}`], socket: path });
  assertEquals([problem.status, problem.verdicts[0]!.findings.map(({ cause }) => cause)], [1, [
    "ztunnel did not answer",
  ]]);
  await server.shutdown();
  Deno.removeSync(folder, { recursive: true });
});

Deno.test("cni check of what is not enrolled says so", async () => {
  using pod = new Pod();
  const answer = await check();
  assertEquals([answer.status, pod.netns.inode > 0], [1, true]);
  assertEquals(answer.verdicts[0]!.findings.map(({ cause }) => cause), ["it is not enrolled"]);
});
