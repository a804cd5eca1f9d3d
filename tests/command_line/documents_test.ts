/** What documents, units, examples of help and messages tell a person to type is there: commands, flags and tasks (UX-080). */
import { assert, assertEquals } from "@std/assert";
import type { ConfigDefinition, Table } from "../../base/config.ts";
import { COMMANDS } from "../../main.ts";
import { trackedFiles } from "../tidy/tree.ts";

const DOCUMENTS = /^(README\.md|examples\/.*\.md|docs\/[^/]+\.md|deploy\/systemd\/.*)$/;
const files = (await trackedFiles()).filter(({ path }) => DOCUMENTS.test(path));

/** By `command` and `command subcommand`; loaded here, since some load libraries, which no test is to do. */
const DEFINITIONS = new Map<string, ConfigDefinition<Table>>();
for (const { name, settings = {} } of COMMANDS) {
  for (const [below, load] of Object.entries(settings)) DEFINITIONS.set(`${name} ${below}`.trim(), await load());
}

/** The command that these words name, and what is left of them. */
function definitionOf(words: readonly string[]): { definition: ConfigDefinition<Table>; rest: string[] } {
  for (const count of [2, 1]) {
    const definition = DEFINITIONS.get(words.slice(0, count).join(" "));
    if (definition !== undefined) return { definition, rest: words.slice(count) };
  }
  throw new Error(`there is no command ambit ${words[0]}`);
}

/** What is wrong with a line that begins with `ambit`. */
function problemOf(line: string): string | undefined {
  const words = line.replace(/\s(#|[|>]|&&|<).*$/s, "").trim().split(/\s+/).slice(1);
  if (words.length === 0 || words[0]!.startsWith("-") || /^[A-Z…]/.test(words[0]!)) return undefined; // `ambit COMMAND`.
  const { definition, rest } = definitionOf(words);
  const flags = Object.values(definition.table).flatMap(({ flag, short }) => [`--${flag}`, `-${short}`]);
  const unknown = rest.find((word) =>
    /^--?[a-z]/.test(word) && !flags.includes(word.split("=")[0]!) && word !== "--help"
  );
  return unknown === undefined ? undefined : `\`${line}\`: ${definition.command} knows no ${unknown}`;
}

/** Lines of code blocks, joined where they go on, and code within sentences. */
function commandLines(text: string): string[] {
  const joined = text.replaceAll(/\\\n\s*/g, " ");
  const blocks = joined.split("\n").map((line) => line.replace(/^(ExecStart|ExecReload)=.*?(?=ambit )/, ""));
  const spans = [...joined.matchAll(/`([^`\n]+)`/g)].map(([, code]) => code!);
  return [...blocks, ...spans]
    .map((line) => line.trim().replace(/^.*deno@\S+ task ambit /, "ambit ").replace(/^deno task ambit /, "ambit "))
    .filter((line) => /^ambit [a-z-]/.test(line) && !/^ambit (is|an|for) /.test(line));
}

Deno.test("commands and flags that documents and units name are there (UX-080)", () => {
  const problems: string[] = [];
  let seen = 0;
  for (const { path, text } of files) {
    for (const line of commandLines(text)) {
      seen++;
      const problem = problemOf(line);
      if (problem !== undefined) problems.push(`${path}: ${problem}`);
    }
  }
  assertEquals(problems, []);
  assert(seen > 40, `only ${seen} commands were found`);
});

Deno.test("tasks that documents name are there (UX-080)", () => {
  const { tasks } = JSON.parse(Deno.readTextFileSync(new URL("../../deno.json", import.meta.url)));
  const named = files.flatMap(({ text }) =>
    [...text.matchAll(/(?:deno|deno@\S+) task ([a-z0-9:_-]+)/g)].map(([, it]) => it!)
  );
  assertEquals([...new Set(named)].filter((name) => !Object.hasOwn(tasks, name)), []);
  assert(named.length > 20);
});

Deno.test("examples of --help can be typed as they stand (UX-002, UX-080)", () => {
  let seen = 0;
  for (const [name, { usage: { examples = [] } }] of DEFINITIONS) {
    for (const example of examples.join("\n").replaceAll(/ \\\n\s*/g, " ").split("\n").filter((it) => it !== "")) {
      seen++;
      const line = example.replace(/^.* \| (?=ambit)/, "").replace(/\s[|>].*$/, "");
      assert(line.startsWith(`ambit ${name}`), example);
      const { definition, rest } = definitionOf(line.split(" ").slice(1));
      definition.parse(rest, () => undefined); // Throws for what cannot be typed.
    }
  }
  assert(seen > 15, `only ${seen} examples were found`);
});

Deno.test("links of documents lead to files that are there", async () => {
  const dead: string[] = [], root = new URL("../../", import.meta.url);
  for (const { path, text } of (await trackedFiles()).filter((it) => it.path.endsWith(".md"))) {
    for (const [, link] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^(https?:|#)/.test(link!)) continue;
      const target = new URL(link!.split("#")[0]!, new URL(path, root));
      await Deno.stat(target).catch(() => dead.push(`${path}: ${link}`));
    }
  }
  assertEquals(dead, []);
});
