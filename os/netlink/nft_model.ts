/** Firewall rules as data: what cni/ decides, rendered as text for people and as nf_tables messages for the kernel. */

export type Transport = "tcp" | "udp";
export type IpFamily = "ipv4" | "ipv6";

/** One step of a rule: a match (all must hold), an effect, or, last, a verdict. */
export type Statement =
  | { readonly kind: "interface"; readonly direction: "in" | "out"; readonly name: string; readonly negated?: boolean }
  | { readonly kind: "transport"; readonly transport: Transport }
  | {
    readonly kind: "port";
    readonly transport: Transport;
    readonly side: "source" | "destination";
    readonly port: number;
    readonly negated?: boolean;
  }
  | {
    readonly kind: "address";
    readonly family: IpFamily;
    readonly side: "source" | "destination";
    /** One whole address, e.g. `127.0.0.1` or `::1`. */
    readonly ip: string;
    /** Write the prefix length in text too: `127.0.0.1/32`. */
    readonly withPrefixLength?: boolean;
    readonly negated?: boolean;
  }
  | {
    readonly kind: "addressRange";
    readonly family: IpFamily;
    readonly side: "source" | "destination";
    readonly ip: string;
    readonly prefixLength: number;
  }
  /** The packet's socket was made by a process of this control group of version 2, or of one below it. */
  | { readonly kind: "cgroup"; readonly path: string; readonly level: number; readonly id: number }
  /** A TCP segment that begins a connection: SYN and none of FIN, RST and ACK. */
  | { readonly kind: "begins"; readonly transport: "tcp" }
  /** The packet is for an address of this host. */
  | { readonly kind: "localDestination" }
  | {
    readonly kind: "mark";
    readonly of: "packet" | "connection";
    readonly mask: number;
    readonly value: number;
    readonly negated?: boolean;
  }
  /** The connection's mark becomes `(mark & keep) | set`. */
  | { readonly kind: "setConnectionMark"; readonly keep: number; readonly set: number }
  /** The packet's mark becomes the connection's. */
  | { readonly kind: "restoreMark" }
  | { readonly kind: "setZone"; readonly zone: number }
  /** The address is in a set of the same table. */
  | { readonly kind: "inSet"; readonly family: IpFamily; readonly side: "source" | "destination"; readonly set: string }
  /** The packet belongs to a socket of this host: it is sent by it, not forwarded (CNI-184). */
  | { readonly kind: "localSocket" }
  | { readonly kind: "counter" }
  | { readonly kind: "redirect"; readonly port: number }
  /** The source becomes this address. */
  | { readonly kind: "sourceNat"; readonly family: IpFamily; readonly ip: string }
  | { readonly kind: "accept" }
  | { readonly kind: "drop" }
  | { readonly kind: "return" }
  | { readonly kind: "jump"; readonly chain: string };

export type HookName = "prerouting" | "output" | "postrouting";

export interface FirewallChain {
  readonly name: string;
  /** Present: a base chain, which the kernel calls at this hook. Absent: one that is jumped to. */
  readonly base?: { readonly type: "nat" | "filter" | "route"; readonly hook: HookName; readonly priority: number };
}

export interface FirewallRule {
  readonly chain: string;
  readonly statements: readonly Statement[];
}

/** A set of addresses; what is in it is no part of a table's replacement. */
export interface FirewallSet {
  readonly name: string;
  readonly family: IpFamily;
}

/** One address of a set. */
export interface SetElement {
  readonly ip: string;
  /** Shown by `nft list`; empty for none. */
  readonly comment: string;
}

/** One table of family inet; rules of a chain stand in their order. */
export interface FirewallTable {
  readonly name: string;
  readonly sets?: readonly FirewallSet[];
  readonly chains: readonly FirewallChain[];
  readonly rules: readonly FirewallRule[];
}
