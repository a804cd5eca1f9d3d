/** One of iptables' variants as this machine has it: which program, which version, and how it is run (CNI-139 to CNI-142). */
import { MeshError } from "../../base/errors.ts";
import type { IpFamily } from "../../os/netlink/nft_model.ts";
import type { Netns } from "../../os/netns.ts";
import type { ProgramOutcome, ProgramRunner } from "./programs.ts";

export type Variant = "nft" | "legacy";

/** A version as its numbers. */
type Version = readonly number[];
const WITHOUT_VERSION: Version = [0, 0, 0]; // So old that it does not know --version.
const LOCKS_SINCE: Version = [1, 6, 2], LOCK_FILE_SINCE: Version = [1, 8, 6];
const LOCK_WAIT = "--wait=30";
/** No packet has this protocol: a rule that matches nothing (CNI-140). */
const TRIAL_RULE = ["INPUT", "-p", "255", "-j", "RETURN"];
/** Fewer lines hold no rule. */
const RULES_LINES_MIN = 3;
const BASE: Readonly<Record<IpFamily, string>> = { ipv4: "iptables", ipv6: "ip6tables" };
/** What iptables means by how it exits (CNI-142). */
const PROBLEMS: Readonly<Record<number, string>> = {
  1: "other problem",
  2: "parameter problem",
  3: "version problem",
  4: "resource problem",
};

export interface FindOptions {
  readonly runner: ProgramRunner;
  /** Only the program with the variant in its name. */
  readonly strict: boolean;
  /** The namespace to try it in; absent: this process's own, the host's. */
  readonly host?: Netns;
  /** The file that legacy programs of the node lock, as this process sees it; absent: where they look for it themselves. */
  readonly nodeLock?: string;
}

export interface Detected {
  readonly program: IptablesProgram;
  /** Whether the namespace looked at has rules of this variant. */
  readonly hasRules: boolean;
}

/** `save`, `restore` and single commands of one program, in any namespace. */
export class IptablesProgram {
  readonly name: string;
  readonly variant: Variant;
  readonly family: IpFamily;
  readonly #version: Version;
  readonly #runner: ProgramRunner;
  readonly #host: Netns | undefined;
  readonly #nodeLock: string | undefined;

  private constructor(
    name: string,
    family: IpFamily,
    found: { variant: Variant; version: Version },
    { runner, host, nodeLock }: Omit<FindOptions, "strict">,
  ) {
    this.name = name;
    this.family = family;
    this.variant = found.variant;
    this.#version = found.version;
    this.#runner = runner;
    this.#host = host;
    this.#nodeLock = nodeLock;
  }

  /**
   * Tries `iptables-VARIANT`, then, unless `strict`, plain `iptables` if it is of that variant.
   * @returns What is missing, as a phrase, when neither can be used.
   */
  static async find(
    variant: Variant,
    family: IpFamily,
    { strict, ...place }: FindOptions,
  ): Promise<Detected | { readonly missing: string }> {
    const own = await IptablesProgram.#try(`${BASE[family]}-${variant}`, family, place);
    if ("program" in own && own.program.variant === variant || strict) return own;
    const plain = await IptablesProgram.#try(BASE[family], family, place);
    return "program" in plain && plain.program.variant === variant ? plain : own;
  }

