/** Rules are written again and again under load: no connection may slip by (CNI-132, CNI-315). */
import { assert, assertEquals, assertGreater } from "@std/assert";
import { CAPTURE_PORTS } from "../../cni/nft_rules.ts";
import { applyPodRules } from "../../cni/pod_rules.ts";
import * as libc from "../../os/libc_cold.ts";
import { createAnonymousNetns } from "../../os/netns.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { RawSocket } from "./raw_socket.ts";

const ROUNDS = 200;

/** Takes all connections that wait at a listener, and closes them. */
function takeAll(listener: RawSocket): number {
  for (let count = 0;; count++) {
    const fd = libc.accept(listener.fd);
    if (fd < 0) return count;
    libc.close(fd);
  }
}

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
  const F_SETFL = 4;
  for (const { fd } of [outbound, remote]) libc.fcntl(fd, F_SETFL, libc.O.NONBLOCK);
  applyPodRules(pod, {});

  const worker = new Worker(new URL("./connect_worker.ts", import.meta.url), { type: "module" });
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const finished = new Promise<number>((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = (event) => reject(new Error(event.message));
  });
  worker.postMessage({ netnsPath: `/proc/${Deno.pid}/fd/${pod.fd}`, ip: "10.56.0.1", port: 9000, stop });
  let captured = 0, rounds = 0;
  const deadline = performance.now() + 60_000;
  while (rounds < ROUNDS || captured < ROUNDS) {
    applyPodRules(pod, {});
    assert(performance.now() < deadline, "connections keep coming");
    rounds++;
    captured += takeAll(outbound);
    await new Promise((resolve) => setTimeout(resolve, 0)); // So that a failure of the worker is seen.
  }
  Atomics.store(stop, 0, 1);
  const emptying = setInterval(() => captured += takeAll(outbound), 1); // Its last connect may wait for room.
  const connected = await finished;
  clearInterval(emptying);
  worker.terminate();
  captured += takeAll(outbound);
  assertEquals([captured, takeAll(remote)], [connected, 0]);
  assertGreater(connected, ROUNDS);
});
