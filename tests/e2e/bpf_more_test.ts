/** What redirection by eBPF owes beyond the traffic checks: what dodges the hooks, what is nobody's to touch, who else is there. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { CAPTURE_PORTS, ZTUNNEL_MARK } from "../../cni/nft_rules.ts";
import { BpfRedirection } from "../../cni/bpf/redirection.ts";
import { tryBpf } from "../../cni/bpf/trial.ts";
import { chooseRedirection } from "../../cni/redirection/choose.ts";
import { Logger } from "../../base/log.ts";
import { MeshError } from "../../base/errors.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { createAnonymousNetns, writeSysctl } from "../../os/netns.ts";
import { until } from "../../demo/lab/until.ts";
import { ADDRESS, BpfRig, FAMILIES } from "./bpf_rig.ts";
import { PrivateBpffs, ScratchCgroup } from "./bpf_scratch.ts";
import { RawSocket } from "./raw_socket.ts";

/** A connect that is never answered fails after so long; the guard drops, it does not refuse. */
const SILENT_S = 1;
const MULTIPATH = 262, MSG_FASTOPEN = 0x20000000;

Deno.test("bpf: from a nested namespace nothing leaves but what ztunnel marks, and what is excluded (CNI-209)", async () => {
  const exclude = { outboundPorts: [9001], outboundCidrs: ["10.55.9.0/24"], inboundPorts: [] };
  using rig = await BpfRig.start({ dnsCapture: true, exclude });
  const { pod, peer } = rig;
  using nested = createAnonymousNetns();
  using inside = RouteSocket.open(nested), outside = RouteSocket.open(pod), there = RouteSocket.open(peer);
  outside.addVeth({ name: "nested0", peerName: "eth0", peerNetns: nested });
  for (
    const [routes, link, prefix] of [[outside, "nested0", "10.66.0.1/24"], [inside, "eth0", "10.66.0.2/24"]] as const
  ) {
    routes.addAddress(link, prefix);
    routes.setUp(link);
  }
  inside.addRoute({ destination: "0.0.0.0/0", via: "10.66.0.1" });
  there.addRoute({ destination: "10.66.0.0/24", via: ADDRESS.ipv4.pod });
  there.addAddress("lo", "10.55.9.1/32");
  writeSysctl(pod, "net/ipv4/ip_forward", "1");
  await rig.redirection.apply(pod, { dnsCapture: true, exclude }); // As the audit does when an interface has come.
  using remote = RawSocket.listen(peer, "::", 9000), excluded = RawSocket.listen(peer, "::", 9001);
  const drops = () => rig.redirection.node.counters().GUARD;
  assertThrows(() => RawSocket.connect(nested, ADDRESS.ipv4.peer, 9000, { timeoutS: SILENT_S }), Error);
  assert(drops() > 0, "the guard has counted it");
  using byPort = RawSocket.connect(nested, ADDRESS.ipv4.peer, 9001), _one = excluded.accept();
  using byRange = RawSocket.connect(nested, "10.55.9.1", 9000), _other = remote.accept();
  assert(byPort.fd >= 0 && byRange.fd >= 0);
  using marked = RawSocket.connect(pod, ADDRESS.ipv4.peer, 9000, { mark: ZTUNNEL_MARK }), _ours = remote.accept();
  assert(marked.fd >= 0);
  const before = drops();
  using resolver = RawSocket.listen(peer, ADDRESS.ipv4.peer, 53, { transport: "udp", timeoutS: SILENT_S });
  using query = RawSocket.connect(nested, ADDRESS.ipv4.peer, 53, { transport: "udp" });
  query.send("question");
  assertThrows(() => resolver.receive(), Error);
  assert(drops() > before);
});

for (const family of FAMILIES) {
  Deno.test(`bpf: ports and ranges that are left out go past ztunnel, both ways (CNI-099) (${family})`, async () => {
    const at = ADDRESS[family], cidr = family === "ipv4" ? "10.55.8.0/24" : "fd00:58::/32";
    const there = family === "ipv4" ? "10.55.8.1" : "fd00:58::1";
    const exclude = { outboundPorts: [9001], outboundCidrs: [cidr], inboundPorts: [8081] };
    using rig = await BpfRig.start({ dnsCapture: true, exclude });
    const { pod, peer } = rig;
    using routes = RouteSocket.open(peer);
    routes.addAddress("lo", `${there}/${family === "ipv4" ? 32 : 128}`);
    using remote = RawSocket.listen(peer, "::", 9001), application = RawSocket.listen(pod, "::", 8081);
    using outbound = RawSocket.listen(pod, "::", CAPTURE_PORTS.outbound);
    using out = RawSocket.connect(pod, at.peer, 9001), reached = remote.accept();
    assertEquals(reached.otherName(), out.localName());
    using ranged = RawSocket.connect(pod, there, 9001), again = remote.accept();
    assertEquals(again.otherName(), ranged.localName());
    using resolver = RawSocket.listen(peer, there, 53, { transport: "udp" });
    using query = RawSocket.connect(pod, there, 53, { transport: "udp" });
    query.send("question");
    assertEquals(resolver.receive(), "question");
    using inward = RawSocket.connect(peer, at.pod, 8081), served = application.accept();
    assertEquals(served.otherName(), inward.localName());
    using _captured = RawSocket.connect(pod, at.peer, 9002), _taken = outbound.accept();
    assertEquals(await rig.redirection.check(pod, { dnsCapture: true, exclude }), []);
    await rig.redirection.apply(pod, {});
    assertEquals(await rig.redirection.check(pod, {}), []);
    using _back = RawSocket.connect(pod, at.peer, 9001);
    using now = outbound.accept();
    assertEquals(rig.originalDestination(now), `${at.peer} 9001`, "captured again");
  });
}

