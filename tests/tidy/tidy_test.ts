/** The house rules that need no parser: one pass over the tracked files. Each failure names the file and what to do. */
import { assertEquals } from "@std/assert";
import { tableProblems } from "../conformance/table.ts";
import { isTest, OUTSIDE, roomOf, ROOMS, WORKER_ENTRIES } from "./layers.ts";
import { codeUses, printedDocuments } from "./printed.ts";
import { trackedFiles } from "./tree.ts";

const files = await trackedFiles();
const sources = files.filter((file) => file.path.endsWith(".ts"));
const shipped = sources.filter((file) => !isTest(file.path) && !OUTSIDE.includes(roomOf(file.path)));

const LINES_MAX = 500;
/** Files that are longer, each with its reason. A ratchet: numbers only fall. */
const LONGER: Readonly<Record<string, { readonly lines: number; readonly why: string }>> = {};

/** Fails with every problem at once, one a line. */
function report(problems: readonly string[]): void {
  assertEquals(problems, []);
}

/** `path:line` of every match of a pattern. */
function found(within: typeof files, pattern: RegExp, advice: string): string[] {
  return within.flatMap(({ path, text }) =>
    text.split("\n").flatMap((line, index) => pattern.test(line) ? [`${path}:${index + 1}: ${advice}`] : [])
  );
}

// Words that this file must not hold itself are put together from parts.
const word = (...parts: readonly string[]) => parts.join("");

Deno.test("every source file opens with a doc line", () => {
  const documented = sources.filter(({ path }) => !path.endsWith("_test.ts")); // A test's name says it all.
  report(
    documented.filter(({ text }) => !/^\/\*\*\s/.test(text)).map(({ path }) =>
      `${path}: say in one line what it is for`
    ),
  );
});

Deno.test("file names are snake_case", () => {
  const name = /^[a-z0-9_]+(\.d)?\.ts$/;
  report(sources.map(({ path }) => path).filter((path) => !name.test(path.split("/").at(-1)!)));
});

Deno.test("no source file is longer than a reader can hold", () => {
  const linesOf = (text: string) => text.split("\n").length - 1;
  const tooLong = sources.flatMap(({ path, text }) => {
    const lines = linesOf(text), max = LONGER[path]?.lines ?? LINES_MAX;
    return lines > max ? [`${path}: ${lines} lines, at most ${max}: look for the seam`] : [];
  });
  const stale = Object.keys(LONGER).filter((path) => {
    const file = files.find((it) => it.path === path);
    return file === undefined || linesOf(file.text) <= LINES_MAX;
  });
  report([...tooLong, ...stale.map((path) => `${path}: needs its exception no longer`)]);
});

Deno.test("nothing is left for later, and nothing is swallowed", () => {
  const later = new RegExp(`\\b(${word("TO", "DO")}|${word("FIX", "ME")}|${word("XX", "X")})\\b`);
  report([
    ...found(files, later, "do it, or say what is not there"),
    ...found(sources, /\bcatch\s*(\([^)]*\))?\s*\{\s*\}/, "say why with ignore(), or handle it"),
    ...found(
      sources,
      /\.catch\(\s*\(\w*\)\s*=>\s*(\{\s*\}|undefined|null)\s*\)(?!.*\/\/)/,
      "say why with ignore(), or handle it",
    ),
  ]);
});

