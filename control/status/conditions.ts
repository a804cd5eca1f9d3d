/** Conditions in an object's status: what is there, and what is to be written so that it says what is wanted. Pure. */
import { type Fields, isFields } from "../../base/plain.ts";
import type { ObjectKey } from "../objects.ts";

export type ConditionStatus = "True" | "False" | "Unknown";

/** A condition as we want it; the time of its last flip comes from what is there. */
export interface WantedCondition {
  readonly type: string;
  readonly status: ConditionStatus;
  readonly reason: string;
  readonly message: string;
  /** The object's generation that this is said of; 0 if the object has none. */
  readonly observedGeneration: number;
}

/** What one purpose wants said of one object. Types of that purpose that it does not name are taken away. */
export interface WantedConditions {
  readonly object: ObjectKey;
  readonly resource: { readonly kind: string; readonly namespace: string; readonly name: string };
  readonly fieldManager: string;
  readonly conditions: readonly WantedCondition[];
}

const MESSAGE_CHARACTERS_MAX = 32_768; // what the API takes of a condition's message

/** The conditions of a status, as they are written. Anything that is none is left out. */
export function conditionsOf(status: unknown): readonly Fields[] {
  const list = isFields(status) ? status["conditions"] : undefined;
  return Array.isArray(list) ? list.filter((it) => isFields(it) && typeof it["type"] === "string") : [];
}

/** What to write, and whether it differs from what is there. */
export interface ConditionPlan {
  readonly changed: boolean;
  /** Only ours: for lists whose elements have owners. */
  readonly ours: readonly Fields[];
  /** All there should be, those of other writers as they are: for lists that are written as a whole. */
  readonly all: readonly Fields[];
}

/**
 * Compares what is wanted with what is there.
 * @param ownedTypes the types of this purpose; those not wanted go. @param now RFC 3339, for conditions that flip.
 */
export function planConditions(
  wanted: readonly WantedCondition[],
  current: readonly Fields[],
  { ownedTypes, now }: { ownedTypes: readonly string[]; now: string },
): ConditionPlan {
  const owned = new Set([...ownedTypes, ...wanted.map(({ type }) => type)]);
  const byType = new Map(current.map((it) => [it["type"], it]));
  const ours = wanted.map((it) => render(it, byType.get(it.type), now));
  const changed = ours.some((it) => !sameCondition(it, byType.get(it["type"]))) ||
    current.some((it) => owned.has(it["type"] as string) && !wanted.some(({ type }) => type === it["type"]));
  // Those that stay keep their place, so that a reader's diff shows what changed alone.
  const kept = current.flatMap((it) => {
    if (!owned.has(it["type"] as string)) return [it];
    return ours.filter((own) => own["type"] === it["type"]);
  });
  return { changed, ours, all: [...kept, ...ours.filter((it) => !byType.has(it["type"]))] };
}

function render(wanted: WantedCondition, before: Fields | undefined, now: string): Fields {
  const { type, status, reason, message, observedGeneration } = wanted;
  const since = before?.["lastTransitionTime"];
  return {
    type,
    status,
    reason,
    message: message.slice(0, MESSAGE_CHARACTERS_MAX),
    lastTransitionTime: before?.["status"] === status && typeof since === "string" ? since : now,
    ...(observedGeneration === 0 ? {} : { observedGeneration }),
  };
}

function sameCondition(own: Fields, there: Fields | undefined): boolean {
  if (there === undefined) return false;
  const same = (field: string) => (own[field] ?? "") === (there[field] ?? "");
  // Of Istio's kinds it may be a number or its text.
  const generation = (of: Fields) => Number(of["observedGeneration"] ?? 0);
  return same("status") && same("reason") && same("message") && generation(own) === generation(there);
}