Deno.test("bpf: ingress mode leaves inbound alone, outbound stays captured (CNI-126)", async () => {
  using rig = await BpfRig.start({ ingress: true });
  using application = RawSocket.listen(rig.pod, "::", 8080), outbound = RawSocket.listen(rig.pod, "::", 15001);
  using _in = RawSocket.connect(rig.peer, ADDRESS.ipv4.pod, 8080), _served = application.accept();
  using _out = RawSocket.connect(rig.pod, ADDRESS.ipv4.peer, 9000), _captured = outbound.accept();
  assertEquals(await rig.redirection.check(rig.pod, { ingress: true }), []);
  assert((await rig.redirection.check(rig.pod, {})).length > 0, "other options are told apart");
});

Deno.test("bpf: what arrives from a virtual interface is redirected by a rule, with its destination (CNI-210)", async () => {
  const options = { virtualInterfaces: ["vnet0"] };
  using rig = await BpfRig.start(options);
  using machine = createAnonymousNetns();
  using inside = RouteSocket.open(machine), outside = RouteSocket.open(rig.pod);
  outside.addVeth({ name: "vnet0", peerName: "eth0", peerNetns: machine });
  for (
    const [routes, link, prefix] of [[outside, "vnet0", "10.77.0.1/24"], [inside, "eth0", "10.77.0.2/24"]] as const
  ) {
    routes.addAddress(link, prefix);
    routes.setUp(link);
  }
  inside.addRoute({ destination: "0.0.0.0/0", via: "10.77.0.1" });
  await until("all its addresses are known", 60_000, async () => { // The interface gets a further address by itself, and the audit takes it up.
    await rig.redirection.apply(rig.pod, options);
    return (await rig.redirection.check(rig.pod, options)).length === 0 && outside.addresses().length >= 6;
  });
  using outbound = RawSocket.listen(rig.pod, "::", CAPTURE_PORTS.outbound);
  using _from = RawSocket.connect(machine, ADDRESS.ipv4.peer, 9000), accepted = outbound.accept();
  assertEquals(accepted.originalDestination(false), `${ADDRESS.ipv4.peer} 9000`);
  assertEquals(rig.originalDestination(accepted), undefined, "the hook has not seen it");
});

Deno.test("bpf: namespaces that are not enrolled and processes outside the cgroup are not touched (CNI-201)", async () => {
  using rig = await BpfRig.start();
  using outsider = createAnonymousNetns();
  using routes = RouteSocket.open(outsider);
  routes.setUp("lo");
  using listener = RawSocket.listen(outsider, "127.0.0.1", 9000);
  using _direct = RawSocket.connect(outsider, "127.0.0.1", 9000), _accepted = listener.accept();
  assertEquals(rig.redirection.node.counters().CAPTURED, 0);
  using elsewhere = new ScratchCgroup(); // Beside the one that the hooks are on.
  elsewhere.enter();
  using remote = RawSocket.listen(rig.peer, "::", 9000);
  const past = () => RawSocket.connect(rig.pod, ADDRESS.ipv4.peer, 9000, { timeoutS: SILENT_S });
  assertThrows(past, Error, undefined, "the hooks do not see it, and the guard does not let it go");
  assertEquals(rig.redirection.node.counters().CAPTURED, 0);
  assert(rig.redirection.node.counters().GUARD > 0 && remote.fd >= 0);
});

Deno.test("bpf: a second agent with pins of its own does not take over a claimed namespace, and may have others (CNI-214, CNI-215)", async () => {
  using rig = await BpfRig.start();
  using bpffs = new PrivateBpffs();
  using other = new BpfRedirection({ ...rig.places, pins: `${bpffs.folder}/other` }, {});
  const error = await assertRejects(() => other.apply(rig.pod, {}), MeshError);
  assertEquals(error.code, "AMB7154");
  await rig.redirection.remove(rig.pod);
  await other.apply(rig.pod, {});
  using outbound = RawSocket.listen(rig.pod, "::", CAPTURE_PORTS.outbound);
  using captured = RawSocket.connect(rig.pod, ADDRESS.ipv4.peer, 9000), _accepted = outbound.accept();
  assertEquals(captured.otherName(), `${ADDRESS.ipv4.peer} 9000`);
  assertEquals(rig.redirection.node.counters().CAPTURED, 0);
});

