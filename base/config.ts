/** A role's settings as one table: from it come the parser, the frozen object, `--help` and the README's table. */
import { MeshError } from "./errors.ts";
import { nearest } from "./nearest.ts";

/** How one kind of value is read and shown. */
export interface Kind<T> {
  /** What stands for the value in help, such as `PATH` or `24h`. Empty: a switch, which takes no value. */
  readonly placeholder: string;
  /** The unit and range, for help and errors; empty if the placeholder says it all. */
  readonly range: string;
  /** @returns The value, or what is wrong with the text as `{ wrong }`. Never throws. */
  parse(text: string): { value: T } | { wrong: string };
  show(value: T): string;
}

/** One row of a role's table. */
export interface Setting<T> {
  readonly kind: Kind<T>;
  /** Flag name without its dashes. */
  readonly flag: string;
  /** One letter that stands for it, as `-o`. */
  readonly short?: string;
  /** Environment variable: Istio's own where it has one. */
  readonly env?: string;
  /** Another spelling that is about; read where `env` is unset. */
  readonly otherEnv?: string;
  /** Absent: the setting must be given. */
  readonly default?: T;
  /** Shown instead of the default where it is made at run time or is the absence of something. */
  readonly defaultText?: string;
  readonly help: string;
  /** Never shown: its value is a secret. */
  readonly secret?: boolean;
  /** An empty variable is a value, and not the same as one that is unset. */
  readonly emptyCounts?: boolean;
}

// deno-lint-ignore no-explicit-any -- a table's rows differ in their type; each row's own type is kept by inference.
export type Table = Readonly<Record<string, Setting<any>>>;
export type ConfigOf<T extends Table> = { readonly [K in keyof T]: T[K] extends Setting<infer V> ? V : never };
/** `default`, `flag`, `environment`, or the name of a source below the environment. */
export type Origin = string;

/** A value from a source that stands below the environment. */
export interface Given {
  readonly text: string;
  /** Its name, for the log and for errors. */
  readonly source: string;
}

/** What parsing gives: the frozen settings, and for each where its value came from. */
export interface Parsed<T extends Table> {
  readonly config: ConfigOf<T>;
  readonly origins: Readonly<Record<keyof T, Origin>>;
  /** What stood without a flag, in order. */
  readonly operands: readonly string[];
}

/** What a command has besides flags. */
export interface Usage {
  /** What may stand without a flag, as help shows it, e.g. `TARGET` or `[FILE…]`. Absent: nothing may. */
  readonly operands?: string;
  /** Whole lines that a person may type, for help. */
  readonly examples?: readonly string[];
}

/** A text that may be anything, also empty. */
export function text(placeholder = "TEXT"): Kind<string> {
  return { placeholder, range: "", parse: (it) => ({ value: it }), show: (it) => it };
}

/** A switch: `--flag`, `--flag=false`; in the environment `true`, `1`, `false`, `0`. */
export function toggle(): Kind<boolean> {
  const values: Record<string, boolean> = { "": true, true: true, "1": true, false: false, "0": false };
  return {
    placeholder: "",
    range: "true or false",
    parse: (it) => Object.hasOwn(values, it) ? { value: values[it]! } : { wrong: "is neither true nor false" },
    show: String,
  };
}

/** A whole number from `min` to `max`. */
export function integer(min: number, max: number, unit = ""): Kind<number> {
  const range = `${min} to ${max}${unit === "" ? "" : ` ${unit}`}`;
  return {
    placeholder: "N",
    range,
    parse(it) {
      const value = /^-?\d{1,15}$/.test(it) ? Number(it) : NaN;
      return value >= min && value <= max ? { value } : { wrong: `is not a whole number from ${range}` };
    },
    show: String,
  };
}

const DURATION_UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** A duration such as `500ms`, `1h30m` or `7d`, in milliseconds. */
export function duration(minMs: number, maxMs: number): Kind<number> {
  const range = `${showDuration(minMs)} to ${showDuration(maxMs)}`;
  return {
    placeholder: "DURATION",
    range,
    parse(it) {
      if (!/^(\d{1,12}(ms|s|m|h|d))+$/.test(it)) return { wrong: "is not a duration such as 500ms, 30s or 1h30m" };
      let value = 0;
      for (const [, count, unit] of it.matchAll(/(\d+)(ms|s|m|h|d)/g)) {
        value += Number(count) * DURATION_UNIT_MS[unit!]!;
      }
      return value >= minMs && value <= maxMs ? { value } : { wrong: `is outside ${range}` };
    },
    show: showDuration,
  };
}

/** The shortest exact writing of a duration, e.g. `1h30m`. */
export function showDuration(ms: number): string {
  let rest = ms, out = "";
  for (const unit of ["d", "h", "m", "s", "ms"]) {
    const size = DURATION_UNIT_MS[unit]!;
    const count = Math.floor(rest / size);
    if (count > 0) out += `${count}${unit}`;
    rest -= count * size;
  }
  return out === "" ? "0s" : out;
}

