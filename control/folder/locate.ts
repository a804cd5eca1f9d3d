/** Finds the line of a field in YAML text, well enough to point a person there. */
import type { PathSegment } from "./field.ts";

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

/**
 * The line, from 0, on which a field stands, in a document of block style. Where the text leaves block style
 * (`{a: 1}`), or the field is absent, the line of its nearest parent that was found.
 */
export function lineOfPath(text: string, path: readonly PathSegment[]): number {
  const lines = text.split("\n").map(measure);
  const first = lines.findIndex((line) => line.content !== "");
  let from = 0, to = lines.length, found = Math.max(first, 0), indentMin = 0;
  for (const segment of path) {
    const start = lines.findIndex((line, at) =>
      at >= from && at < to && line.content !== "" && line.indent >= indentMin
    );
    if (start < 0) break;
    const indent = lines[start]!.indent;
    let seen = -1, at = start;
    for (; at < to; at++) {
      const line = lines[at]!;
      if (line.content === "" || line.indent !== indent) continue;
      const dash = line.content === "-" || line.content.startsWith("- ");
      if (typeof segment === "number" ? dash && ++seen === segment : keyIn(line.content) === segment) break;
    }
    if (at >= to) break;
    found = at;
    if (typeof segment === "number") {
      // The dash counts as indentation, so that the item's first field is found beside its siblings.
      const rest = lines[at]!.content.slice(1);
      const content = rest.trimStart();
      lines[at] = { indent: indent + 1 + rest.length - content.length, content };
      from = at;
      indentMin = indent + 1;
    } else {
      from = at + 1;
      // A list may stand at the indentation of its key.
      indentMin = lines[at + 1]?.content.startsWith("-") && lines[at + 1]!.indent === indent ? indent : indent + 1;
    }
    let end = at + 1;
    const listOfKey = typeof segment === "string" && indentMin === indent;
    while (end < to) {
      const line = lines[end]!;
      const inside = line.content === "" || line.indent > indent ||
        (listOfKey && line.indent === indent && line.content.startsWith("-"));
      if (!inside) break;
      end++;
    }
    to = end;
  }
  return found;
}

/** The same for JSON text: the names of the path, sought one after the other. */
export function lineOfJsonPath(text: string, path: readonly PathSegment[]): number {
  let at = 0;
  for (const segment of path) {
    if (typeof segment === "number") continue;
    const next = text.indexOf(`${JSON.stringify(segment)}`, at);
    if (next < 0) break;
    at = next;
  }
  return text.slice(0, at).split("\n").length - 1;
}
