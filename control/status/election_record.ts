/** What a lock says of its holder, in a Lease's spec or in an annotation of a ConfigMap, as client-go and Istio write it. */
import type { KubeObject, ResourceType } from "../../kube/api.ts";
import { CONFIG_MAPS, LEASES } from "../../kube/resource_types.ts";
import type { Lock } from "./locks.ts";

export interface ElectionRecord {
  /** Empty: nobody holds it. */
  readonly holder: string;
  /** The holder's revision, with `^` before it if it runs outside the cluster (CP-651). Empty for locks without priority. */
  readonly key: string;
  readonly leaseSeconds: number;
  /** As written. Never compared with a clock: clocks of two machines differ. */
  readonly acquiredAt: string;
  readonly renewedAt: string;
  readonly transitions: number;
}

const RECORD_ANNOTATION = "control-plane.alpha.kubernetes.io/leader";
const KEY_ANNOTATION = "leader.istio.io/holder-key"; // of Leases, whose spec has no place for it
/** Holder of a record that nobody can read: it is somebody's, until it has stood still for a lease's time. */
const UNREADABLE = "?";

export function lockType(store: Lock["store"]): ResourceType {
  return store === "Lease" ? LEASES : CONFIG_MAPS;
}

/** @returns the record; with an empty holder if the object has none. Never throws: the object may hold anything. */
export function readRecord(store: Lock["store"], object: KubeObject): ElectionRecord {
  if (store === "Lease") return recordOf(object["spec"], text(annotations(object)[KEY_ANNOTATION]));
  const written = annotations(object)[RECORD_ANNOTATION];
  if (typeof written !== "string" || written === "") return recordOf(undefined, "");
  try {
    const said: unknown = JSON.parse(written);
    return recordOf(said, text(fields(said)["holderKey"]));
  } catch {
    return { ...recordOf(undefined, ""), holder: UNREADABLE, renewedAt: written };
  }
}

/** The object with that record and all else as it was. @param object undefined makes a new one. */
export function writeRecord(
  { name, store }: Lock,
  namespace: string,
  { record, object }: { record: ElectionRecord; object: KubeObject | undefined },
): KubeObject {
  const from = object ?? { metadata: { name, namespace } };
  const { group, version, kind } = lockType(store);
  const said = { ...annotations(from) };
  if (store === "ConfigMap") said[RECORD_ANNOTATION] = JSON.stringify(toAnnotation(record));
  else if (record.key === "") delete said[KEY_ANNOTATION];
  else said[KEY_ANNOTATION] = record.key;
  const body: KubeObject = {
    ...from,
    apiVersion: group === "" ? version : `${group}/${version}`,
    kind,
    metadata: { ...from.metadata, annotations: said },
  };
  return store === "ConfigMap" ? body : { ...body, spec: { ...fields(from["spec"]), ...toSpec(record) } };
}

/** A moment as Leases want it: with exactly six digits of a second. */
export function microTime(epochMs: number): string {
  return new Date(epochMs).toISOString().replace("Z", "000Z");
}

function toSpec({ holder, leaseSeconds, acquiredAt, renewedAt, transitions }: ElectionRecord): Record<string, unknown> {
  return {
    holderIdentity: holder,
    leaseDurationSeconds: leaseSeconds,
    acquireTime: acquiredAt,
    renewTime: renewedAt,
    leaseTransitions: transitions,
  };
}

function toAnnotation({ holder, key, leaseSeconds, acquiredAt, renewedAt, transitions }: ElectionRecord): unknown {
  return {
    holderIdentity: holder,
    holderKey: key,
    leaseDurationSeconds: leaseSeconds,
    acquireTime: acquiredAt,
    renewTime: renewedAt,
    leaderTransitions: transitions,
  };
}

function recordOf(said: unknown, key: string): ElectionRecord {
  const spec = fields(said);
  return {
    holder: text(spec["holderIdentity"]),
    key,
    leaseSeconds: count(spec["leaseDurationSeconds"]),
    acquiredAt: text(spec["acquireTime"]),
    renewedAt: text(spec["renewTime"]),
    transitions: count(spec["leaseTransitions"] ?? spec["leaderTransitions"]),
  };
}

function annotations(object: KubeObject): Record<string, string> {
  return fields(object.metadata["annotations"]) as Record<string, string>;
}

function fields(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? value as Record<string, unknown> : {};
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function count(value: unknown): number {
  // A signed 32-bit field of the API: what is counted past its end begins anew.
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value < 0x7fffffff ? value : 0;
}
