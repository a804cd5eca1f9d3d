/** iptables rules as the text that `iptables-restore --noflush` reads, and as `iptables-save` prints them (CNI-123). Pure. */
import type { IpFamily } from "../../os/netlink/nft_model.ts";
import { type IptablesRule, type IptablesTable, OWN_PREFIX } from "./iptables_rules.ts";

/** Tables by name; in each the new chains first, those with rules before those only jumped to, then the rules. */
export function restoreText(rules: readonly IptablesRule[]): string {
  return tablesOf(rules).map((table) => tableText(table, rules, [])).join("");
}

/** As {@link restoreText}, with commands for each table that are carried out first, in the same commit. */
export function exchangeText(
  rules: readonly IptablesRule[],
  before: ReadonlyMap<IptablesTable, readonly string[]>,
): string {
  const names = new Set([...tablesOf(rules), ...before.keys()]);
  return [...names].sort().map((table) => tableText(table, rules, before.get(table) ?? [])).join("");
}

function tablesOf(rules: readonly IptablesRule[]): IptablesTable[] {
  return [...new Set(rules.map(({ table }) => table))].sort();
}

function tableText(table: IptablesTable, all: readonly IptablesRule[], before: readonly string[]): string {
  const rules = all.filter((rule) => rule.table === table);
  const chains = ownChains(rules).map((chain) => `-N ${chain}`);
  return [`* ${table}`, ...before, ...chains, ...rules.map(commandOf), "COMMIT", ""].join("\n");
}

/** The chains of ours that rules fill or jump to. */
export function ownChains(rules: readonly IptablesRule[]): string[] {
  const targets = rules.map(({ args }) => args[args.indexOf("-j") + 1]!);
  return [...new Set([...rules.map(({ chain }) => chain), ...targets])].filter((it) => it.startsWith(OWN_PREFIX));
}

export function commandOf({ chain, args, insertAt }: IptablesRule): string {
  return insertAt === undefined ? `-A ${chain} ${args.join(" ")}` : `-I ${chain} ${insertAt} ${args.join(" ")}`;
}

/** How `iptables-save` prints a rule of ours: lengths of prefixes and the protocol's own match are spelled out. */
export function savedForm({ chain, args }: IptablesRule, family: IpFamily): string {
  const length = family === "ipv4" ? "/32" : "/128";
  const text = args.join(" ")
    .replace(/-([sd]) ([^ /]+)(?= |$)/, (_, side, address) => `-${side} ${address}${length}`)
    .replace(/-p tcp (!? ?--dport|--tcp-flags)/, "-p tcp -m tcp $1")
    .replace("--to-port ", "--to-ports ");
  return `-A ${chain} ${text}`;
}
