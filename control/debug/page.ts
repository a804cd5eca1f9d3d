/** What a debug page is: a function of what was asked and of who reads it. */
import type { DebugReader } from "./access.ts";

export interface PageRequest {
  readonly query: URLSearchParams;
  readonly reader: DebugReader;
}

/** An answer: an HTTP status, and text that is JSON or not. */
export interface PageAnswer {
  readonly status: number;
  readonly text: string;
  readonly json: boolean;
}

export type Page = (request: PageRequest) => PageAnswer;

/** A page of JSON; `?pretty` indents it (CP-015). */
export function jsonPage({ query }: PageRequest, value: unknown): PageAnswer {
  const text = JSON.stringify(value, undefined, query.has("pretty") ? 2 : undefined);
  return { status: 200, text: `${text}\n`, json: true };
}

export function textPage(status: number, text: string): PageAnswer {
  return { status, text: `${text}\n`, json: false };
}

/** The page of something that upstream has and we do not: said, rather than shown as if it were empty. */
export function absentPage(what: string): Page {
  return () => textPage(404, `${what} are not part of this control plane`);
}
