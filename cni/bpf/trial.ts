/** Whether this node can redirect by eBPF: everything is loaded and attached for a moment, and carries one connection each way (CNI-217). */
import { parseIp } from "../../base/address.ts";
import { chain, MeshError } from "../../base/errors.ts";
import { netnsCookie } from "../../os/bpf/netns_cookie.ts";
import { RedirectedPods } from "../../os/bpf/redirected_pods.ts";
import { ORIGINAL } from "../../os/bpf/shared_maps.ts";
import { bindInet, connectInet } from "../../os/inet.ts";
import * as libc from "../../os/libc_cold.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { createAnonymousNetns, type Netns, withinNetns } from "../../os/netns.ts";
import { CAPTURE_PORTS } from "../nft_rules.ts";
import { NodeObjects } from "./node_objects.ts";
import type { BpfPlaces } from "./places.ts";
import { BpfRedirection } from "./redirection.ts";

// Of the addresses for documentation (RFC 5737 §3): the namespaces are closed, so they meet nobody.
const POD = parseIp("192.0.2.2")!, PEER = parseIp("192.0.2.1")!, ANY = parseIp("0.0.0.0")!;
const OUTBOUND_PORT = 9, INBOUND_PORT = 8080;
const TIMEOUT_MS = 2_000;

/** What is lacking, in words; nothing when all of it works. Leaves nothing behind. */
export async function tryBpf(places: BpfPlaces): Promise<string[]> {
  const own: BpfPlaces = { ...places, pins: `${places.pins}-trial-${Deno.pid}` };
  try {
    using cleanup = new DisposableStack();
    const pod = cleanup.use(createAnonymousNetns()), peer = cleanup.use(createAnonymousNetns());
    join(pod, peer);
    cleanup.defer(() => uninstall(own));
    const redirection = cleanup.use(new BpfRedirection(own, {}));
    await redirection.apply(pod, { ipv6: false });
    const lacks = [await outbound(redirection, pod), await inbound(own, pod, peer)].filter((it) => it !== undefined);
    await redirection.remove(pod);
    return lacks;
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    return [chain(error)];
  }
}

function uninstall(places: BpfPlaces): void {
  try {
    Deno.statSync(places.pins);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return; // It came to nothing.
    throw error;
  }
  NodeObjects.removePins(places.pins);
}

function join(pod: Netns, peer: Netns): void {
  using inside = RouteSocket.open(pod);
  using outside = RouteSocket.open(peer);
  outside.addVeth({ name: "trial0", peerName: "eth0", peerNetns: pod });
  inside.setUp("lo");
  inside.addAddress("eth0", "192.0.2.2/24");
  outside.addAddress("trial0", "192.0.2.1/24");
  inside.setUp("eth0");
  outside.setUp("trial0");
}

async function outbound(redirection: BpfRedirection, pod: Netns): Promise<string | undefined> {
  using sockets = new DisposableStack();
  const listener = listen(sockets, pod, CAPTURE_PORTS.outbound);
  connect(sockets, pod, [PEER, OUTBOUND_PORT]);
  if (!await accepts(sockets, listener)) return "a connection that leaves a pod is not captured";
  const { byTuple } = redirection.node.maps, key = byTuple.keys()[0];
  const value = key === undefined ? undefined : byTuple.lookup(key);
  const known = value !== undefined && new DataView(value.buffer).getUint32(ORIGINAL.address + 12) === PEER[3];
  return known ? undefined : "what a captured connection was meant for is not found again";
}

async function inbound(places: BpfPlaces, pod: Netns, peer: Netns): Promise<string | undefined> {
  using sockets = new DisposableStack();
  const listener = listen(sockets, pod, CAPTURE_PORTS.inboundPlaintext);
  using pods = RedirectedPods.open(places.pins);
  pods?.serve(netnsCookie(pod), { ipv4: listener, ipv6: undefined });
  connect(sockets, peer, [POD, INBOUND_PORT]);
  return await accepts(sockets, listener) ? undefined : "a connection to a pod is not captured";
}

function listen(sockets: DisposableStack, netns: Netns, port: number): number {
  const fd = withinNetns(netns, () => bindInet(ANY, port, { transport: "tcp", mark: 0, reusePort: false }));
  return owned(sockets, fd, `listen on port ${port} of a trial's namespace`);
}

function connect(sockets: DisposableStack, netns: Netns, [ip, port]: readonly [typeof PEER, number]): void {
  const fd = withinNetns(netns, () => connectInet(ip, port, { transport: "tcp", mark: 0 }));
  owned(sockets, fd, "connect in a trial's namespace");
}

function owned(sockets: DisposableStack, fd: number, doing: string): number {
  if (fd >= 0) return sockets.adopt(fd, libc.close);
  throw new MeshError("AMB7156", `could not ${doing}: ${libc.errnoName(fd)}`, {
    remedy: "See that the node's kernel has IPv4 and veth, or choose another redirection than bpf.",
  });
}

async function accepts(sockets: DisposableStack, listener: number): Promise<boolean> {
  if (!await libc.waitFor(listener, libc.POLL.IN, TIMEOUT_MS)) return false;
  const fd = libc.accept(listener);
  if (fd >= 0) sockets.adopt(fd, libc.close);
  return fd >= 0;
}
