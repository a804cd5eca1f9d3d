/** `ambit completion`: what a shell completes, made from the tables of the commands. */
import { ConfigDefinition, defineConfig, type Table } from "../base/config.ts";
import { MeshError } from "../base/errors.ts";
import { writeOut } from "../base/standard_output.ts";

export const SHELLS = ["bash", "zsh", "fish"] as const;

export const COMPLETION_CONFIG = defineConfig("ambit completion", {}, {
  operands: SHELLS.join("|"),
  examples: [
    "ambit completion bash > /etc/bash_completion.d/ambit",
    "ambit completion fish > ~/.config/fish/completions/ambit.fish",
  ],
});

/** A command, or one below a command as `cni check`, and what may be given to it. */
export interface Completed {
  readonly name: string;
  readonly summary: string;
  readonly definition: ConfigDefinition<Table> | undefined;
}

/** @returns 0 once the script is written. @throws MeshError AMB0294 for another shell. */
export async function runCompletion(args: readonly string[], commands: () => Promise<Completed[]>): Promise<number> {
  if (ConfigDefinition.wantsHelp(args)) {
    writeOut(COMPLETION_CONFIG.help("Writes a script by which a shell completes commands, flags and their words."));
    return 0;
  }
  const { operands } = COMPLETION_CONFIG.parse(args, () => undefined), [shell] = operands;
  if (operands.length !== 1 || shell !== "bash" && shell !== "zsh" && shell !== "fish") {
    throw new MeshError("AMB0294", `ambit completion needs one of ${SHELLS.join(", ")}`, {
      remedy: "for example: source <(ambit completion bash)",
    });
  }
  writeOut(shell === "fish" ? fishScript(await commands()) : bashScript(await commands(), shell === "zsh"));
  return 0;
}

interface Flag {
  readonly flag: string;
  readonly help: string;
  /** Undefined: a switch. Empty: anything. */
  readonly words: readonly string[] | undefined;
}

function flagsOf(definition: ConfigDefinition<Table> | undefined): Flag[] {
  const rows = Object.values(definition?.table ?? {}).map(({ flag, kind, help }): Flag => ({
    flag,
    help,
    words: kind.placeholder === "" ? undefined : wordsOf(kind.placeholder),
  }));
  return [...rows, { flag: "help", help: "what there is", words: undefined }];
}

/** `text|json` are words to choose from, `PATH` is anything. */
function wordsOf(placeholder: string): readonly string[] {
  return /^[\w.-]+(\|[\w.-]+)+$/.test(placeholder) ? placeholder.split("|") : [];
}

/** What may follow a command without a flag: commands below it, and operands that are words. */
function operandsOf(name: string, commands: readonly Completed[]): readonly string[] {
  const below = commands.filter((it) => it.name.startsWith(`${name} `)).map((it) => it.name.slice(name.length + 1));
  const own = commands.find((it) => it.name === name)?.definition?.usage.operands ?? "";
  return [...below, ...wordsOf(own)];
}

const tops = (commands: readonly Completed[]) => commands.filter(({ name }) => !name.includes(" "));

/** Pure. zsh reads the same by its own emulation. */
export function bashScript(commands: readonly Completed[], isZsh = false): string {
  const lines = isZsh ? ["#compdef ambit", "autoload -U +X bashcompinit && bashcompinit"] : [];
  lines.push(
    "_ambit() {",
    '  local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" words=""',
    '  local command="${COMP_WORDS[1]}"',
    '  if [ "$COMP_CWORD" -gt 2 ]; then',
    '    case "$command ${COMP_WORDS[2]}" in',
    ...commands.filter(({ name }) => name.includes(" ")).map(({ name }) => `      "${name}") command="${name}" ;;`),
    "    esac",
    "  fi",
    "  COMPREPLY=()",
    '  if [ "$COMP_CWORD" -eq 1 ]; then',
    `    words="${[...tops(commands).map(({ name }) => name), "help"].join(" ")}"`,
    "  else",
    '    case "$command:$previous" in',
  );
  for (const { name, definition } of commands) {
    for (const { flag, words } of flagsOf(definition)) {
      // Of what may be anything the shell completes files.
      if (words !== undefined) lines.push(`      "${name}:--${flag}") words="${words.join(" ")}" previous=value ;;`);
    }
  }
  lines.push("    esac", '    if [ "$previous" != value ]; then', '      case "$command" in');
  for (const { name, definition } of commands) {
    const words = [...operandsOf(name, commands), ...flagsOf(definition).map(({ flag }) => `--${flag}`)];
    lines.push(`        "${name}") words="${words.join(" ")}" ;;`);
  }
  lines.push(
    "      esac",
    "    fi",
    "  fi",
    '  while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -W "$words" -- "$current")',
    "}",
    "complete -o default -F _ambit ambit",
  );
  return `${lines.join("\n")}\n`;
}

/** Pure. */
export function fishScript(commands: readonly Completed[]): string {
  const quoted = (text: string) => `'${text.replaceAll(/['\\]/g, "\\$&")}'`;
  const lines = ["complete -c ambit -n __fish_use_subcommand -f"];
  for (const { name, summary } of tops(commands)) {
    lines.push(`complete -c ambit -n __fish_use_subcommand -a ${name} -d ${quoted(summary)}`);
  }
  for (const { name, definition } of commands) {
    const [top, below] = name.split(" "), others = operandsOf(name, commands);
    const seen = below === undefined
      ? `__fish_seen_subcommand_from ${top}`
      : `__fish_seen_subcommand_from ${top}; and __fish_seen_subcommand_from ${below}`;
    if (others.length > 0) lines.push(`complete -c ambit -n ${quoted(seen)} -a ${quoted(others.join(" "))}`);
    for (const { flag, help, words } of flagsOf(definition)) {
      const value = words === undefined ? "" : words.length > 0 ? ` -xa ${quoted(words.join(" "))}` : " -r";
      lines.push(`complete -c ambit -n ${quoted(seen)} -l ${flag}${value} -d ${quoted(help)}`);
    }
  }
  return `${lines.join("\n")}\n`;
}
