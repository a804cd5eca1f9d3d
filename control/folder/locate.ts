/** Finds the line of a field in YAML text, well enough to point a person there. */
import type { PathSegment } from "../decode/field.ts";

interface Line {
  readonly indent: number;
  readonly content: string;
}

/** Splits a line into the column where its content starts and the content; comments and blank lines have none. */
function measure(text: string): Line {
  const indent = text.length - text.trimStart().length;
  const content = text.slice(indent).trimEnd();
  return { indent, content: content.startsWith("#") ? "" : content };
}

function keyIn(content: string): string | undefined {
  const match =
    /^(?:"((?:[^"\\]|\\.){0,300})"|'([^']{0,300})'|([^\s"'#{}\[\],&*!|>%@`-][^:]{0,300}|-[^\s:][^:]{0,300}|-))\s*:(?:\s|$)/
      .exec(content);
  return match === null ? undefined : match[1] ?? match[2] ?? match[3]?.trimEnd();
}

// A list of very many objects would otherwise cost the square of its length; past these, its own first line is told.
const LOCATED_MAX = 200;

/** Finds fields of one document; its text is taken apart once. */
export class Locator {
  readonly #text: string;
  readonly #json: boolean;
  #lines: readonly Line[] | undefined;
  #located = 0;

  constructor(text: string, json: boolean) {
    this.#text = text;
    this.#json = json;
  }

  /**
   * The line, from 0, on which a field stands. Where the text leaves block style (`{a: 1}`), or the field is absent, the
   * line of its nearest parent that was found.
   */
  lineOf(path: readonly PathSegment[]): number {
    if (++this.#located > LOCATED_MAX) return 0;
    if (this.#json) return lineOfJsonPath(this.#text, path);
    this.#lines ??= this.#text.split("\n").map(measure);
    return lineOfPath(this.#lines, path);
  }
}

function firstFilled(lines: readonly Line[], from: number, to: number, indentMin: number): number {
  for (let at = from; at < to; at++) if (lines[at]!.content !== "" && lines[at]!.indent >= indentMin) return at;
  return -1;
}

function lineOfPath(lines: readonly Line[], path: readonly PathSegment[]): number {
  let from = 0, to = lines.length, found = Math.max(firstFilled(lines, 0, to, 0), 0), indentMin = 0;
  /** What stands behind the dash of the list item entered last, as if the dash were indentation. */
  let entered: { at: number; line: Line } | undefined;
  const lineAt = (at: number) => entered?.at === at ? entered.line : lines[at]!;
  for (const segment of path) {
    const start = entered !== undefined && entered.line.content !== "" ? from : firstFilled(lines, from, to, indentMin);
    if (start < 0) break;
    const indent = lineAt(start).indent;
    let seen = -1, at = start;
    for (; at < to; at++) {
      const line = lineAt(at);
      if (line.content === "" || line.indent !== indent) continue;
      const dash = isDash(line);
      if (typeof segment === "number" ? dash && ++seen === segment : keyIn(line.content) === segment) break;
    }
    if (at >= to) break;
    found = at;
    const line = lineAt(at), next = lines[at + 1];
    // A list may stand at the indentation of its key.
    const listBeside = typeof segment === "string" && next !== undefined && next.indent === indent && isDash(next);
    let end = at + 1;
    for (; end < to; end++) {
      const inner = lines[end]!;
      if (inner.content !== "" && inner.indent <= indent && !(listBeside && inner.indent === indent && isDash(inner))) {
        break;
      }
    }
    to = end;
    if (typeof segment === "number") {
      const rest = line.content.slice(1), content = rest.trimStart();
      entered = { at, line: { indent: indent + 1 + rest.length - content.length, content } };
      [from, indentMin] = [content === "" ? at + 1 : at, indent + 1];
    } else {
      entered = undefined;
      [from, indentMin] = [at + 1, listBeside ? indent : indent + 1];
    }
  }
  return found;
}

function isDash(line: Line): boolean {
  return line.content === "-" || line.content.startsWith("- ");
}

/** The same for JSON text: the names of the path, sought one after the other. */
function lineOfJsonPath(text: string, path: readonly PathSegment[]): number {
  let at = 0;
  for (const segment of path) {
    if (typeof segment === "number") continue;
    const next = text.indexOf(`${JSON.stringify(segment)}`, at);
    if (next < 0) break;
    at = next;
  }
  return text.slice(0, at).split("\n").length - 1;
}
