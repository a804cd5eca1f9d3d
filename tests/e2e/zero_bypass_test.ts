/** Rules are written again and again under load: no connection may slip by (CNI-132, CNI-315). */
import { assert, assertEquals, assertGreater } from "@std/assert";
import { CAPTURE_PORTS } from "../../cni/nft_rules.ts";
import { applyPodRules } from "../../cni/pod_rules.ts";
import * as libc from "../../os/libc_cold.ts";
import { createAnonymousNetns } from "../../os/netns.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { NETFILTER_BACKENDS, openBackend } from "./backends.ts";
import { connectWhileRulesChange, takeAll } from "./connect_load.ts";
import { RawSocket } from "./raw_socket.ts";

const ROUNDS = 200;

const F_SETFL = 4, BACKLOG = 4096;

Deno.test("no connection reaches the other side while rules are written 200 times", async () => {
  using pod = createAnonymousNetns();
  using peer = createAnonymousNetns();
  using routes = RouteSocket.open(peer);
  routes.addVeth({ name: "veth0", peerName: "eth0", peerNetns: pod });
  routes.addAddress("veth0", "10.56.0.1/24");
  routes.setUp("veth0");
  using inside = RouteSocket.open(pod);
  inside.setUp("lo");
  inside.addAddress("eth0", "10.56.0.2/24");
  inside.setUp("eth0");
  using outbound = RawSocket.listen(pod, "0.0.0.0", CAPTURE_PORTS.outbound);
  using remote = RawSocket.listen(peer, "0.0.0.0", 9000);
  for (const { fd } of [outbound, remote]) libc.fcntl(fd, F_SETFL, libc.O.NONBLOCK);
  applyPodRules(pod, {});

  await connectWhileRulesChange({
    netns: pod,
    ip: "10.56.0.1",
    port: 9000,
    outbound,
    remote,
    rounds: ROUNDS,
    change: () => applyPodRules(pod, {}),
  });
});

for (const name of NETFILTER_BACKENDS) {
  Deno.test(`${name}: while a pod's rules are exchanged ${ROUNDS} times under load of both families, nothing gets out past the mesh (CNI-132, CNI-135, CNI-315)`, async () => {
    const { bypassed, captured, begun } = await exchangeUnderLoad(name, { reconcile: true });
    assertEquals(bypassed, 0, `of ${begun} connections begun`);
    assertGreater(captured, ROUNDS);
  });
}

/** Exchanges the rules of a pod with others and back, while connections are begun without pause. */
async function exchangeUnderLoad(name: typeof NETFILTER_BACKENDS[number], options: { readonly reconcile: boolean }) {
  using backend = await openBackend(name, options), pod = createAnonymousNetns(), peer = createAnonymousNetns();
  using routes = RouteSocket.open(peer), inside = RouteSocket.open(pod);
  routes.addVeth({ name: "veth0", peerName: "eth0", peerNetns: pod });
  inside.setUp("lo");
  for (const [at, link, last] of [[routes, "veth0", 1], [inside, "eth0", 2]] as const) {
    at.addAddress(link, `10.57.0.${last}/24`);
    at.addAddress(link, `fd00:57::${last}/64`);
    at.setUp(link);
  }
  using outbound = RawSocket.listen(pod, "::", CAPTURE_PORTS.outbound), remote = RawSocket.listen(peer, "::", 9000);
  for (const { fd } of [outbound, remote]) {
    libc.fcntl(fd, F_SETFL, libc.O.NONBLOCK);
    libc.listen(fd, BACKLOG);
  }
  const dns = (round: number) => ({ dnsCapture: round % 2 === 1 });
  await backend.apply(pod, dns(0));
  const worker = new Worker(new URL("./storm_worker.ts", import.meta.url), { type: "module" });
  const state = new Int32Array(new SharedArrayBuffer(8));
  const stopped = new Promise<void>((resolve, reject) => {
    worker.onmessage = () => resolve();
    worker.onerror = (event) => reject(new Error(event.message));
  });
  worker.postMessage({
    netnsPath: `/proc/${Deno.pid}/fd/${pod.fd}`,
    ips: ["10.57.0.1", "fd00:57::1"],
    port: 9000,
    state,
  });
  let captured = 0, bypassed = 0;
  const deadline = performance.now() + 300_000; // A round of iptables is some ten programs, each under load.
  for (let round = 1; round <= ROUNDS || captured <= ROUNDS; round++) {
    await backend.apply(pod, dns(round));
    captured += takeAll(outbound);
    bypassed += takeAll(remote);
    assert(performance.now() < deadline, `connections keep coming: ${captured} captured`);
    await Promise.race([stopped, new Promise((resolve) => setTimeout(resolve, 0))]);
  }
  Atomics.store(state, 0, 1);
  await stopped;
  worker.terminate();
  captured += takeAll(outbound);
  bypassed += takeAll(remote);
  return { captured, bypassed, begun: Atomics.load(state, 1) };
}
