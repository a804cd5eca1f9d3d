/** For tests of the webhook: rows of specs, and what must be said of each. */
import { assertEquals } from "@std/assert";
import type { Plain } from "../../base/plain.ts";
import { judgeObject } from "./judge.ts";

export type Spec = { readonly [key: string]: Plain };

export const GROUPS: Readonly<Record<string, string>> = {
  AuthorizationPolicy: "security.istio.io",
  PeerAuthentication: "security.istio.io",
  ServiceEntry: "networking.istio.io",
  WorkloadEntry: "networking.istio.io",
};

export function judge(kind: string, spec: Plain, metadata: Spec = { name: "a", namespace: "n" }) {
  return judgeObject(GROUPS[kind]!, kind, { apiVersion: `${GROUPS[kind]}/v1`, kind, metadata, spec });
}

/** What should come of a spec: nothing, a refusal, or a warning that holds these words. */
export type Row = readonly [
  spec: Spec,
  outcome: "taken" | { readonly refused: string } | { readonly warned: string },
  metadata?: Spec,
];

/** Judges every row's spec. */
export function table(kind: string, rows: readonly Row[]): void {
  for (const [spec, outcome, metadata] of rows) {
    const { problems, warnings } = judge(kind, spec, metadata),
      shown = `${JSON.stringify(spec)}: ${[...problems, ...warnings].join("; ")}`;
    if (outcome === "taken") assertEquals([problems, warnings], [[], []], shown);
    else if ("refused" in outcome) {
      assertEquals(problems.some((it) => it.includes(outcome.refused)), true, `${outcome.refused} <- ${shown}`);
    } else {assertEquals(
        [
          problems,
          warnings.some((it) => it.includes(outcome.warned)),
        ],
        [[], true],
        `${outcome.warned} <- ${shown}`,
      );}
  }
}

export const refused = (words: string) => ({ refused: words });
export const warned = (words: string) => ({ warned: words });
