/** Redirection by eBPF: hooks on the node's sockets and a lookup in each pod, without a rule and without connection tracking (CNI-200 to CNI-217). */
import { MeshError } from "../../base/errors.ts";
import { cookieKey, ENROLLED, podPinFolder } from "../../os/bpf/shared_maps.ts";
import { netnsCookie } from "../../os/bpf/netns_cookie.ts";
import type { Exclusions } from "../../mesh/enrolment.ts";
import type { FirewallTable } from "../../os/netlink/nft_model.ts";
import { FirewallSocket } from "../../os/netlink/nftables.ts";
import type { Netns } from "../../os/netns.ts";
import { HostProbes } from "../host_probes.ts";
import type { Residue } from "../redirection/residue.ts";
import { TABLE_NAMES } from "../nft_rules.ts";
import type { NodeProbes, PodRuleOptions, Redirection } from "../redirection/redirection.ts";
import { addPolicyRoutes, deletePolicyRoutes, missingPolicyRoutes } from "../redirection/policy_routes.ts";
import { NodeObjects } from "./node_objects.ts";
import { type PodFacts, podFacts } from "./pod_facts.ts";
import { forgetGone } from "./gone_pods.ts";
import { removePodPins } from "./pinned.ts";
import { PodObjects, type PodOptions } from "./pod_objects.ts";
import {
  enrolledValue,
  excludedEntries,
  ownAddressEntries,
  sameEnrolment,
  syncExceptions,
  syncPorts,
} from "./pod_values.ts";
import type { BpfPlaces } from "./places.ts";
import { virtualInterfaceTables } from "./virtual_interfaces.ts";

export class BpfRedirection implements Redirection, Disposable {
  readonly name = "bpf";
  readonly node: NodeObjects;
  readonly #residue: Residue | undefined;
  readonly #runner: Disposable | undefined;

  /** Throws AMB7150 to AMB7153. @param options.residue what other backends may have left besides tables of nf_tables. @param options.runner taken over. */
  constructor(
    places: BpfPlaces,
    options: { readonly residue?: Residue; readonly runner?: Disposable },
  ) {
    this.node = NodeObjects.open(places);
    forgetGone(this.node);
    this.#residue = options.residue;
    this.#runner = options.runner;
  }

  /** Throws AMB7154 for a namespace that another owner's programs claim, AMB7155 for one without an address. */
  async apply(netns: Netns, options: PodRuleOptions): Promise<void> {
    const cookie = netnsCookie(netns), facts = podFacts(netns), pod = podOptions(options);
    this.#refuse(cookie, facts);
    addPolicyRoutes(netns, options);
    new PodObjects(this.node, netns, cookie).apply(facts, pod);
    const { maps } = this.node, key = cookieKey(cookie), value = this.#enrolled(facts, pod);
    const { outboundCidrs, outboundPorts } = pod.exclude;
    syncExceptions(maps, cookie, [...excludedEntries(cookie, outboundCidrs), ...ownAddressEntries(cookie, facts)]);
    syncPorts(maps, cookie, outboundPorts);
    const before = maps.enrolled.lookup(key);
    if (before === undefined) forgetGone(this.node); // Pods that went while we run leave their rows: here is who needs one.
    const generation = before === undefined ? 0 : new DataView(before.buffer).getUint32(ENROLLED.generation, true);
    new DataView(value.buffer).setUint32(ENROLLED.generation, generation + 1, true);
    maps.enrolled.update(key, value);
    // Last: what another backend left here captured until now.
    using firewall = FirewallSocket.open(netns);
    const tables = virtualInterfaceTables(pod.virtualInterfaces), stale = staleTables(firewall, tables);
    // Asked for nothing the kernel would still make us wait.
    if (tables.length + stale.length > 0) firewall.replace(tables, stale);
    await this.#residue?.remove(netns);
  }

  release(netns: Netns): void {
    const cookie = netnsCookie(netns);
    this.node.maps.enrolled.delete(cookieKey(cookie));
    new PodObjects(this.node, netns, cookie).release();
  }

