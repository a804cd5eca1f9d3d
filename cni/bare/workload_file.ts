/** NodeWorkload: one enrolment as an object in a file of the enrolment folder (CNI-272). Pure. */
import { parseAll } from "@std/yaml";
import { type EnrolRequest, parseEnrolRequest } from "../../mesh/enrolment.ts";
import { globMatcher, isGlob } from "./cgroups.ts";

/** An object: the request for each target that its glob finds, or for the one that it names. */
export interface NodeWorkload {
  readonly name: string;
  /** `unit` or `container` with a glob. */
  readonly glob: { readonly kind: "unit" | "container"; readonly pattern: string } | undefined;
  /** The enrolment of `target`, which is left out for an object without a glob; what is wrong with it as a sentence. */
  requestFor(target?: string): EnrolRequest | { readonly wrong: string };
}

const KINDS = ["netns", "container", "pid", "cgroup", "unit", "netnsPath"] as const;
const FIELDS = ["target", "identity", "inboundPorts", "address", "dns", "ingress", "exclude"];
const OBJECTS_MAX = 256;

/** All objects of a file. @returns What is wrong, as a sentence that names the object. */
export function parseWorkloadFile(text: string): readonly NodeWorkload[] | { readonly wrong: string } {
  let documents: unknown[];
  try {
    documents = (parseAll(text) as unknown[]).filter((it) => it !== null && it !== undefined);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return { wrong: `it is not YAML: ${error.message.split("\n")[0]}` };
  }
  if (documents.length > OBJECTS_MAX) return { wrong: `it has more than ${OBJECTS_MAX} objects` };
  const workloads: NodeWorkload[] = [];
  for (const [at, document] of documents.entries()) {
    const workload = readWorkload(document);
    if ("wrong" in workload) return { wrong: `object ${at + 1}: ${workload.wrong}` };
    workloads.push(workload);
  }
  return workloads;
}

type Fields = Readonly<Record<string, unknown>>;
const isMap = (value: unknown): value is Fields => typeof value === "object" && value !== null && !Array.isArray(value);

function readWorkload(value: unknown): NodeWorkload | { readonly wrong: string } {
  if (!isMap(value) || value.kind !== "NodeWorkload") return { wrong: "its kind is not NodeWorkload" };
  const name = isMap(value.metadata) ? value.metadata.name : undefined, { spec } = value;
  if (typeof name !== "string") return { wrong: "metadata.name is missing" };
  if (!isMap(spec)) return { wrong: `${name}: spec is missing` };
  const unknown = Object.keys(spec).find((field) => !FIELDS.includes(field));
  if (unknown !== undefined) return { wrong: `${name}: spec.${unknown} is no field; there are ${FIELDS.join(", ")}` };
  const target = readTarget(spec.target);
  if ("wrong" in target) return { wrong: `${name}: ${target.wrong}` };
  const { identity } = spec;
  if (!isMap(identity)) return { wrong: `${name}: spec.identity needs namespace and serviceAccount` };
  const { inboundPorts, address, dns: dnsCapture, ingress } = spec;
  const { namespace, serviceAccount } = identity;
  const exclude = spec.exclude === undefined ? undefined : spec.exclude;
  const common = { namespace, serviceAccount, inboundPorts, address, dnsCapture, ingress, exclude };
  const requestFor = (found = target.text) => {
    const own = target.glob === undefined ? name : nameOf(name, found);
    const parsed = parseEnrolRequest({ ...common, target: found, name: own });
    return "wrong" in parsed ? { wrong: `${name}: spec: ${parsed.wrong}` } : parsed;
  };
  // What is wrong whatever a glob finds is wrong now.
  const sample = requestFor(target.glob && `${target.glob.kind}/${target.glob.kind === "unit" ? "x.service" : "xxx"}`);
  return "wrong" in sample ? sample : { name, glob: target.glob, requestFor };
}

function readTarget(value: unknown): { text: string; glob: NodeWorkload["glob"] } | { readonly wrong: string } {
  const entries = isMap(value) ? Object.entries(value) : [];
  const [kind, given] = entries[0] ?? [];
  const known = KINDS.find((it) => it === kind);
  if (entries.length !== 1 || known === undefined || !(typeof given === "string" || typeof given === "number")) {
    return { wrong: `spec.target is not one of ${KINDS.join(", ")} with a value` };
  }
  const text = String(given);
  if (!isGlob(text)) {
    return { text: known === "netnsPath" ? `netns-path:${text}` : `${known}/${text}`, glob: undefined };
  }
  if (known !== "unit" && known !== "container") return { wrong: `spec.target.${known} takes no * or ?` };
  return { text: "", glob: { kind: known, pattern: text } };
}

/** Names of what a glob finds: the object's and what the star stood for, in the letters that names have. */
function nameOf(name: string, target: string): string {
  const own = target.replace(/^[a-z]+\//, "").replace(/\.service$/, "").toLowerCase().replace(/[^a-z0-9.-]+/g, "-");
  return `${name}-${own.slice(0, 64).replace(/^[.-]+|[.-]+$/g, "")}`;
}

/** The targets of a glob among what runs. */
export function targetsOf({ kind, pattern }: NonNullable<NodeWorkload["glob"]>, running: Iterable<string>): string[] {
  const matches = globMatcher(pattern);
  return [...running].filter(matches).map((it) => `${kind}/${it}`);
}
