/** Two namespaces joined by a veth, one of them redirected by eBPF, with a stand-in for ztunnel. All in places of its own. */
import { assert } from "@std/assert";
import { parseIp } from "../../base/address.ts";
import { PROBE_ADDRESS } from "../../cni/nft_rules.ts";
import type { BpfPlaces } from "../../cni/bpf/places.ts";
import { BpfRedirection } from "../../cni/bpf/redirection.ts";
import type { PodRuleOptions } from "../../cni/redirection/redirection.ts";
import { netnsCookie } from "../../os/bpf/netns_cookie.ts";
import { RedirectedPods } from "../../os/bpf/redirected_pods.ts";
import { ORIGINAL, TUPLE, writeAddress } from "../../os/bpf/shared_maps.ts";
import { formatIp, ipFromBytes } from "../../base/address.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { createAnonymousNetns, type Netns, writeSysctl } from "../../os/netns.ts";
import { PrivateBpffs, ScratchCgroup } from "./bpf_scratch.ts";
import type { RawSocket } from "./raw_socket.ts";

export const ADDRESS = {
  ipv4: { pod: "10.55.1.2", peer: "10.55.1.1", loopback: "127.0.0.1" },
  ipv6: { pod: "fd00:55::2", peer: "fd00:55::1", loopback: "::1" },
} as const;
export type Family = keyof typeof ADDRESS;
export const FAMILIES = ["ipv4", "ipv6"] as const;

/** Addresses of both families, or of those that are named, in both namespaces. */
export class BpfRig implements Disposable {
  readonly pod: Netns;
  readonly peer: Netns;
  readonly cookie: bigint;
  readonly places: BpfPlaces;
  redirection: BpfRedirection;
  readonly #owned = new DisposableStack();

  /** The process is in a cgroup of its own until the rig is disposed of: its sockets are those of the pod. */
  static async start(
    options: PodRuleOptions = {},
    families: readonly Family[] = FAMILIES,
    { foreign = false }: { foreign?: boolean } = {},
  ): Promise<BpfRig> {
    using making = new DisposableStack();
    const rig = making.use(new BpfRig(families, foreign));
    await rig.redirection.apply(rig.pod, options);
    making.move();
    return rig;
  }

  private constructor(families: readonly Family[], foreign: boolean) {
    using making = new DisposableStack();
    const bpffs = making.use(new PrivateBpffs()), cgroup = making.use(new ScratchCgroup());
    cgroup.enter();
    this.pod = making.use(createAnonymousNetns());
    this.peer = making.use(createAnonymousNetns());
    join(this.pod, this.peer, families);
    this.cookie = netnsCookie(this.pod);
    this.places = {
      pins: `${bpffs.folder}/ambit`,
      cgroup: cgroup.path,
      foreignZtunnel: foreign ? cgroup.path : undefined,
    };
    this.redirection = new BpfRedirection(this.places, {});
    making.defer(() => this.redirection[Symbol.dispose]());
    this.#owned.use(making.move());
  }

  /** Puts the stand-in's inbound listener where the lookup hook finds it, as ztunnel does. */
  serve(listener: RawSocket): void {
    using pods = RedirectedPods.open(this.places.pins)!;
    assert(pods.has(this.cookie), "the pod is known to be redirected");
    pods.serve(this.cookie, { ipv4: listener.fd, ipv6: listener.fd });
  }

  /** `ip port` that an accepted connection was meant for, found as ztunnel finds it; undefined when nothing is known. */
  originalDestination(accepted: RawSocket): string | undefined {
    const [ip, port] = accepted.otherName().split(" ");
    const key = new Uint8Array(TUPLE.bytes), view = new DataView(key.buffer);
    view.setBigUint64(TUPLE.cookie, this.cookie, true);
    writeAddress(key, TUPLE.address, parseIp(ip!)!);
    view.setUint32(TUPLE.port, Number(port), true);
    const value = this.redirection.node.maps.byTuple.lookup(key);
    if (value === undefined) return undefined;
    const words = ipFromBytes(value.subarray(ORIGINAL.address, ORIGINAL.address + 16))!;
    const text = formatIp(words[0], words[1], words[2], words[3]);
    return `${text} ${new DataView(value.buffer).getUint16(ORIGINAL.port)}`;
  }

  [Symbol.dispose](): void {
    this.#owned[Symbol.dispose]();
  }
}

function join(podNetns: Netns, peerNetns: Netns, families: readonly Family[]): void {
  // Link-local addresses are usable at once: neighbour discovery needs them.
  for (const netns of [podNetns, peerNetns]) writeSysctl(netns, "net/ipv6/conf/default/accept_dad", "0");
  if (!families.includes("ipv6")) writeSysctl(podNetns, "net/ipv6/conf/all/disable_ipv6", "1");
  using pod = RouteSocket.open(podNetns);
  using peer = RouteSocket.open(peerNetns);
  peer.addVeth({ name: "veth0", peerName: "eth0", peerNetns: podNetns });
  for (const [routes, link, who] of [[pod, "eth0", "pod"], [peer, "veth0", "peer"]] as const) {
    routes.setUp("lo");
    if (families.includes("ipv4")) routes.addAddress(link, `${ADDRESS.ipv4[who]}/24`);
    if (families.includes("ipv6")) routes.addAddress(link, `${ADDRESS.ipv6[who]}/64`);
    routes.setUp(link);
  }
  const deadline = performance.now() + 10_000;
  while (!pod.findLink("eth0")!.running || !peer.findLink("veth0")!.running) {
    assert(performance.now() < deadline, "the link carries packets");
  }
  for (const family of families) {
    peer.addAddress("lo", `${PROBE_ADDRESS[family]}/${family === "ipv4" ? 32 : 128}`);
    pod.addRoute({ destination: family === "ipv4" ? "0.0.0.0/0" : "::/0", via: ADDRESS[family].peer });
  }
}
