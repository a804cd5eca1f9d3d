/** What captures the traffic of a network namespace, whichever means does it: netlink, a program of the node, or eBPF. */
import type { Netns } from "../../os/netns.ts";
import type { RedirectionOptions } from "../nft_rules.ts";

/** By name, as `--redirect` takes them; the order is that of the automatic choice (CNI-144), eBPF apart. */
export const BACKENDS = ["nft", "nft-binary", "iptables-nft", "iptables-legacy", "bpf"] as const;
export type BackendName = typeof BACKENDS[number];

/** What a backend that only talks to the kernel answers at once, and one that runs a program later. */
export type Awaitable<T> = T | Promise<T>;

/** What of the options is left open for the namespace to decide: whether there is IPv6 at all. */
export type PodRuleOptions = Omit<RedirectionOptions, "ipv6"> & { readonly ipv6?: boolean };

/** Redirection inside one network namespace. All of it can be repeated; the handle stays the caller's, who keeps it open meanwhile. */
export interface PodRedirection {
  /** Makes the namespace's rules those of the options, and removes what another backend left there. Throws MeshError. */
  apply(netns: Netns, options: PodRuleOptions): Awaitable<void>;
  /** Captures nothing new; what ztunnel carries keeps its way to it until it has ended. */
  release(netns: Netns): Awaitable<void>;
  /** Takes everything out; what is not there is fine. */
  remove(netns: Netns): Awaitable<void>;
  /** What is missing or different, in words; nothing when all is in place. Changes nothing. */
  check(netns: Netns, options: PodRuleOptions): Awaitable<string[]>;
  /**
   * Whether something is there that {@link apply} takes away, and that what ztunnel carries hangs on: bytes on their way in
   * its connections would show on the wire. They are ended first.
   */
  supersedes?(netns: Netns): Awaitable<boolean>;
  /** Nothing runs in the namespace any more: what is kept of it on the node goes, the rest with the namespace. */
  forget?(netns: Netns): Awaitable<void>;
}

/** A pod's address and whose it is: the pod's uid, so that an address that has passed on is not taken from its new owner (CNI-084). */
export interface ProbedAddress {
  readonly ip: string;
  readonly uid: string;
}

/** The node's side: which addresses its own probes reach past the mesh (CNI-180 to CNI-185). */
export interface NodeProbes extends Disposable {
  /** Makes the rules what they should be; what is in the sets stays, so that no probe fails meanwhile (CNI-091). */
  ensure(): Awaitable<void>;
  /** What is missing or different, in words (CNI-188). */
  check(): Awaitable<string[]>;
  /** Puts a pod's addresses in; one that belonged to another pod is this one's from now on. */
  add(addresses: readonly ProbedAddress[]): Awaitable<void>;
  /** Takes a pod's addresses out. @returns Those that are another pod's now, and stay (CNI-083, CNI-084). */
  remove(addresses: readonly ProbedAddress[]): Awaitable<ProbedAddress[]>;
  /** Makes the sets hold these addresses; what is not among them goes only if `complete` (CNI-090). */
  sync(addresses: readonly ProbedAddress[], options: { readonly complete: boolean }): Awaitable<void>;
  /** What is in the sets. */
  addresses(): Awaitable<ProbedAddress[]>;
  /** Takes rules and sets away; what is not there is fine (CNI-047). */
  uninstall(): Awaitable<void>;
}

/** One backend, ready for use. */
export interface Redirection extends PodRedirection, Disposable {
  readonly name: BackendName;
  /** Why it is not the one that was asked for; undefined if it is, or if any would do. */
  readonly reason?: string;
  /** For `netns`, or the namespace of this thread, which is the host's. */
  openNode(netns?: Netns): NodeProbes;
  /** Takes off the node what another backend left there for its probes; to be called once ours pass. Throws nothing. */
  clearNode?(netns?: Netns): Promise<void>;
}

/** A backend that could be chosen. */
export interface Candidate {
  readonly name: BackendName;
  /** What this machine lacks for it, in words; nothing when it can be used. */
  missing(): Awaitable<string[]>;
  /** Whether the node has rules of this kind already; asked after {@link missing}, where two are equally good (CNI-139). */
  inUse?(): boolean;
  open(): Awaitable<Redirection>;
}