/** One of the given words. */
export function oneOf<const W extends string>(...words: readonly W[]): Kind<W> {
  return {
    placeholder: words.join("|"),
    range: "",
    parse(it) {
      const value = words.find((word) => word === it);
      return value === undefined ? { wrong: `is none of ${words.join(", ")}` } : { value };
    },
    show: (it) => it,
  };
}

/** Comma-separated texts; empty ones are dropped. */
export function list(placeholder = "A,B"): Kind<readonly string[]> {
  return {
    placeholder,
    range: "",
    parse: (it) => ({ value: Object.freeze(it.split(",").map((part) => part.trim()).filter((part) => part !== "")) }),
    show: (it) => it.join(","),
  };
}

/** Where a server listens: `host:port`, `[v6]:port` or `:port` (every address). Port 0 lets the system choose. */
export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

export function listenAddress(): Kind<ListenAddress> {
  return {
    placeholder: "HOST:PORT",
    range: "",
    parse(it) {
      const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]/\s]*)):(\d{1,5})$/.exec(it);
      if (match === null || Number(match[3]) > 65535) return { wrong: "is not HOST:PORT" };
      return { value: Object.freeze({ host: match[1] ?? (match[2] || "0.0.0.0"), port: Number(match[3]) }) };
    },
    show: (it) => it.host.includes(":") ? `[${it.host}]:${it.port}` : `${it.host}:${it.port}`,
  };
}

/** Makes a setting that may be absent of one that may not: the value is `undefined` unless given. */
export function optional<T>(kind: Kind<T>): Kind<T | undefined> {
  return { ...kind, show: (it) => it === undefined ? "" : kind.show(it) };
}

/** Ties a table to its command, e.g. `ambit istiod`. */
export function defineConfig<const T extends Table>(command: string, table: T, usage?: Usage): ConfigDefinition<T> {
  return new ConfigDefinition(command, table, usage);
}

/** A role's table with what is derived from it. */
export class ConfigDefinition<T extends Table> {
  readonly command: string;
  readonly table: T;
  readonly usage: Usage;
  readonly #keyByFlag: ReadonlyMap<string, string>;
  readonly #keyByShort: ReadonlyMap<string, string>;

  constructor(command: string, table: T, usage: Usage = {}) {
    this.command = command;
    this.table = table;
    this.usage = usage;
    const rows = Object.entries(table);
    this.#keyByFlag = new Map(rows.map(([key, setting]) => [setting.flag, key]));
    this.#keyByShort = new Map(rows.flatMap(([key, { short }]) => short === undefined ? [] : [[short, key]]));
  }

  /**
   * Reads flags (`--flag value`, `--flag=value`, `-f value`), then the environment, then what `below` knows of a variable that is not
   * set, then defaults. An empty variable counts as unset, unless the setting says otherwise.
   * @throws MeshError AMB0101 for what is not in the table, AMB0102 for a value out of range, AMB0103 for a missing one.
   */
  parse(
    args: readonly string[],
    env: (name: string) => string | undefined,
    below: (name: string) => Given | undefined = () => undefined,
  ): Parsed<T> {
    const { given, operands } = this.#readArguments(args);
    const config: Record<string, unknown> = {}, origins: Record<string, Origin> = {};
    for (const [key, setting] of Object.entries(this.table)) {
      const variable = this.#variableOf(setting, env);
      const raw = given.get(key) ?? (variable === undefined ? undefined : env(variable));
      const beneath = raw === undefined && setting.env !== undefined ? below(setting.env) : undefined;
      if (raw !== undefined || beneath !== undefined) {
        const origin = given.has(key) ? "flag" : raw !== undefined ? "environment" : beneath!.source;
        const result = setting.kind.parse(raw ?? beneath!.text);
        if ("wrong" in result) {
          throw this.#badValue({ ...setting, env: variable }, origin, raw ?? beneath!.text, result.wrong);
        }
        config[key] = result.value;
        origins[key] = origin;
      } else {
        if (!("default" in setting)) throw this.#missing(setting);
        config[key] = setting.default;
        origins[key] = "default";
      }
    }
    return Object.freeze({
      config: Object.freeze(config),
      origins: Object.freeze(origins),
      operands: Object.freeze(operands),
    }) as unknown as Parsed<T>;
  }

  /** Whether the arguments ask for help. */
  static wantsHelp(args: readonly string[]): boolean {
    return args.includes("--help") || args.includes("-h");
  }

  /** The text of `--help`: what it does, how to call it, and one block a setting. */
  help(summary: string): string {
    const { operands, examples = [] } = this.usage, hasFlags = Object.keys(this.table).length > 0;
    const call = [this.command, ...operands === undefined ? [] : [operands], ...hasFlags ? ["[flags]"] : []].join(" ");
    const lines = [summary, "", `Usage: ${call}`, ""];
    if (examples.length > 0) lines.push("Examples:", ...examples.map((example) => `  ${example}`), "");
    if (hasFlags) lines.push("Flags (each also as --flag=value):");
    for (const setting of Object.values(this.table)) {
      const { placeholder, range } = setting.kind;
      const short = setting.short === undefined ? "" : `-${setting.short}, `;
      lines.push(`  ${short}--${setting.flag}${placeholder === "" ? "" : ` ${placeholder}`}`, `      ${setting.help}`);
      const facts = [showDefault(setting)];
      if (range !== "" && placeholder !== "") facts.push(`range: ${range}`);
      const variables = [setting.env, setting.otherEnv].filter((it) => it !== undefined).join(" or ");
      if (variables !== "") facts.push(`environment: ${variables}`);
      lines.push(`      [${facts.join("; ")}]`);
    }
    return lines.join("\n") + "\n";
  }