Deno.test("bpf: a new agent adopts what the one before it pinned, without a moment of plaintext; what is gone is forgotten (CNI-214)", async () => {
  using rig = await BpfRig.start();
  using outbound = RawSocket.listen(rig.pod, "::", CAPTURE_PORTS.outbound),
    remote = RawSocket.listen(rig.peer, "::", 9000);
  rig.redirection[Symbol.dispose](); // As if killed: only pins are left.
  using before = RawSocket.connect(rig.pod, ADDRESS.ipv4.peer, 9000), _taken = outbound.accept();
  assertEquals(before.otherName(), `${ADDRESS.ipv4.peer} 9000`);
  {
    using gone = createAnonymousNetns();
    using routes = RouteSocket.open(gone);
    routes.addVeth({ name: "eth0", peerName: "eth1" });
    routes.addAddress("eth0", "10.1.1.1/24");
    using short = new BpfRedirection(rig.places, {});
    await short.apply(gone, {});
  }
  const folders = () => [...Deno.readDirSync(rig.places.pins)].filter(({ isDirectory }) => isDirectory).length;
  assertEquals(folders(), 2);
  await until("the namespace is gone", 60_000, () => {
    using again = new BpfRedirection(rig.places, {});
    return again.node.maps.enrolled.keys().length === 1;
  });
  rig.redirection = new BpfRedirection(rig.places, {});
  assertEquals(folders(), 1);
  assertEquals(await rig.redirection.check(rig.pod, {}), []);
  using after = RawSocket.connect(rig.pod, ADDRESS.ipv4.peer, 9000), accepted = outbound.accept();
  assertEquals(rig.originalDestination(accepted), `${ADDRESS.ipv4.peer} 9000`);
  assert(after.fd >= 0 && remote.fd >= 0);
});

Deno.test("bpf: a pod changes from rules to eBPF and back, each time without what was before (CNI-144, CNI-312)", async () => {
  using rig = await BpfRig.start();
  const { pod } = rig, at = ADDRESS.ipv4, log = new Logger("test", { sink: () => {} });
  using rules = await chooseRedirection(
    {
      redirect: "nft",
      nativeNftables: undefined,
      forceIptables: undefined,
      reconcilePodRules: true,
      bpfPins: rig.places.pins,
    },
    { log },
  );
  using outbound = RawSocket.listen(pod, "::", CAPTURE_PORTS.outbound);
  for (let round = 0; round < 2; round++) {
    assert((await rules.check(pod, {})).includes("BPF programs redirect it, too"));
    await rules.apply(pod, {});
    assertEquals(await rules.check(pod, {}), []);
    using _byRules = RawSocket.connect(pod, at.peer, 9000), tracked = outbound.accept();
    assertEquals(tracked.originalDestination(false), `${at.peer} 9000`);
    assertEquals(rig.originalDestination(tracked), undefined);
    assert((await rig.redirection.check(pod, {})).includes("table istio-ambient-nat should not be there"));
    await rig.redirection.apply(pod, {});
    assertEquals(await rig.redirection.check(pod, {}), []);
    using _byHook = RawSocket.connect(pod, at.peer, 9001), hooked = outbound.accept();
    assertEquals(rig.originalDestination(hooked), `${at.peer} 9001`);
  }
});

Deno.test("bpf: connections of Multipath TCP, and with data in the SYN, are captured as any (CNI-201)", async () => {
  using rig = await BpfRig.start();
  using outbound = RawSocket.listen(rig.pod, "::", CAPTURE_PORTS.outbound);
  using _several = RawSocket.connect(rig.pod, ADDRESS.ipv4.peer, 9000, { protocol: MULTIPATH }),
    first = outbound.accept();
  assertEquals(rig.originalDestination(first), `${ADDRESS.ipv4.peer} 9000`);
  using early = RawSocket.open(rig.pod, ADDRESS.ipv4.peer);
  early.sendTo("at once", ADDRESS.ipv4.peer, 9001, MSG_FASTOPEN);
  using second = outbound.accept();
  assertEquals([rig.originalDestination(second), second.receive()], [`${ADDRESS.ipv4.peer} 9001`, "at once"]);
});

Deno.test("tryBpf() finds all it needs where hooks see this process, and says what fails where they do not (CNI-216, CNI-217)", async () => {
  using bpffs = new PrivateBpffs();
  using covering = new ScratchCgroup(), elsewhere = new ScratchCgroup();
  covering.enter();
  const places = (cgroup: string) => ({ pins: `${bpffs.folder}/ambit`, cgroup });
  assertEquals(await tryBpf(places(covering.path)), []);
  assertEquals(await tryBpf(places(elsewhere.path)), ["a connection that leaves a pod is not captured"]);
  const [lacks] = await tryBpf({ pins: "/nowhere/ambit", cgroup: covering.path });
  assert(lacks?.includes("is in no bpffs"), lacks);
  assertEquals([...Deno.readDirSync(bpffs.folder)].map(({ name }) => name).filter((it) => it.startsWith("ambit")), []);
});
