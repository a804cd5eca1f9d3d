/** The tags of string matches in a local file (ZT-146): `!Exact a` is another way to write `{ "Exact": a }`. */

const TAGS = ["Exact", "Prefix", "Suffix", "Presence"];
/** What may stand before a value: nothing, the start of a list's item, a bracket, a comma, a colon. */
const BEFORE_VALUE = new Set(["", "-", "[", "{", ",", ":", "\n"]);

/**
 * Writes the tags as the mappings they stand for, for a parser that knows only the tags of YAML itself. Quoted texts
 * and comments stay as they are, and so do lines and the columns before the first tag of a line.
 */
export function expandTags(text: string): string {
  let out = "", at = 0, before = "";
  while (at < text.length) {
    const character = text[at]!;
    if (character === "#" && (at === 0 || /\s/.test(text[at - 1]!))) {
      const end = lineEnd(text, at);
      out += text.slice(at, end);
      at = end;
    } else if ((character === '"' || character === "'") && BEFORE_VALUE.has(before)) {
      const end = quoteEnd(text, at);
      out += text.slice(at, end);
      at = end;
      before = character;
    } else if (character === "!" && BEFORE_VALUE.has(before)) {
      const tag = TAGS.find((name) => new RegExp(`^!${name}(?=[\\s\\[,\\]"']|$)`).test(text.slice(at, at + 12)));
      const end = tag === undefined ? at + 1 : valueEnd(text, at + 1 + tag.length);
      const value = tag === undefined ? "" : text.slice(at + 1 + tag.length, end);
      const space = value.slice(value.trimEnd().length); // A comment needs it before its mark.
      out += tag === undefined ? "!" : `{ "${tag}": ${value.trim() || "[]"} }${space}`;
      at = end;
      before = "}";
    } else {
      out += character;
      if (character === "\n") before = "\n";
      else if (!/\s/.test(character)) before = character;
      at++;
    }
  }
  return out;
}

function lineEnd(text: string, from: number): number {
  const end = text.indexOf("\n", from);
  return end < 0 ? text.length : end;
}

/** Just past a quoted text, or the text's end if it is not closed: the parser will say so. */
function quoteEnd(text: string, from: number): number {
  const quote = text[from]!;
  for (let at = from + 1; at < text.length; at++) {
    if (quote === '"' && text[at] === "\\") at++;
    else if (text[at] === quote) {
      if (quote === "'" && text[at + 1] === "'") at++;
      else return at + 1;
    }
  }
  return text.length;
}

/** Just past the value that follows a tag: a quoted text, `[]`, or a plain text up to what ends one. */
function valueEnd(text: string, from: number): number {
  let at = from;
  while (text[at] === " " || text[at] === "\t") at++;
  if (text[at] === '"' || text[at] === "'") return quoteEnd(text, at);
  if (text[at] === "[") {
    const end = text.indexOf("]", at);
    return end < 0 ? text.length : end + 1;
  }
  while (at < text.length && !/[,\]}\n]/.test(text[at]!) && !(text[at] === "#" && /\s/.test(text[at - 1]!))) at++;
  return at;
}
