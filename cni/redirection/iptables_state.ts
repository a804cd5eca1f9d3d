/** What `iptables-save` tells: which chains and rules are ours, what differs from the plan, and what takes it out (CNI-134, CNI-137). Pure. */
import type { IpFamily } from "../../os/netlink/nft_model.ts";
import { type IptablesRule, type IptablesTable, OWN_PREFIX, TABLES } from "./iptables_rules.ts";
import { ownChains, savedForm } from "./iptables_text.ts";

/** The rules of each chain, as lines `-A CHAIN …`, in their order. */
export type SavedChains = ReadonlyMap<string, readonly string[]>;
export type SavedState = ReadonlyMap<IptablesTable, SavedChains>;

const SAVED_BYTES_MAX = 4 * 1024 * 1024; // What a pod's rules come to is a thousandth of it.
/** What a jump looks like, whoever wrote it. */
const JUMP = new RegExp(` -[jg] ${OWN_PREFIX}\\S*( |$)`);

/** Tables that we do not look at are passed over. */
export function parseSaved(text: string): SavedState {
  const state = new Map<IptablesTable, Map<string, string[]>>();
  let chains: Map<string, string[]> | undefined;
  for (const line of text.slice(0, SAVED_BYTES_MAX).split("\n")) {
    if (line.startsWith("*")) {
      const table = TABLES.find((it) => it === line.slice(1).trim());
      chains = table === undefined ? undefined : new Map();
      if (table !== undefined && chains !== undefined) state.set(table, chains);
    } else if (line.startsWith(":")) chains?.set(line.slice(1).split(" ")[0]!, []);
    else if (line.startsWith("-A ")) chains?.get(line.split(" ")[1]!)?.push(line);
  }
  return state;
}

const isOwn = (chain: string) => chain.startsWith(OWN_PREFIX);

/** Whether there is a chain of ours, or a jump to one. */
export function hasResidue(state: SavedState): boolean {
  return removalCommands(state).size > 0;
}

/**
 * What differs from the planned rules, in words, as far as the listing tells. A rule of a chain with as many rules as
 * planned that is spelled in another way may still be the same: those are returned apart, to be asked with `-C`.
 */
export function differencesOf(
  state: SavedState,
  planned: readonly IptablesRule[],
  family: IpFamily,
): { readonly different: string[]; readonly doubtful: IptablesRule[] } {
  const different: string[] = [], doubtful: IptablesRule[] = [];
  const name = family === "ipv4" ? "iptables" : "ip6tables";
  for (const table of TABLES) {
    const chains = state.get(table), rules = planned.filter((rule) => rule.table === table), wanted = ownChains(rules);
    if (rules.length > 0 && chains === undefined) {
      different.push(`${name} table ${table} is missing`);
      continue;
    }
    for (const chain of wanted) {
      const found = chains?.get(chain), expected = rules.filter((rule) => rule.chain === chain);
      if (found === undefined) different.push(`${name} chain ${table} ${chain} is missing`);
      else if (found.length !== expected.length) {
        different.push(`${name} chain ${table} ${chain} has ${found.length} rules, not ${expected.length}`);
      } else doubtful.push(...expected.filter((rule, at) => savedForm(rule, family) !== found[at]));
    }
    for (const chain of chains?.keys() ?? []) {
      if (isOwn(chain) && !wanted.includes(chain)) {
        different.push(`${name} chain ${table} ${chain} should not be there`);
      }
    }
    for (const rule of rules.filter(({ chain }) => !isOwn(chain))) {
      const found = chains?.get(rule.chain) ?? [], at = found.indexOf(savedForm(rule, family));
      if (at < 0) doubtful.push(rule);
      else if (rule.insertAt !== undefined && at !== rule.insertAt - 1) {
        different.push(
          `${name} rule "${savedForm(rule, family)}" of ${table} stands at ${at + 1}, not ${rule.insertAt}`,
        );
      }
    }
  }
  return { different, doubtful };
}

/** The state with only one chain of ours in it, as if there were no other: on the node no other is touched. */
export function onlyChain(state: SavedState, name: string): SavedState {
  const others = (line: string) => JUMP.test(line) && !line.endsWith(` ${name}`);
  return new Map([...state].map(([table, chains]) => [
    table,
    new Map(
      [...chains].filter(([chain]) => chain === name || !isOwn(chain))
        .map(([chain, rules]) => [chain, rules.filter((rule) => !others(rule))]),
    ),
  ]));
}

/** For each table that has something of ours: jumps out, then chains emptied and deleted (CNI-137). */
export function removalCommands(state: SavedState): Map<IptablesTable, string[]> {
  const commands = new Map<IptablesTable, string[]>();
  for (const [table, chains] of state) {
    const own = [...chains.keys()].filter(isOwn);
    const jumps = [...chains].filter(([chain]) => !isOwn(chain))
      .flatMap(([, rules]) => rules.filter((rule) => JUMP.test(rule)).map((rule) => rule.replace(/^-A/, "-D")));
    const steps = [...jumps, ...own.map((chain) => `-F ${chain}`), ...own.map((chain) => `-X ${chain}`)];
    if (steps.length > 0) commands.set(table, steps);
  }
  return commands;
}

/** Ends capture and nothing else: the jumps of the nat table go (CNI-278). */
export function releaseCommands(state: SavedState): string[] {
  return (removalCommands(state).get("nat") ?? []).filter((command) => command.startsWith("-D "));
}
