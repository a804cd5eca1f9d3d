/** The parts of the documents that are printed from code, so that they cannot grow stale: error codes, imports, rules, tasks. */
import { ruleRows, ruleTable } from "../conformance/table.ts";
import { isTest, OUTSIDE, roomOf, ROOMS } from "./layers.ts";
import type { TrackedFile } from "./tree.ts";

/** One use of an error code in the code. */
interface CodeUse {
  readonly code: string;
  readonly path: string;
  readonly message: string;
  readonly remedies: readonly string[];
}

/** The text up to the parenthesis that closes the call which `from` lies in. */
function restOfCall(text: string, from: number): string {
  let depth = 1;
  for (let at = from; at < text.length; at++) {
    const letter = text[at]!;
    if (letter === '"' || letter === "`") at = endOfLiteral(text, at);
    else if (letter === "(" || letter === "{" || letter === "[") depth++;
    else if ((letter === ")" || letter === "}" || letter === "]") && --depth === 0) return text.slice(from, at);
  }
  return text.slice(from);
}

function endOfLiteral(text: string, start: number): number {
  const quote = text[start];
  for (let at = start + 1; at < text.length; at++) {
    if (text[at] === "\\") at++;
    else if (text[at] === quote) return at;
    else if (quote === "`" && text[at] === "$" && text[at + 1] === "{") {
      at += 2 + restOfCall(text, at + 2).length;
    }
  }
  return text.length;
}

/** String literals in order, what a template inserts shown as `…`. */
function literals(text: string): string[] {
  const found: string[] = [];
  for (let at = 0; at < text.length; at++) {
    if (text[at] !== '"' && text[at] !== "`") continue;
    const end = endOfLiteral(text, at);
    let plain = "";
    for (let inner = at + 1; inner < end; inner++) {
      if (text.startsWith("${", inner)) {
        plain += "…";
        inner += 2 + restOfCall(text, inner + 2).length;
      } else plain += text[inner];
    }
    found.push(plain);
    at = end;
  }
  return found;
}

/** The remedies of a call with that property: literals in it, or in the constant of that name before it. */
function remediesOf(before: string, call: string): string[] {
  const cut = call.indexOf("remedy");
  const value = /^remedy\s*(:\s*\w*[rR]emedy\s*)?[,})]/.test(call.slice(cut)) ? "" : call.slice(cut);
  if (value !== "") return literals(value.split(/\n?\s*\bcause\b[:,\s]/)[0]!);
  const made = before.lastIndexOf("remedy =");
  return made < 0 ? ["…"] : literals(before.slice(made, before.indexOf(";\n", made)));
}

/** Every place that makes an error with a code of ours. */
export function codeUses(files: readonly TrackedFile[]): CodeUse[] {
  const uses: CodeUse[] = [];
  for (const { path, text } of files) {
    if (!path.endsWith(".ts") || isTest(path) || OUTSIDE.includes(roomOf(path))) continue;
    for (const found of text.matchAll(/["`](AMB\d{4})["`]/g)) {
      const call = restOfCall(text, found.index + found[0].length);
      const cut = call.indexOf("remedy"), head = cut < 0 ? call : call.slice(0, cut);
      // A message that is handed in is told where it is made, in the same file; here it is one of several.
      const handedIn = /^,\s*\w+\s*[,)]/.test(head);
      const [message = "", ...rest] = handedIn ? ["…", ...literals(head)] : literals(head);
      const remedies = cut < 0 ? rest : remediesOf(text.slice(0, found.index), call);
      uses.push({ code: found[1]!, path, message, remedies });
    }
  }
  return uses.sort((one, other) => one.code.localeCompare(other.code) || one.path.localeCompare(other.path));
}

function cell(text: string): string {
  return text.replaceAll("|", "\\|").replaceAll(/\s+/g, " ");
}

function errorTable(files: readonly TrackedFile[]): string {
  const byCode = new Map<string, { paths: Set<string>; messages: Set<string>; remedies: Set<string> }>();
  for (const use of codeUses(files)) {
    const row = byCode.get(use.code) ?? { paths: new Set(), messages: new Set(), remedies: new Set() };
    byCode.set(use.code, row);
    row.paths.add(use.path);
    if (use.message !== "") row.messages.add(use.message);
    for (const remedy of use.remedies) if (/[a-z]{2} /.test(remedy)) row.remedies.add(remedy);
  }
  const lines = ["| code | what it says | what to do | from |", "|---|---|---|---|"];
  for (const [code, { paths, messages, remedies }] of byCode) {
    const columns = [messages, remedies, paths].map((texts) => cell([...texts].join("<br>")));
    lines.push(`| ${code} | ${columns.join(" | ")} |`);
  }
  return lines.join("\n");
}

function importTable(): string {
  const lines = ["| folder | may import | packages |", "|---|---|---|"];
  for (const [room, { imports, packages = {} }] of Object.entries(ROOMS)) {
    const named = Object.entries(packages).map(([name, part]) => part === "" ? `${name}` : `${name} in \`${part}\``);
    const shown = named.map((text) => text.replace(/^node:/, "`node:` modules")).join(", ");
    lines.push(`| ${room} | ${imports.join(" ") || "nothing"} | ${shown || "none"} |`);
  }
  lines.push(`| ${OUTSIDE.join(", ")} | anything; nobody imports them | any |`);
  return lines.join("\n");
}

function taskTable(files: readonly TrackedFile[]): string {
  const config = JSON.parse(files.find((file) => file.path === "deno.json")!.text) as {
    tasks: Record<string, { description?: string }>;
  };
  const lines = ["| command | what it does |", "|---|---|"];
  for (const [name, task] of Object.entries(config.tasks)) {
    lines.push(`| \`deno task ${name}\` | ${cell(task.description ?? "")} |`);
  }
  return lines.join("\n");
}

/** Puts a table between its marks. */
function filled(text: string, name: string, table: string): string {
  const start = `<!-- printed: ${name} -->`, end = "<!-- /printed -->";
  const from = text.indexOf(start), to = text.indexOf(end, from);
  if (from < 0 || to < 0) throw new Error(`the marks ${start} and ${end} are missing`);
  return `${text.slice(0, from + start.length)}\n${table}\n${text.slice(to)}`;
}

/** The documents as they should be, printed parts fresh. */
export function printedDocuments(files: readonly TrackedFile[]): TrackedFile[] {
  const textOf = (path: string) => files.find((file) => file.path === path)?.text ?? "";
  return [
    { path: "docs/errors.md", text: filled(textOf("docs/errors.md"), "errors", errorTable(files)) },
    {
      path: "docs/conformance.md",
      text: filled(
        filled(
          filled(textOf("docs/conformance.md"), "conformance", ruleTable(ruleRows(files, "ZT"))),
          "control plane",
          ruleTable(ruleRows(files, "CP")),
        ),
        "node",
        ruleTable(ruleRows(files, "CNI")),
      ),
    },
    { path: "docs/imports.md", text: filled(textOf("docs/imports.md"), "imports", importTable()) },
    { path: "README.md", text: filled(textOf("README.md"), "tasks", taskTable(files)) },
  ];
}
