/** A pod of this node as the agent needs it, and what is to be done when it changes (CNI section 3). Pure. */
import { formatIp, parseIp } from "../../base/address.ts";
import type { KubeObject } from "../../kube/api.ts";
import { type Enablement, type EnablementFacts, type Texts, wantsMesh } from "../enablement.ts";
import { extensionRules } from "./extension_annotations.ts";
import type { PodRuleOptions } from "../redirection/redirection.ts";

export interface NodePod {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly labels: Texts;
  readonly annotations: Texts;
  readonly hostNetwork: boolean;
  /** Succeeded or Failed: it runs nothing any more. */
  readonly ended: boolean;
  /** Of its status, else none (CNI-079). */
  readonly ips: readonly string[];
  /** By which the kubelet knows a static pod, whose copy this is; from an annotation that anybody can write. */
  readonly staticUid?: string;
}

/** What our annotation says: rules and listeners are there; only the rules are; neither. */
export type Redirection = "enabled" | "pending" | "none";

export const REDIRECTION = "ambient.istio.io/redirection";
const BYPASS_INBOUND = "ambient.istio.io/bypass-inbound-capture";
const MIRROR = "kubernetes.io/config.mirror", STATIC_UID = /^[0-9a-f]{32}$/;
const DNS_CAPTURE = "ambient.istio.io/dns-capture";
const VIRTUAL_INTERFACES = "istio.io/reroute-virtual-interfaces";
const ENDED: readonly string[] = ["Succeeded", "Failed"];
// IFNAMSIZ without its zero. The kernel takes more; a name stands in texts that programs read, where + and * mean any.
const INTERFACE_NAME = /^[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,14}$/;
const TRUE = ["1", "t", "T", "TRUE", "true", "True"], FALSE = ["0", "f", "F", "FALSE", "false", "False"];

type Json = { readonly [key: string]: unknown };

function objectOf(value: unknown): Json {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? value as Json : {};
}

function textsOf(value: unknown): Texts {
  return Object.fromEntries(
    Object.entries(objectOf(value)).filter((entry): entry is [string, string] => typeof entry[1] === "string"),
  );
}

/** @returns undefined for an object that is no pod with a uid and a name. */
export function nodePodOf(object: KubeObject): NodePod | undefined {
  const { metadata } = object, spec = objectOf(object.spec), status = objectOf(object.status);
  const { uid, name, namespace } = metadata;
  if (typeof uid !== "string" || uid === "" || typeof namespace !== "string") return undefined;
  const many = Array.isArray(status.podIPs) ? status.podIPs.map((it) => objectOf(it).ip) : [];
  const ips = (many.length > 0 ? many : [status.podIP])
    .map((ip) => typeof ip === "string" ? parseIp(ip) : undefined)
    .filter((ip) => ip !== undefined).map((ip) => formatIp(...ip));
  const account = spec.serviceAccountName;
  return {
    uid,
    name,
    namespace,
    serviceAccount: typeof account === "string" && account !== "" ? account : "default",
    labels: textsOf(metadata.labels),
    annotations: textsOf(metadata.annotations),
    hostNetwork: spec.hostNetwork === true,
    ended: ENDED.includes(String(status.phase)),
    ips,
    ...staticUidOf(textsOf(metadata.annotations)),
  };
}

function staticUidOf(annotations: Texts): { staticUid?: string } {
  const uid = Object.hasOwn(annotations, MIRROR) ? annotations[MIRROR]! : "";
  return STATIC_UID.test(uid) ? { staticUid: uid } : {};
}

/** `namespace/name`, the pod's key. */
export function podName({ namespace, name }: NodePod): string {
  return `${namespace}/${name}`;
}

/**
 * Whether a runtime means this pod by a uid; none means any. A static pod's is its file's, and stands in an annotation of the
 * copy that the API server has. Who puts it onto another pod gains nothing: the name has to be the same.
 */
export function isMeant({ uid, staticUid }: NodePod, asked: string): boolean {
  return asked === "" || asked === uid || asked === staticUid;
}

export function redirectionOf({ annotations }: NodePod): Redirection {
  const value = Object.hasOwn(annotations, REDIRECTION) ? annotations[REDIRECTION] : "";
  return value === "enabled" || value === "pending" ? value : "none";
}

export function factsOf(pod: NodePod, namespaceLabels: Texts): EnablementFacts {
  return { ...pod, namespaceLabels };
}

/** What to do with a pod; `reassert` is `nothing` but for its addresses in the probes' sets (CNI-076). */
export type PodAction = "add" | "removeLive" | "removeEnded" | "reassert" | "nothing";

/**
 * What a pod asks for as it is now (CNI-076). `enrolled` is what the agent itself knows of it: an annotation that says
 * more than that is of an agent or a boot before, and the pod is taken up again (CNI-093, CNI-098).
 */
export function actionFor(
  pod: NodePod,
  { namespaceLabels, enablement, enrolled, begun = false }: {
    readonly namespaceLabels: Texts;
    readonly enablement: Enablement;
    readonly enrolled: boolean;
    /** An agent before us, or we, began to enrol it: its rules may be there though nothing says so. */
    readonly begun?: boolean;
  },
): PodAction {
  const redirection = redirectionOf(pod), touched = redirection !== "none" || enrolled || begun;
  if (pod.ended) return touched ? "removeEnded" : "nothing";
  if (!wantsMesh(factsOf(pod, namespaceLabels), enablement)) return touched ? "removeLive" : "nothing";
  if (pod.ips.length === 0) return "nothing"; // The next event has them.
  return enrolled && redirection === "enabled" ? "reassert" : "add";
}

/** What holds for all pods, and whether a pod may leave something out of it. */
export type PodDefaults = PodRuleOptions & { readonly permitExclusions?: boolean };

/** What a pod's annotations say of its rules, and what of them cannot be read (CNI-094, CNI-095, CNI-125, CNI-126). */
export function ruleOptionsOf(
  { annotations }: Pick<NodePod, "annotations">,
  { permitExclusions = false, ...defaults }: PodDefaults,
): { readonly rules: PodRuleOptions; readonly problems: readonly string[] } {
  const problems: string[] = [];
  const toggle = (name: string): boolean | undefined => {
    const text = Object.hasOwn(annotations, name) ? annotations[name]! : undefined;
    if (text === undefined) return undefined;
    if (TRUE.includes(text)) return true;
    if (FALSE.includes(text)) return false;
    problems.push(`${name} is neither true nor false`);
    return undefined;
  };
  const listed = Object.hasOwn(annotations, VIRTUAL_INTERFACES) ? annotations[VIRTUAL_INTERFACES]!.split(",") : [];
  const names = listed.map((name) => name.trim()).filter((name) => name !== "");
  const virtualInterfaces = names.filter((name) => INTERFACE_NAME.test(name));
  if (virtualInterfaces.length < names.length) problems.push(`${VIRTUAL_INTERFACES} names what is no interface`);
  const dnsCapture = toggle(DNS_CAPTURE), ingress = toggle(BYPASS_INBOUND);
  const extension = extensionRules(annotations, { permitted: permitExclusions });
  problems.push(...extension.problems);
  return {
    rules: {
      ...defaults,
      ...(dnsCapture === undefined ? {} : { dnsCapture }),
      ...(ingress === undefined ? {} : { ingress }),
      ...(virtualInterfaces.length > 0 ? { virtualInterfaces } : {}),
      ...extension.rules,
    },
    problems,
  };
}
