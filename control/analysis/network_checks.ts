/** NetworkPolicies that let pods of the mesh be reached in clear and not through it, or keep the kubelet's probes out (CNI-190). Pure. */
import { type LabelSelector, selectorMatches } from "../../kube/label_selector.ts";
import { parseCidr } from "../../mesh/enrolment.ts";
import type { Finding } from "./findings.ts";
import {
  admitsAddress,
  admitsTcp,
  covers,
  type NetworkPolicy,
  otherTcpPorts,
  type PolicyPeer,
  type PolicyRule,
} from "./network_policy.ts";
import type { NetworkPods, PodKind } from "./network_pods.ts";

export interface Network {
  readonly policies: readonly NetworkPolicy[];
  readonly pods: NetworkPods;
}

const HBONE_PORT = 15_008, DNS_PORT = 53, EXAMPLES_MAX = 2;
/** Where the node's probes of enrolled pods come from (CNI-180). */
const PROBES_FROM = { ipv4: "169.254.7.127/32", ipv6: "fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128" } as const;

type Direction = "ingress" | "egress";

/** Each rule, and of probes each policy, is told of once, with the first pod that was found. */
export function checkNetwork(network: Network): Finding[] {
  const byPlace = new Map<string, Finding>();
  for (const { place, ...finding } of findings(network)) {
    const key = `${finding.object} ${place}`;
    if (!byPlace.has(key)) byPlace.set(key, finding);
  }
  return [...byPlace.values()];
}

interface Placed extends Finding {
  readonly place: string;
}

function* findings({ policies, pods }: Network): Iterable<Placed> {
  const kinds = pods.kinds(), members = kinds.filter(({ inMesh }) => inMesh);
  const reached = new Map<PolicyRule, readonly Reached[]>();
  const byNamespace = Map.groupBy(policies, ({ namespace }) => namespace);
  for (const kind of members) {
    const selecting = (byNamespace.get(kind.namespace) ?? []).filter((it) => selectorMatches(it.pods, kind.labels));
    const view: View = { kind, members, pods, reached };
    yield* checkHbone(selecting, "ingress", view);
    yield* checkHbone(selecting, "egress", view);
    yield* checkProbes(selecting, kind);
  }
}

/** A pod of the mesh that policies select, among all of them. */
interface View {
  readonly kind: PodKind;
  readonly members: readonly PodKind[];
  readonly pods: NetworkPods;
  /** By rule, which is the same for all pods that its policy selects; a rule is of one direction. */
  readonly reached: Map<PolicyRule, readonly Reached[]>;
}

/**
 * What a rule admits in clear a peer of the mesh sends to 15008 instead: some rule must admit that from the same peers,
 * or to them. Where nothing is admitted at all, nothing is meant to be.
 */
function* checkHbone(policies: readonly NetworkPolicy[], direction: Direction, view: View): Iterable<Placed> {
  const rules = policies.flatMap((it) => it[direction] ?? []), { kind } = view;
  // A port's name is one of the destination's containers, and what they name 15008 is not known of others.
  const named = direction === "ingress" ? kind.namedPorts : new Map();
  const open = rules.filter((it) => admitsTcp(it, HBONE_PORT, named));
  for (const policy of policies) {
    for (const rule of policy[direction] ?? []) {
      if (admitsTcp(rule, HBONE_PORT, named)) continue;
      const missed = peersInMesh(rule, direction, view).find((it) => !isOpen(open, it));
      if (missed === undefined) continue;
      const peer = missed.examples.find((it) => it !== kind.example) ?? kind.example;
      yield blocked(policy, { rule, direction, kind, peer });
    }
  }
}

interface Reached {
  /** Undefined: whoever it may be. */
  readonly peer: PolicyPeer | undefined;
  /** Pods of the mesh that it is for; two, so that one is another than the pod itself. */
  readonly examples: readonly string[];
}

