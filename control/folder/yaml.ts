/** YAML text to plain data within bounds: what hostile files may cost is limited before anything walks over the result. */
import { parse } from "@std/yaml";
import type { Plain } from "../../base/plain.ts";

/** Text that is not a document we accept; `line` counts from 1 within the text. */
export class YamlRefusal extends Error {
  override readonly name = "YamlRefusal";
  readonly line: number;

  constructor(reason: string, line: number) {
    super(reason);
    this.line = line;
  }
}

// Kubernetes objects nest about 15 levels deep at most; a policy of ours 9.
const DEPTH_MAX = 64;
// Counted with aliases expanded, as every later walk will see it. An object of 1 MiB has some 100,000 values.
const VALUES_MAX = 500_000;

/** Parses one YAML document (core schema: no dates, no merge keys, no tags of other languages). Throws YamlRefusal. */
export function parseYaml(text: string): Plain {
  let value: unknown;
  try {
    value = parse(text, { schema: "core" });
  } catch (error) {
    // The parser recurses once per level, so hostile nesting ends in a RangeError within milliseconds.
    if (error instanceof RangeError) throw new YamlRefusal("nested too deeply", 1);
    if (!(error instanceof Error)) throw error;
    const line = "line" in error && typeof error.line === "number" ? error.line : 1;
    throw new YamlRefusal(error.message.split("\n", 1)[0]!.replace(/ at line \d+, column \d+:?$/, ""), line);
  }
  return bounded(value);
}

/** Parses one JSON document under the same bounds. Throws YamlRefusal. */
export function parseJson(text: string): Plain {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    throw new YamlRefusal(error.message.replace(/\s+/g, " ").slice(0, 200), badJsonLine(text));
  }
  return bounded(value);
}

/** The line on which JSON text goes wrong, which the engine's messages tell only sometimes: the first that cannot be continued. */
function badJsonLine(text: string): number {
  const lines = text.split("\n");
  // JSON strings hold no line ends, so a good text cut after a line just ends early.
  const endsEarly = (count: number): boolean => {
    const prefix = lines.slice(0, count).join("\n");
    try {
      JSON.parse(prefix);
      return true;
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      const position = /position (\d+)/.exec(error.message);
      return position === null ? error.message.includes("end of JSON") : Number(position[1]) >= prefix.length;
    }
  };
  let good = 0, bad = lines.length;
  while (bad - good > 1) {
    const middle = (good + bad) >> 1;
    if (endsEarly(middle)) good = middle;
    else bad = middle;
  }
  return bad;
}

/** Walks the value once, with a budget: an alias that contains itself, or that multiplies, is found here and nowhere else. */
function bounded(root: unknown): Plain {
  let budget = VALUES_MAX;
  const visit = (value: unknown, depth: number): void => {
    if (--budget < 0) throw new YamlRefusal(`more than ${VALUES_MAX} values once its aliases are expanded`, 1);
    if (depth > DEPTH_MAX) throw new YamlRefusal(`nested deeper than ${DEPTH_MAX} levels`, 1);
    if (value === null || typeof value === "boolean" || typeof value === "string") return;
    if (typeof value === "number") {
      if (!Number.isFinite(value)) throw new YamlRefusal("holds a number that is not finite", 1);
    } else if (Array.isArray(value)) { for (const item of value) visit(item, depth + 1); }
    else if (typeof value === "object") {
      for (const [key, item] of Object.entries(value)) {
        if (key === "<<") throw new YamlRefusal("uses a merge key (<<), which is not supported", 1);
        visit(item, depth + 1);
      }
    } else throw new YamlRefusal(`holds a value of type ${typeof value}`, 1);
  };
  visit(root, 0);
  return root as Plain; // The walk has just seen that it is nothing else.
}

/** A document cut from a file, without its `---`. */
export interface DocumentText {
  readonly text: string;
  /** Of its first line, from 1. */
  readonly line: number;
}

/**
 * Cuts a YAML file at its document markers, which no scalar may contain at the start of a line (YAML 1.2 §9.1.2).
 * Documents of nothing but comments, blank lines and directives are left out.
 */
export function splitDocuments(text: string): DocumentText[] {
  const documents: DocumentText[] = [];
  let lines: string[] = [], start = 1, filled = false;
  const finish = (next: number) => {
    if (filled) documents.push({ text: lines.join("\n"), line: start });
    [lines, start, filled] = [[], next, false];
  };
  for (const [index, raw] of text.replace(/^\uFEFF/, "").split("\n").entries()) {
    let line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
    if (/^(---|\.\.\.)(\s|$)/.test(line)) {
      finish(index + 1);
      line = line.startsWith("---") ? `   ${line.slice(3)}` : "";
    } else if (!filled && line.startsWith("%")) line = "";
    filled ||= !/^\s*(#|$)/.test(line);
    lines.push(line);
  }
  finish(0);
  return documents;
}
