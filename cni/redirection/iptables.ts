/** Redirection by iptables' programs, of either variant: written into a clean namespace at once, exchanged behind guardrails where something else stands (CNI-134 to CNI-138). */
import type { Logger } from "../../base/log.ts";
import type { IpFamily } from "../../os/netlink/nft_model.ts";
import type { Netns } from "../../os/netns.ts";
import type { ProbeSource } from "../nft_rules.ts";
import type { IptablesProgram, Variant } from "./iptables_program.ts";
import { type IptablesRule, podRules } from "./iptables_rules.ts";
import { guardrailCommands, isGuarded } from "./guardrails.ts";
import {
  differencesOf,
  hasResidue,
  parseSaved,
  releaseCommands,
  removalCommands,
  type SavedState,
} from "./iptables_state.ts";
import { exchangeText, restoreText } from "./iptables_text.ts";
import { IptablesProbes } from "./iptables_probes.ts";
import { addPolicyRoutes, deletePolicyRoutes, hasIpv6, kernelFamilies, missingPolicyRoutes } from "./policy_routes.ts";
import type { ProgramRunner } from "./programs.ts";
import { Residue } from "./residue.ts";
import type { NodeProbes, PodRuleOptions, Redirection } from "./redirection.ts";

/** The programs of each family; a family whose program is absent is not written (CNI-139). */
export type IptablesPrograms = Readonly<Record<IpFamily, IptablesProgram | undefined>>;

export interface IptablesOptions {
  readonly programs: IptablesPrograms;
  readonly runner: ProgramRunner;
  /** Whether rules that differ are exchanged behind guardrails; else without, and with a warning (CNI-135, CNI-138). */
  readonly reconcile: boolean;
  readonly log: Logger;
  readonly probe?: ProbeSource;
}

export class IptablesRedirection implements Redirection {
  readonly name: "iptables-nft" | "iptables-legacy";
  readonly #options: IptablesOptions;
  readonly #residue: Residue;

  constructor(variant: Variant, options: IptablesOptions) {
    this.name = `iptables-${variant}`;
    this.#options = options;
    this.#residue = new Residue(variant, options);
  }

  async apply(netns: Netns, options: PodRuleOptions): Promise<void> {
    using own = netns.duplicate(); // The caller's may be closed while a program runs.
    const ipv6 = hasIpv6(own, options);
    addPolicyRoutes(own, options); // Before the rules, which need them.
    for (const program of this.#programs(own, ipv6)) {
      await this.#write(own, program, podRules({ ...options, ipv6 }, program.family));
    }
    await this.#residue.remove(own);
  }

  async release(netns: Netns): Promise<void> {
    using own = netns.duplicate();
    for (const program of this.#programs(own, true)) {
      const commands = releaseCommands(parseSaved(await program.save(own)));
      if (commands.length > 0) await program.restore(own, exchangeText([], new Map([["nat", commands]])));
    }
  }

  async remove(netns: Netns): Promise<void> {
    using own = netns.duplicate();
    for (const program of this.#programs(own, true)) await remove(own, program);
    await this.#residue.remove(own);
    deletePolicyRoutes(own);
  }

  async check(netns: Netns, options: PodRuleOptions): Promise<string[]> {
    using own = netns.duplicate();
    const ipv6 = hasIpv6(own, options), differences: string[] = [];
    for (const program of this.#programs(own, ipv6)) {
      differences.push(...await differencesIn(own, program, podRules({ ...options, ipv6 }, program.family)));
    }
    return [...differences, ...await this.#residue.list(own), ...missingPolicyRoutes(own, options)];
  }

  openNode(netns?: Netns): NodeProbes {
    return new IptablesProbes(netns, this.#options);
  }

  [Symbol.dispose](): void {
    this.#options.runner[Symbol.dispose]();
  }

  /** Clean: written. The same: left alone. Else exchanged, each table at once, with nothing let through meanwhile (CNI-135). */
  async #write(netns: Netns, program: IptablesProgram, rules: readonly IptablesRule[]): Promise<void> {
    const state = parseSaved(await program.save(netns));
    if (!hasResidue(state)) return await program.restore(netns, restoreText(rules));
    const differences = await differencesIn(netns, program, rules, state);
    if (differences.length === 0) return;
    const { reconcile, log } = this.#options;
    const facts = { netnsInode: netns.inode, differences: differences.join("; ") };
    const exchange = () => program.restore(netns, exchangeText(rules, removalCommands(state)));
    if (!reconcile) {
      log.warn("rules differ and are exchanged without guardrails", facts);
      await exchange();
    } else {
      log.info("rules are exchanged", facts);
      if (!isGuarded(state)) await program.restore(netns, guardrailCommands("put")); // Else those of an exchange that was cut off stand.
      await exchange();
    }
    if (reconcile || isGuarded(state)) await program.restore(netns, guardrailCommands("take"));
  }

  /** The programs for a namespace; those of IPv6 where it is wanted and there. */
  #programs(netns: Netns, ipv6: boolean): IptablesProgram[] {
    const { programs } = this.#options, families = ipv6 ? kernelFamilies(netns) : ["ipv4"] as const;
    return families.map((family) => programs[family]).filter((it) => it !== undefined);
  }
}

async function remove(netns: Netns, program: IptablesProgram): Promise<void> {
  const state = parseSaved(await program.save(netns)), commands = removalCommands(state);
  if (commands.size > 0) await program.restore(netns, exchangeText([], commands));
  if (isGuarded(state)) await program.restore(netns, guardrailCommands("take"));
}

/** By the listing; what is only spelled in another way there is asked for one by one. */
async function differencesIn(
  netns: Netns,
  program: IptablesProgram,
  rules: readonly IptablesRule[],
  saved?: SavedState,
): Promise<string[]> {
  const state = saved ?? parseSaved(await program.save(netns));
  const { different, doubtful } = differencesOf(state, rules, program.family);
  const differences = [...different];
  if (isGuarded(state)) differences.push(`${program.name} still holds everything back: an exchange was cut off`);
  if (differences.length > 0 && saved !== undefined) return differences; // It will be written anew: no need to ask.
  for (const { table, chain, args } of doubtful) {
    if (await program.has(netns, table, chain, args)) continue;
    differences.push(`${program.name} rule "${args.join(" ")}" of ${table} ${chain} is missing or different`);
  }
  return differences;
}