  async remove(netns: Netns): Promise<void> {
    this.release(netns);
    const cookie = netnsCookie(netns);
    syncExceptions(this.node.maps, cookie, []);
    syncPorts(this.node.maps, cookie, []);
    new PodObjects(this.node, netns, cookie).remove();
    using firewall = FirewallSocket.open(netns);
    const stale = staleTables(firewall, []);
    if (stale.length > 0) firewall.deleteTables(stale);
    await this.#residue?.remove(netns);
    deletePolicyRoutes(netns);
  }

  /** Rules mark replies and translate addresses for as long as a connection stands that began by them. */
  async supersedes(netns: Netns): Promise<boolean> {
    using firewall = FirewallSocket.open(netns);
    if (staleTables(firewall, []).some((name) => name !== TABLE_NAMES.nat)) return true; // Our own has no other table.
    return (await this.#residue?.list(netns) ?? []).length > 0;
  }

  /** Sockets that nobody has any more keep a namespace for minutes, and with it what is pinned for it. */
  forget(netns: Netns): void {
    const cookie = netnsCookie(netns), { maps, places } = this.node;
    maps.enrolled.delete(cookieKey(cookie));
    syncExceptions(maps, cookie, []);
    syncPorts(maps, cookie, []);
    removePodPins(podPinFolder(places.pins, cookie));
  }

  async check(netns: Netns, options: PodRuleOptions): Promise<string[]> {
    const cookie = netnsCookie(netns), facts = podFacts(netns), pod = podOptions(options);
    const present = this.node.maps.enrolled.lookup(cookieKey(cookie));
    const differences = this.node.check();
    if (present === undefined) differences.push("the namespace is not enrolled in the BPF maps");
    else if (!sameEnrolment(present, this.#enrolled(facts, pod))) {
      differences.push("the BPF maps say other things of it");
    }
    using firewall = FirewallSocket.open(netns);
    const tables = virtualInterfaceTables(pod.virtualInterfaces);
    return [
      ...differences,
      ...new PodObjects(this.node, netns, cookie).check(facts, pod),
      ...missingPolicyRoutes(netns, options),
      ...firewall.differences(tables),
      ...staleTables(firewall, tables).map((name) => `table ${name} should not be there`),
      ...await this.#residue?.list(netns) ?? [],
    ];
  }

  /** Probes come from the same address as with rules: the node's side is theirs (CNI-205). */
  openNode(netns?: Netns): NodeProbes {
    return new HostProbes(netns);
  }

  /** Closes descriptors; pods stay captured. */
  [Symbol.dispose](): void {
    this.node[Symbol.dispose]();
    this.#runner?.[Symbol.dispose]();
  }

  #enrolled(facts: PodFacts, { dns, ingress, exclude }: PodOptions): Uint8Array<ArrayBuffer> {
    const exceptions = exclude.outboundCidrs.length + exclude.outboundPorts.length > 0;
    return enrolledValue(facts, { dns, ingress, exceptions });
  }

  #refuse(cookie: bigint, facts: PodFacts): void {
    if (this.node.claimedByAnother(cookie)) {
      throw new MeshError("AMB7154", "the network namespace is enrolled by another node agent's BPF programs", {
        remedy: "Stop the other agent and take its pins away, or have this one redirect by other means.",
      });
    }
    if (facts.ipv4.length + facts.ipv6.length > 0) return;
    throw new MeshError("AMB7155", "the network namespace has no address yet", {
      remedy: "Give its interface an address first: captured connections are turned to it.",
    });
  }
}

/** Tables of ours that are there and should not be. */
function staleTables(firewall: FirewallSocket, wanted: readonly FirewallTable[]): string[] {
  const ours: readonly string[] = Object.values(TABLE_NAMES);
  return firewall.tableNames().filter((name) => ours.includes(name) && wanted.every((table) => table.name !== name));
}

const NOTHING_EXCLUDED: Exclusions = { outboundPorts: [], outboundCidrs: [], inboundPorts: [] };

/** Connections that stand before are never touched: a hook sees none but new ones, so that every enrolment is graceful. */
function podOptions({ dnsCapture, ingress, exclude, virtualInterfaces }: PodRuleOptions): PodOptions {
  return {
    dns: dnsCapture === true,
    ingress: ingress === true,
    exclude: exclude ?? NOTHING_EXCLUDED,
    virtualInterfaces: virtualInterfaces ?? [],
  };
}
