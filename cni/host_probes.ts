/**
 * The node's own probes reach pods past the mesh: what starts at a local socket towards an enrolled pod comes from an
 * address that the pod's rules let through (CNI-180 to CNI-185). Rules and sets stand in the host's network namespace.
 */
import { parseIp } from "../base/address.ts";
import type { FirewallSet, FirewallTable, IpFamily, SetElement } from "../os/netlink/nft_model.ts";
import { FirewallSocket } from "../os/netlink/nftables.ts";
import type { Netns } from "../os/netns.ts";
import { PROBE_ADDRESS, type ProbeSource, TABLE_NAMES } from "./nft_rules.ts";
import type { NodeProbes, ProbedAddress } from "./redirection/redirection.ts";

const SETS = {
  ipv4: { name: "istio-inpod-probes-v4", family: "ipv4" },
  ipv6: { name: "istio-inpod-probes-v6", family: "ipv6" },
} as const satisfies Record<string, FirewallSet>;
const SOURCE_NAT_PRIORITY = 100;
const CHAIN = "postrouting";

/** The host's table, as data. */
export function hostTable(
  families: readonly IpFamily[] = ["ipv4", "ipv6"],
  probe: ProbeSource = PROBE_ADDRESS,
): FirewallTable {
  return {
    name: TABLE_NAMES.nat,
    sets: families.map((family) => SETS[family]),
    chains: [{ name: CHAIN, base: { type: "nat", hook: CHAIN, priority: SOURCE_NAT_PRIORITY } }],
    rules: families.map((family) => ({
      chain: CHAIN,
      statements: [
        { kind: "transport", transport: "tcp" },
        { kind: "localSocket" },
        { kind: "inSet", family, side: "destination", set: SETS[family].name },
        { kind: "counter" },
        { kind: "sourceNat", family, ip: probe[family] },
      ],
    })),
  };
}

function familyOf(ip: string): keyof typeof SETS {
  return ip.includes(":") ? "ipv6" : "ipv4";
}

/** The host's rules and sets. Every method may throw AMB7014. */
export class HostProbes implements NodeProbes {
  readonly #firewall: FirewallSocket;
  readonly #table: FirewallTable;

  /** For `netns`, or the namespace of this thread. */
  constructor(netns?: Netns, probe?: ProbeSource) {
    this.#table = hostTable(undefined, probe);
    this.#firewall = FirewallSocket.open(netns);
  }

  /** Makes the rules what they should be; what is in the sets stays, so that no probe fails meanwhile (CNI-091). */
  ensure(): void {
    this.#firewall.replace([this.#table]);
  }

  /** What is missing or different, in words (CNI-188). */
  check(): string[] {
    return this.#firewall.differences([this.#table]);
  }

  /** Puts a pod's addresses in; one that belonged to another pod is this one's from now on. */
  add(addresses: readonly ProbedAddress[]): void {
    for (const [family, wanted] of byFamily(addresses)) {
      const present = this.#firewall.setElements(TABLE_NAMES.nat, SETS[family]);
      const changed = wanted.filter(({ ip, uid }) => present.get(ip)?.comment !== uid);
      this.#firewall.changeElements(TABLE_NAMES.nat, SETS[family], {
        remove: changed.filter(({ ip }) => present.has(ip)).map(({ ip }) => ip),
        add: changed.map(elementOf),
      });
    }
  }

  /** Takes a pod's addresses out. @returns Those that are another pod's now, and stay (CNI-083, CNI-084). */
  remove(addresses: readonly ProbedAddress[]): ProbedAddress[] {
    const others: ProbedAddress[] = [];
    for (const [family, gone] of byFamily(addresses)) {
      const present = this.#firewall.setElements(TABLE_NAMES.nat, SETS[family]);
      const own: string[] = [];
      for (const { ip, uid } of gone) {
        const owner = present.get(ip)?.comment;
        if (owner === uid) own.push(ip);
        else if (owner !== undefined) others.push({ ip, uid: owner });
      }
      this.#firewall.changeElements(TABLE_NAMES.nat, SETS[family], { remove: own, add: [] });
    }
    return others;
  }

  /** Makes the sets hold these addresses; what is not among them goes only if `complete` (CNI-090). */
  sync(addresses: readonly ProbedAddress[], { complete }: { readonly complete: boolean }): void {
    this.add(addresses);
    if (!complete) return;
    const wanted = new Set(addresses.map(({ ip }) => ip));
    for (const set of Object.values(SETS)) {
      const present = [...this.#firewall.setElements(TABLE_NAMES.nat, set).keys()];
      this.#firewall.changeElements(TABLE_NAMES.nat, set, { remove: present.filter((ip) => !wanted.has(ip)), add: [] });
    }
  }

  /** The addresses in the sets, for checks and status. */
  addresses(): ProbedAddress[] {
    return Object.values(SETS).flatMap((set) =>
      [...this.#firewall.setElements(TABLE_NAMES.nat, set).values()].map(({ ip, comment }) => ({ ip, uid: comment }))
    );
  }

  /** Takes rules and sets away; what is not there is fine (CNI-047). */
  uninstall(): void {
    this.#firewall.deleteTables([TABLE_NAMES.nat]);
  }

  [Symbol.dispose](): void {
    this.#firewall[Symbol.dispose]();
  }
}

const elementOf = ({ ip, uid }: ProbedAddress): SetElement => ({ ip, comment: uid });

function byFamily(addresses: readonly ProbedAddress[]): [keyof typeof SETS, ProbedAddress[]][] {
  const wanted = addresses.filter(({ ip }) => parseIp(ip) !== undefined);
  return (["ipv4", "ipv6"] as const)
    .map((family): [keyof typeof SETS, ProbedAddress[]] => [family, wanted.filter(({ ip }) => familyOf(ip) === family)])
    .filter(([, list]) => list.length > 0);
}
