/** Completion: what bash itself makes of the script, and that every flag is in each shell's. */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { defineConfig, oneOf, text, toggle } from "../base/config.ts";
import { MeshError } from "../base/errors.ts";
import { bashScript, type Completed, fishScript, runCompletion } from "./completion.ts";

const flags = {
  output: { kind: oneOf("text", "json"), flag: "output", default: "text" as const, help: "the answer's form" },
  list: { kind: toggle(), flag: "list", default: false, help: "lists" },
  path: { kind: text("PATH"), flag: "path", default: "", help: "where" },
};
const COMMANDS: readonly Completed[] = [
  {
    name: "config",
    summary: "shows",
    definition: defineConfig("ambit config", flags, { operands: "services|policies" }),
  },
  { name: "cni", summary: "the agent's", definition: defineConfig("ambit cni", { list: flags.list }) },
  { name: "cni check", summary: "", definition: defineConfig("ambit cni check", { output: flags.output }) },
];

/** What bash offers for a line that the cursor stands behind. */
async function offered(line: string): Promise<string> {
  const words = line.split(" "), quoted = words.map((it) => `'${it}'`).join(" ");
  const ask = `COMP_WORDS=(${quoted}); COMP_CWORD=${words.length - 1}; _ambit; echo "\${COMPREPLY[*]}"`;
  const args = ["--norc", "-c", `${bashScript(COMMANDS)}\n${ask}`];
  const { stdout, stderr, success } = await new Deno.Command("bash", { args }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout).trim();
}

Deno.test("bash completes commands, those below them, flags and the words of a flag (UX-008)", async () => {
  const lines: Record<string, string> = {
    "ambit c": "config cni",
    "ambit ": "config cni help",
    "ambit config ": "services policies --output --list --path --help",
    "ambit config --o": "--output",
    "ambit config --output ": "text json",
    "ambit config --output j": "json",
    "ambit config --path ": "", // Files, by the shell itself.
    "ambit config --list s": "services",
    "ambit cni ": "check --list --help",
    "ambit cni check --": "--output --help",
    "ambit cni check --output t": "text",
    "ambit nothing ": "",
  };
  for (const [line, wanted] of Object.entries(lines)) assertEquals(await offered(line), wanted, line);
});

Deno.test("fish and zsh get every command and flag, with what it is for (UX-008)", async () => {
  const fish = fishScript(COMMANDS);
  assertStringIncludes(fish, "-a cni -d 'the agent\\'s'");
  assertStringIncludes(
    fish,
    "-n '__fish_seen_subcommand_from config' -l output -xa 'text json' -d 'the answer\\'s form'",
  );
  assertStringIncludes(fish, "-n '__fish_seen_subcommand_from cni; and __fish_seen_subcommand_from check' -l output");
  assertStringIncludes(bashScript(COMMANDS, true), "#compdef ambit\nautoload -U +X bashcompinit");
  for (const args of [[], ["tcsh"], ["bash", "zsh"]]) {
    const error = await assertRejects(() => runCompletion(args, () => Promise.resolve([])), MeshError);
    assertEquals(error.code, "AMB0294");
  }
});