  static async #try(
    name: string,
    family: IpFamily,
    { runner, host, nodeLock }: Omit<FindOptions, "strict">,
  ): Promise<Detected | { readonly missing: string }> {
    const saved = await runner.run(host, `${name}-save`, []);
    if (saved === undefined) return { missing: `${name}-save is not installed` };
    if (saved.code !== 0) return { missing: `${name}-save fails: ${firstLine(saved.stderr)}` };
    const shown = await runner.run(host, `${name}-save`, ["--version"]);
    const found = shown && readVersion(shown);
    if (found === undefined) return { missing: `${name}-save tells no version` };
    const program = new IptablesProgram(name, family, found, { runner, host, nodeLock });
    const tried = await program.#tryRule(host);
    return tried ?? { program, hasRules: saved.stdout.split("\n").length > RULES_LINES_MIN };
  }

  /** The rules as text; a listing that fails counts as empty (CNI-134). */
  async save(netns: Netns | undefined): Promise<string> {
    const outcome = await this.#runner.run(netns, `${this.name}-save`, []);
    return outcome?.code === 0 ? outcome.stdout : "";
  }

  /** Carries out the text, each table at once. Throws AMB7142. */
  async restore(netns: Netns | undefined, text: string): Promise<void> {
    const outcome = await this.#write(netns, `${this.name}-restore`, ["--noflush"], text);
    if (outcome?.code !== 0) throw failed(`${this.name}-restore`, outcome);
  }

  /** Whether the rule is there: a single command, `-C`. */
  async has(netns: Netns | undefined, table: string, chain: string, args: readonly string[]): Promise<boolean> {
    const outcome = await this.#write(netns, this.name, ["-t", table, "-C", chain, ...args]);
    return outcome?.code === 0;
  }

  async #tryRule(host: Netns | undefined): Promise<{ readonly missing: string } | undefined> {
    const added = await this.#write(host, this.name, ["-t", "nat", "-A", ...TRIAL_RULE]);
    if (added === undefined) return { missing: `${this.name} is not installed` };
    if (added.code !== 0 || added.stderr.includes("does not exist")) {
      return { missing: `${this.name} finds no support in the kernel: ${firstLine(added.stderr)}` };
    }
    const deleted = await this.#write(host, this.name, ["-t", "nat", "-D", ...TRIAL_RULE]);
    return deleted?.code === 0 ? undefined : { missing: `${this.name} cannot delete what it added` };
  }

  /**
   * Legacy takes a lock. In a pod it is the namespace's own, where it can be told, so that no other pod and no one on the
   * node is waited for; on the node it is the one that others there wait for, too, or each would undo what the other wrote.
   */
  async #write(
    netns: Netns | undefined,
    program: string,
    args: readonly string[],
    input?: string,
  ): Promise<ProgramOutcome | undefined> {
    if (this.variant !== "legacy" || !isAtLeast(this.#version, LOCKS_SINCE)) {
      return await this.#runner.run(netns, program, args, { input });
    }
    const told = isAtLeast(this.#version, LOCK_FILE_SINCE);
    const onNode = netns === undefined || this.#nodeLock !== undefined && this.#host?.equals(netns) === true;
    using kept = told && !onNode ? netns.duplicate() : undefined; // Its path must stand as long as the program runs.
    const ofNode = told && onNode ? this.#nodeLock : undefined;
    const file = kept === undefined ? ofNode : `/proc/${Deno.pid}/fd/${kept.fd}`;
    const env = file === undefined ? undefined : { XTABLES_LOCKFILE: file };
    return await this.#runner.run(netns, program, [...args, LOCK_WAIT], { input, ...env && { env } });
  }
}

/** @returns undefined when there is no version in it. Exported for its test. */
export function readVersion({ stdout, stderr }: ProgramOutcome): { variant: Variant; version: Version } | undefined {
  if (stderr.includes("unrecognized option")) return { variant: "legacy", version: WITHOUT_VERSION };
  const numbers = /v(\d+(?:\.\d+)+)/.exec(stdout)?.[1];
  if (numbers === undefined) return undefined;
  return { variant: stdout.includes("nf_tables") ? "nft" : "legacy", version: numbers.split(".").map(Number) };
}

/** Exported for its test. */
export function isAtLeast(version: Version, least: Version): boolean {
  const at = least.findIndex((number, index) => (version[index] ?? 0) !== number);
  return at < 0 || (version[at] ?? 0) > least[at]!;
}

function failed(program: string, outcome: ProgramOutcome | undefined): MeshError {
  const why = outcome === undefined
    ? "it is not installed"
    : `${PROBLEMS[outcome.code] ?? `status ${outcome.code}`}: ${firstLine(outcome.stderr)}`;
  return new MeshError("AMB7142", `${program} did not take the rules: ${why}`, {
    remedy:
      "See what it says; a resource problem passes, for the rest `ambit cni render` shows the text that it was given.",
  });
}

const firstLine = (text: string) => text.trim().split("\n")[0]!.slice(0, 500);