/** Those for whom the rule admits something in clear, and of whom some are in the mesh. */
function peersInMesh(rule: PolicyRule, direction: Direction, view: View): readonly Reached[] {
  if (direction === "ingress" && otherTcpPorts(rule, [HBONE_PORT], view.kind.namedPorts).length === 0) return [];
  const known = view.reached.get(rule);
  if (known !== undefined) return known;
  const { kind: { namespace }, members, pods } = view;
  const concerns = (other: PodKind): boolean => {
    if (direction === "ingress") return true;
    // Towards others a port may be meant for something outside: of pods that say what they serve, only that counts.
    if (otherTcpPorts(rule, [HBONE_PORT, DNS_PORT], other.namedPorts).length === 0) return false;
    return other.tcpPorts.length === 0 || other.tcpPorts.some((port) => admitsTcp(rule, port, other.namedPorts));
  };
  const peers: readonly (PolicyPeer | undefined)[] = rule.peers.length === 0 ? [undefined] : rule.peers;
  const reached = peers.flatMap((peer): Reached[] => {
    const examples: string[] = [];
    for (const other of members) {
      if (isPeer(peer, other, { namespace, pods }) && concerns(other)) examples.push(other.example);
      if (examples.length === EXAMPLES_MAX) break;
    }
    return examples.length === 0 ? [] : [{ peer, examples }];
  });
  view.reached.set(rule, reached);
  return reached;
}

/** Addresses are those of whoever is outside: pods have others from day to day. */
function isPeer(
  peer: PolicyPeer | undefined,
  other: PodKind,
  { namespace, pods }: { readonly namespace: string; readonly pods: NetworkPods },
): boolean {
  if (peer === undefined) return true;
  if ("block" in peer || !selectorMatches(peer.pods, other.labels)) return false;
  const { namespaces } = peer;
  if (namespaces === undefined) return other.namespace === namespace;
  return selectorMatches(namespaces, pods.labelsOf(other.namespace));
}

function isOpen(open: readonly PolicyRule[], { peer }: Reached): boolean {
  return open.some(({ peers }) =>
    peers.length === 0 || (peer === undefined ? peers.some(isEverybody) : peers.some((it) => covers(it, peer)))
  );
}

const isEmpty = ({ matchLabels, matchExpressions }: LabelSelector) =>
  matchLabels.size === 0 && matchExpressions.length === 0;

/** All pods of all namespaces: whoever is in the mesh is among them. */
function isEverybody(peer: PolicyPeer): boolean {
  return !("block" in peer) && peer.namespaces !== undefined && isEmpty(peer.namespaces) && isEmpty(peer.pods);
}

function blocked(
  { object }: NetworkPolicy,
  { rule, direction, kind, peer }: {
    readonly rule: PolicyRule;
    readonly direction: Direction;
    readonly kind: PodKind;
    readonly peer: string;
  },
): Placed {
  const incoming = direction === "ingress", [from, to] = incoming ? [peer, kind.example] : [kind.example, peer];
  const ports = otherTcpPorts(rule, [HBONE_PORT], kind.namedPorts).join(", ");
  const message = `${rule.path} admits TCP ${ports}, but nothing admits ${HBONE_PORT}, by which pods of the mesh ` +
    `reach each other, here ${from} and ${to}. Add {protocol: TCP, port: ${HBONE_PORT}} to the ports of ${rule.path}; ` +
    "who may reach which port of the application an AuthorizationPolicy says.";
  return { code: "AMBIT001", object, message, place: rule.path };
}

/** The kubelet's probes, which come from an address of their own: networks take them for anybody's. */
function* checkProbes(
  policies: readonly NetworkPolicy[],
  { families, probedPorts, namedPorts, example }: PodKind,
): Iterable<Placed> {
  const isolating = policies.filter(({ ingress }) => ingress !== undefined), [first] = isolating;
  if (first === undefined) return;
  const rules = isolating.flatMap(({ ingress }) => ingress ?? []);
  for (const family of families) {
    const from = parseCidr(PROBES_FROM[family])!;
    const missing = probedPorts.filter((port) =>
      !rules.some((rule) => admitsTcp(rule, port, namedPorts) && admitsAddress(rule, from))
    );
    if (missing.length === 0) continue;
    const others = isolating.length === 1 ? "it does not" : `none of the ${isolating.length} policies does`;
    const message =
      `isolates pods of the mesh such as ${example}, whose probes on port ${missing.join(", ")} come from ` +
      `${PROBES_FROM[family].split("/")[0]}: ${others} admit that. ` +
      `Add an ingress rule {from: [{ipBlock: {cidr: "${PROBES_FROM[family]}"}}]}.`;
    yield { code: "AMBIT002", object: first.object, message, place: family };
  }
}