  /** The settings that are not at their default, as facts for the log at start; secrets only as `set`. */
  changed(parsed: Parsed<T>): Record<string, string> {
    const facts: Record<string, string> = {};
    for (const [key, setting] of Object.entries(this.table)) {
      if (parsed.origins[key as keyof T] === "default") continue;
      const value = parsed.config[key as keyof T];
      facts[setting.flag] = `${setting.secret ? "set" : setting.kind.show(value)} (${parsed.origins[key as keyof T]})`;
    }
    return facts;
  }

  /** The variable that says something of the setting. */
  #variableOf(setting: Setting<unknown>, env: (name: string) => string | undefined): string | undefined {
    return [setting.env, setting.otherEnv].find((name) => {
      const value = name === undefined ? undefined : env(name);
      return value !== undefined && (value !== "" || setting.emptyCounts === true);
    });
  }

  #readArguments(args: readonly string[]): { given: Map<string, string>; operands: string[] } {
    const given = new Map<string, string>(), operands: string[] = [];
    for (let at = 0; at < args.length; at++) {
      const argument = args[at]!;
      if (argument === "--") {
        for (const operand of args.slice(at + 1)) operands.push(this.#operand(operand));
        break;
      }
      if (!argument.startsWith("-") || argument === "-") {
        operands.push(this.#operand(argument));
        continue;
      }
      const { key, value } = this.#flagOf(argument);
      const setting = this.table[key]!;
      if (given.has(key)) throw this.#badValue(setting, "flag", "", "is given twice");
      if (value !== undefined) given.set(key, value);
      else if (setting.kind.placeholder === "") given.set(key, "");
      else if (at + 1 < args.length) given.set(key, args[++at]!);
      else throw this.#badValue(setting, "flag", "", "has no value");
    }
    return { given, operands };
  }

  /** `--flag`, `--flag=value`, `-f`, `-f=value` or `-fvalue`. */
  #flagOf(argument: string): { readonly key: string; readonly value: string | undefined } {
    const [, flag, short, value] = /^(?:--([^=]*)|-([^-]))(?:=?([^]*))?$/.exec(argument) ?? [];
    const key = flag !== undefined ? this.#keyByFlag.get(flag) : this.#keyByShort.get(short ?? "");
    if (key === undefined) throw this.#unknown(argument);
    const hasValue = value !== undefined && argument !== `--${flag}` && argument !== `-${short}`;
    return { key, value: hasValue ? value : undefined };
  }

  #operand(argument: string): string {
    if (this.usage.operands !== undefined) return argument;
    const isSwitched = argument === "true" || argument === "false";
    throw new MeshError("AMB0104", `${this.command} takes no argument ${JSON.stringify(argument.slice(0, 100))}`, {
      remedy: isSwitched
        ? `write a switch's value behind an equals sign, as --flag=${argument}`
        : `run ${this.command} --help for the flags there are`,
    });
  }

  #unknown(argument: string): MeshError {
    const flag = argument.replace(/^--?/, "").replace(/=.*$/s, "");
    const near = nearest(flag, this.#keyByFlag.keys());
    return new MeshError("AMB0101", `${this.command} knows no ${argument}`, {
      remedy: near === undefined ? `run ${this.command} --help for the flags there are` : `did you mean --${near}?`,
    });
  }

  #missing(setting: Setting<unknown>): MeshError {
    const orEnv = setting.env === undefined ? "" : ` or environment variable ${setting.env}`;
    return new MeshError("AMB0103", `${this.command} needs --${setting.flag}: ${setting.help}`, {
      remedy: `give --${setting.flag} ${setting.kind.placeholder}${orEnv}`,
    });
  }

  #badValue(setting: Setting<unknown>, origin: Origin, raw: string, wrong: string): MeshError {
    const shown = setting.secret ? "" : raw.slice(0, 100);
    const quoted = shown === "" ? "" : ` ${JSON.stringify(shown)}`;
    const what = origin === "environment"
      ? `invalid env var ${setting.env}=${setting.secret ? "…" : shown} (${wrong})` // The form of ZT-008.
      : `${origin === "flag" ? `--${setting.flag}` : origin}${quoted} ${wrong}`;
    const { placeholder, range } = setting.kind;
    return new MeshError("AMB0102", `${what}`, {
      remedy: `give ${range === "" ? placeholder : range}: ${setting.help}`,
    });
  }
}

function showDefault(setting: Setting<unknown>): string {
  if (setting.defaultText !== undefined) return `default: ${setting.defaultText}`;
  if (!("default" in setting)) return "required";
  return `default: ${setting.default === undefined ? "none" : setting.kind.show(setting.default) || "empty"}`;
}