Deno.test("shipped code prints through the logger or a host, and no check is switched off without a reason", () => {
  report([
    ...found(shipped, /\bconsole\.\w+\(/, "take a Logger, or write to the host's streams"),
    ...found(sources, /@ts-(ignore|nocheck)/, "make the types right"),
    ...found(shipped, /@ts-expect-error/, "make the types right; only a test may expect one"),
    ...found(sources, /deno-lint-ignore(?!.* -- )/, "say after ` -- ` why the rule does not hold here"),
  ]);
});

Deno.test("tests wait for a state, never for a time", () => {
  const tests = sources.filter(({ path }) => path.endsWith("_test.ts"));
  const switchedOff = tests.flatMap(({ path, text }) => {
    const lines = text.split("\n");
    const explained = (index: number) =>
      lines.slice(Math.max(0, index - 2), index + 1).some((line) => /\/\/|\*\//.test(line));
    const bare = [...lines.keys()].filter((index) =>
      /sanitize(Ops|Resources): false/.test(lines[index]!) && !explained(index)
    );
    return bare.map((index) => `${path}:${index + 1}: keep the sanitizers on, or say why beside it`);
  });
  report([...found(tests, /await (sleep|delay)\(/, "poll for a state with a deadline"), ...switchedOff]);
});

Deno.test("every RFC is cited with its section", () => {
  const wholeFormats = "1123|2986|3339|4291|5952|7239|7468"; // A format that is named by its RFC, all of it.
  const pattern = new RegExp(`RFC ?(?!(${wholeFormats})\\b)\\d+\\b(?! (§|[Aa]ppendix ))`);
  report(found(sources.filter(({ path }) => roomOf(path) !== "tests"), pattern, "write `RFC n §x`"));
});

Deno.test("every error code says what was being done, and what to do about it", () => {
  const uses = codeUses(files);
  report(uses.filter((use) => use.message.trim() === "").map(({ path, code }) => `${path}: ${code} says nothing`));
  report(uses.filter((use) => use.remedies.length === 0).map(({ path, code }) => `${path}: ${code} has no remedy`));
  const rooms = new Map<string, Set<string>>();
  for (const { code, path } of uses) rooms.set(code, (rooms.get(code) ?? new Set()).add(roomOf(path)));
  report(
    [...rooms].filter(([, of]) => of.size > 1).map(([code, of]) => `${code} means two things: ${[...of].join(", ")}`),
  );
});

Deno.test("the printed parts of the documents are fresh", () => {
  const stale = printedDocuments(files).filter(({ path, text }) =>
    files.find((file) => file.path === path)?.text !== text
  );
  report(stale.map(({ path }) => `${path}: run \`deno task docs\``));
});

Deno.test("every rule of ztunnel, of the control plane and of the node has a test that cites it, or a reason why not, and not both", () => {
  report(tableProblems(files));
});

Deno.test("decisions have a number each, and each says its standing, its figures and what was refused", () => {
  const decisions = files.filter(({ path }) => path.startsWith("docs/decisions/")), seen = new Set<string>();
  report(decisions.flatMap(({ path, text }) => {
    const number = /\/(\d{4})-[a-z0-9_-]+\.md$/.exec(path)?.[1];
    if (number === undefined || seen.has(number)) return [`${path}: should begin with a number of its own`];
    seen.add(number);
    const wanted = [`# ${number} `, "Status: ", "## Forced by", "## Measured", "## Refused"];
    return wanted.filter((part) => !text.includes(part)).map((part) => `${path}: lacks ${JSON.stringify(part.trim())}`);
  }));
});

Deno.test("the tree names no place of one machine, and no registry's host", () => {
  const places = ["/wo" + "rk/", "/ro" + "ot/", "/home/" + "[a-z]"];
  const hosts = [
    word("registry", "\\.npmjs"),
    word("npmjs", "\\.com"),
    word("js", "r\\.io"),
    word("deno", "\\.land/"),
    word("py", "pi\\.org"),
  ];
  report(found(files, new RegExp(`(^|[\\s"'\`(=])(${places.join("|")})`), "no path of one machine"));
  report(found(files, new RegExp(hosts.join("|")), "packages come through the import map, by name"));
});

Deno.test("deno.json says what each task does, and pins each package", () => {
  const config = JSON.parse(files.find(({ path }) => path === "deno.json")!.text) as {
    tasks: Record<string, { description?: string }>;
    imports: Record<string, string>;
  };
  report([
    ...Object.entries(config.tasks).filter(([, task]) => (task.description ?? "") === "").map(([name]) =>
      `task ${name}: no description`
    ),
    ...Object.entries(config.imports).filter(([, target]) =>
      !/^(npm:(@[\w-]+\/)?[\w.-]+@\d+\.\d+\.\d+(\/|$)|\.\/)/.test(target)
    ).map(([name]) => `import ${name}: not pinned`),
  ]);
});

Deno.test("every package of the import map is explained in docs/dependencies.md", () => {
  const config = JSON.parse(files.find(({ path }) => path === "deno.json")!.text) as {
    imports: Record<string, string>;
  };
  const text = files.find(({ path }) => path === "docs/dependencies.md")!.text;
  report(Object.keys(config.imports).filter((name) => !name.startsWith(".") && !text.includes(`\`${name}\``)));
});

Deno.test("every folder with code stands in the import table", () => {
  const rooms = new Set(sources.map(({ path }) => roomOf(path)));
  const known = new Set([...Object.keys(ROOMS), ...OUTSIDE, "main.ts"]);
  report([...rooms].filter((room) => !known.has(room)).map((room) => `${room}/: add it to tests/tidy/layers.ts`));
});

Deno.test("worker entries are the scripts that a Worker is started with, and os/api.ts reaches no kernel", () => {
  const started = shipped.flatMap(({ path, text }) =>
    [...text.matchAll(/new Worker\(\s*new URL\("([^"]+)"/g)].map((match) =>
      new URL(match[1]!, `file:///${path}`).pathname.slice(1)
    )
  );
  report(started.filter((path) => !WORKER_ENTRIES.includes(path)).map((path) => `${path}: add it to WORKER_ENTRIES`));
  const api = files.filter(({ path }) => path === "os/api.ts");
  report(found(api, /\bDeno\.|^import (?!type)/, "the Os interface is types and numbers only"));
});

Deno.test("ARCHITECTURE.md stays a map of at most 200 lines", () => {
  const lines = files.find(({ path }) => path === "ARCHITECTURE.md")!.text.split("\n").length;
  assertEquals(lines <= 200, true, `${lines} lines`);
});
