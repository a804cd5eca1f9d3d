/** The rules of a host's namespace are exchanged under load, as other workloads come and go: no connection of one that stays slips by (CNI-274, CNI-315). */
import { SharedNode } from "../../cni/bare/shared_node.ts";
import { SHARED_PORTS } from "../../cni/bare/shared_statements.ts";
import { type EnrolRequest, parseEnrolRequest } from "../../mesh/enrolment.ts";
import * as libc from "../../os/libc_cold.ts";
import { createAnonymousNetns, withinNetns } from "../../os/netns.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { connectWhileRulesChange } from "./connect_load.ts";
import { RawSocket } from "./raw_socket.ts";
import { ScratchCgroups } from "./scratch_cgroup.ts";

const ROUNDS = 200, F_SETFL = 4, BACKLOG = 4096;

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
  await connectWhileRulesChange({
    netns: host,
    ip: "10.58.0.1",
    port: 9000,
    outbound,
    remote,
    rounds: ROUNDS,
    change: (round) => withinNetns(host, () => round % 2 === 0 ? node.apply(1, other, request) : node.delete(1)),
  });
});
