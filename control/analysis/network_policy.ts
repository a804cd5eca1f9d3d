/** Kubernetes' NetworkPolicies as far as they decide about a TCP port of a pod (CNI-190). Pure. */
import { prefixContains } from "../../base/address.ts";
import type { LabelSelector } from "../../kube/label_selector.ts";
import { type Cidr, parseCidr } from "../../mesh/enrolment.ts";
import type { Field } from "../decode/field.ts";
import { decodeLabelSelector } from "../decode/label_selector.ts";
import { type ObjectKey, objectKey } from "../objects.ts";

export interface NetworkPolicy {
  readonly object: ObjectKey;
  readonly namespace: string;
  readonly pods: LabelSelector;
  /** What it admits; undefined where it says nothing of this direction, and so isolates nobody in it. */
  readonly ingress: readonly PolicyRule[] | undefined;
  readonly egress: readonly PolicyRule[] | undefined;
}

export interface PolicyRule {
  /** Its place in the policy: `spec.ingress[0]`. */
  readonly path: string;
  /** Empty: everybody. */
  readonly peers: readonly PolicyPeer[];
  /** Empty: every port of every protocol. */
  readonly ports: readonly PolicyPort[];
}

/** Either pods, of the policy's own namespace where `namespaces` is undefined, or a block of addresses. */
export type PolicyPeer =
  | { readonly pods: LabelSelector; readonly namespaces: LabelSelector | undefined }
  | { readonly block: Cidr; readonly except: readonly Cidr[] };

export interface PolicyPort {
  readonly protocol: "TCP" | "UDP" | "SCTP";
  /** A number, the name of a container's port, or undefined: all. */
  readonly port: number | string | undefined;
  /** The last of a range that begins with `port`. */
  readonly endPort: number | undefined;
}

/** The ports of a pod's containers by their names; the same name may be there more than once. */
export type NamedPorts = ReadonlyMap<string, readonly number[]>;

const PORT_MAX = 65_535;

/** @throws FieldRefusal for what the API server would not take. */
export function decodeNetworkPolicy(root: Field, namespace: string): NetworkPolicy {
  const spec = root.get("spec"), ingress = spec.get("ingress"), egress = spec.get("egress");
  const types = spec.get("policyTypes").texts();
  // Without types: of what comes in always, of what goes out where it says anything of that.
  const isolatesIn = types.length === 0 || types.includes("Ingress");
  const isolatesOut = types.length === 0 ? egress.present : types.includes("Egress");
  return {
    object: objectKey("NetworkPolicy", namespace, root.get("metadata").get("name").text()),
    namespace,
    pods: decodeLabelSelector(spec.get("podSelector")),
    ingress: isolatesIn ? decodeRules(ingress, "from", "spec.ingress") : undefined,
    egress: isolatesOut ? decodeRules(egress, "to", "spec.egress") : undefined,
  };
}

function decodeRules(rules: Field, peers: "from" | "to", path: string): PolicyRule[] {
  return rules.items().map((rule, at) => ({
    path: `${path}[${at}]`,
    peers: rule.get(peers).items().map(decodePeer),
    ports: rule.get("ports").items().map(decodePort),
  }));
}

function decodePeer(peer: Field): PolicyPeer {
  const block = peer.get("ipBlock"), namespaces = peer.get("namespaceSelector");
  if (!block.present) {
    return {
      pods: decodeLabelSelector(peer.get("podSelector")),
      namespaces: namespaces.present ? decodeLabelSelector(namespaces) : undefined,
    };
  }
  const except = block.get("except").items().map(decodeCidr);
  return { block: decodeCidr(block.get("cidr").required()), except };
}

function decodeCidr(field: Field): Cidr {
  return parseCidr(field.text()) ?? field.fail("must be a range such as 10.0.0.0/24");
}

function decodePort(field: Field): PolicyPort {
  const port = field.get("port"), endPort = field.get("endPort");
  return {
    protocol: field.get("protocol").oneOf(["TCP", "UDP", "SCTP"], "TCP"),
    port: !port.present ? undefined : typeof port.value === "string" ? port.text() : port.port(),
    endPort: endPort.present ? endPort.port() : undefined,
  };
}

/** Whether the rule admits this TCP port of a pod whose containers have these named ports. */
export function admitsTcp({ ports }: PolicyRule, wanted: number, named: NamedPorts): boolean {
  return ports.length === 0 ||
    ports.some((it) => rangesOf(it, named).some(([from, to]) => from <= wanted && wanted <= to));
}

/** The TCP ports that the rule admits besides these, as written; empty if there are none. */
export function otherTcpPorts({ ports }: PolicyRule, besides: readonly number[], named: NamedPorts): string[] {
  if (ports.length === 0) return ["every port"];
  return ports.filter((it) => rangesOf(it, named).some(([from, to]) => from !== to || !besides.includes(from)))
    .map(({ port, endPort }) =>
      port === undefined ? "every port" : endPort === undefined ? `${port}` : `${port}-${endPort}`
    );
}

function rangesOf({ protocol, port, endPort }: PolicyPort, named: NamedPorts): (readonly [number, number])[] {
  if (protocol !== "TCP") return [];
  if (port === undefined) return [[1, PORT_MAX]];
  if (typeof port === "number") return [[port, endPort ?? port]];
  return (named.get(port) ?? []).map((it) => [it, it] as const);
}

/** Whether the rule admits this one address whatever pod it may be of. */
export function admitsAddress({ peers }: PolicyRule, { ip }: Cidr): boolean {
  const within = (range: Cidr) => prefixContains(range.ip, range.prefixLength, ...ip);
  return peers.length === 0 || peers.some((it) => "block" in it && within(it.block) && !it.except.some(within));
}

/** Whether whoever the one peer admits the other admits as well, as far as the two say it in the same words. */
export function covers(peer: PolicyPeer, other: PolicyPeer): boolean {
  if ("block" in peer || "block" in other) {
    return "block" in peer && "block" in other && peer.except.length === 0 &&
      peer.block.prefixLength <= other.block.prefixLength &&
      prefixContains(peer.block.ip, peer.block.prefixLength, ...other.block.ip);
  }
  if (!selectsAll(peer.pods, other.pods)) return false;
  if (other.namespaces === undefined) return peer.namespaces === undefined || isEmpty(peer.namespaces);
  return peer.namespaces !== undefined && selectsAll(peer.namespaces, other.namespaces);
}

const isEmpty = ({ matchLabels, matchExpressions }: LabelSelector) =>
  matchLabels.size === 0 && matchExpressions.length === 0;

/** What asks for no more than the other does selects whatever the other does. */
function selectsAll(wide: LabelSelector, narrow: LabelSelector): boolean {
  const expressions = narrow.matchExpressions.map((it) => JSON.stringify(it));
  return [...wide.matchLabels].every(([key, value]) => narrow.matchLabels.get(key) === value) &&
    wide.matchExpressions.every((it) => expressions.includes(JSON.stringify(it)));
}
