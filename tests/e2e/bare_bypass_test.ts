/** The rules of a host's namespace are exchanged under load, as other workloads come and go: no connection of one that stays slips by (CNI-274, CNI-315). */
import { assert, assertEquals, assertGreater } from "@std/assert";
import { SharedNode } from "../../cni/bare/shared_node.ts";
import { SHARED_PORTS } from "../../cni/bare/shared_rules.ts";
import { type EnrolRequest, parseEnrolRequest } from "../../mesh/enrolment.ts";
import * as libc from "../../os/libc_cold.ts";
import { createAnonymousNetns, withinNetns } from "../../os/netns.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { RawSocket } from "./raw_socket.ts";
import { ScratchCgroups } from "./scratch_cgroup.ts";

const ROUNDS = 200, F_SETFL = 4, BACKLOG = 4096;

/** Takes all connections that wait at a listener, and closes them. */
function takeAll(listener: RawSocket): number {
  for (let count = 0;; count++) {
    const fd = libc.accept(listener.fd);
    if (fd < 0) return count;
    libc.close(fd);
  }
}

Deno.test("no connection of a control group gets past the mesh while others are enrolled and unenrolled 200 times (CNI-274, CNI-315)", async () => {
  using host = createAnonymousNetns();
  using peer = createAnonymousNetns();
  using routes = RouteSocket.open(peer);
  using inside = RouteSocket.open(host);
  routes.addVeth({ name: "veth0", peerName: "eth0", peerNetns: host });
  inside.setUp("lo");
  for (const [at, link, last] of [[routes, "veth0", 1], [inside, "eth0", 2]] as const) {
    at.addAddress(link, `10.58.0.${last}/24`);
    at.setUp(link);
  }
  using cgroups = new ScratchCgroups();
  const web = cgroups.add("web"), other = cgroups.add("other"), node = new SharedNode({ never: [] });
  const fields = { target: "cgroup/x", namespace: "shop", serviceAccount: "web", name: "web", inboundPorts: [8080] };
  const request = parseEnrolRequest(fields) as EnrolRequest;
  withinNetns(host, () => node.apply(0, web, request));
  using outbound = RawSocket.listen(host, "0.0.0.0", SHARED_PORTS.outbound);
  using remote = RawSocket.listen(peer, "0.0.0.0", 9000);
  for (const { fd } of [outbound, remote]) {
    libc.fcntl(fd, F_SETFL, libc.O.NONBLOCK);
    libc.listen(fd, BACKLOG);
  }
  using _inside = cgroups.stay(web);
  const worker = new Worker(new URL("./connect_worker.ts", import.meta.url), { type: "module" });
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const finished = new Promise<number>((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = (event) => reject(new Error(event.message));
  });
  worker.postMessage({ netnsPath: `/proc/${Deno.pid}/fd/${host.fd}`, ip: "10.58.0.1", port: 9000, stop });
  let captured = 0, rounds = 0;
  const deadline = performance.now() + 60_000;
  while (rounds < ROUNDS || captured < ROUNDS) {
    withinNetns(host, () => rounds % 2 === 0 ? node.apply(1, other, request) : node.delete(1));
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
