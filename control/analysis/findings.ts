/** What analysis finds, with the codes, names and levels by which Istio's users know such findings (CP-699). */
import type { ObjectKey } from "../objects.ts";

export type Level = "Error" | "Warning" | "Info";

export interface Finding {
  readonly code: FindingCode;
  /** `kind/namespace/name`; of a document that names none, its file. */
  readonly object: ObjectKey;
  readonly message: string;
}

/** By code, what Istio calls it and how bad it is. */
export const KINDS_OF_FINDINGS = {
  IST0101: { name: "ReferencedResourceNotFound", level: "Error" },
  IST0106: { name: "SchemaValidationError", level: "Error" },
  IST0127: { name: "NoMatchingWorkloadsFound", level: "Warning" },
  IST0133: { name: "SchemaWarning", level: "Warning" },
  IST0134: { name: "ServiceEntryAddressesRequired", level: "Warning" },
  IST0166: { name: "IneffectiveSelector", level: "Warning" },
  IST0167: { name: "IneffectivePolicy", level: "Warning" },
  IST0170: { name: "MultiClusterInconsistentService", level: "Warning" },
  IST0171: { name: "NegativeConditionStatus", level: "Warning" },
  IST0176: { name: "GatewayAPICRDVersionBelowMinimum", level: "Warning" },
  IST0177: { name: "ConflictingServiceEntryProtocol", level: "Warning" },
  // Istio's tool does not look at these: the codes are ours.
  AMBIT001: { name: "NetworkPolicyBlocksHbone", level: "Warning" },
  AMBIT002: { name: "NetworkPolicyBlocksProbes", level: "Warning" },
  AMBIT003: { name: "NetworkPoliciesNotRead", level: "Info" },
} as const satisfies Readonly<Record<string, { readonly name: string; readonly level: Level }>>;

export type FindingCode = keyof typeof KINDS_OF_FINDINGS;

export const LEVELS: readonly Level[] = ["Info", "Warning", "Error"];

export function levelOf({ code }: Finding): Level {
  return KINDS_OF_FINDINGS[code].level;
}

/** The worst first, then by code and object, so that two runs say the same. */
export function inOrder(findings: Iterable<Finding>): Finding[] {
  const rank = (it: Finding) => LEVELS.length - LEVELS.indexOf(levelOf(it));
  const text = (it: Finding) => `${rank(it)} ${it.code} ${it.object} ${it.message}`;
  const byText = new Map([...findings].map((it) => [text(it), it]));
  return [...byText].sort(([left], [right]) => left < right ? -1 : 1).map(([, it]) => it);
}

/** As `istioctl analyze` prints it. */
export function lineOf(finding: Finding): string {
  const { code, object, message } = finding, [kind, namespace, name] = object.split("/");
  const shown = namespace === "" && name !== undefined ? `${kind}/${name}` : object;
  return `${levelOf(finding)} [${code}] (${shown}) ${message}`;
}

/** As `istioctl analyze -o json` has it. */
export function jsonOf(finding: Finding): Readonly<Record<string, string>> {
  const { code, object, message } = finding;
  return { code, level: levelOf(finding).toUpperCase(), name: KINDS_OF_FINDINGS[code].name, origin: object, message };
}
