/** What another backend left in a pod: tables of nf_tables, chains of iptables of either variant (CNI-144). */
import type { Logger } from "../../base/log.ts";
import { legacyTableNames } from "../../os/legacy_tables.ts";
import { foreignChains, removeForeignChains } from "../../os/netlink/nft_foreign.ts";
import { FirewallSocket } from "../../os/netlink/nftables.ts";
import type { Netns } from "../../os/netns.ts";
import { TABLE_NAMES } from "../nft_rules.ts";
import { OWN_PREFIX } from "./iptables_rules.ts";
import { parseSaved, removalCommands, type SavedState } from "./iptables_state.ts";
import { exchangeText } from "./iptables_text.ts";
import type { ProgramRunner } from "./programs.ts";

/** What a pod's rules are written with: everything written with another means is residue. */
export type Means = "tables" | "nft" | "legacy";

export const LEGACY_PROGRAMS = { ipv4: "iptables-legacy", ipv6: "ip6tables-legacy" } as const;
const FAMILIES = ["ipv4", "ipv6"] as const;

export class Residue {
  readonly #kept: Means;
  readonly #runner: ProgramRunner | undefined;
  readonly #log: Logger;

  constructor(kept: Means, { runner, log }: { readonly runner?: ProgramRunner; readonly log: Logger }) {
    this.#kept = kept;
    this.#runner = runner;
    this.#log = log;
  }

  /** In words; nothing when there is none. What old iptables has is looked at only where the kernel says that it has anything. */
  async list(netns: Netns): Promise<string[]> {
    const chains = this.#kept === "nft" ? [] : foreignChains(netns, OWN_PREFIX);
    const legacy = await this.#legacy(netns);
    return [
      ...this.#tables(netns).map((name) => `table inet ${name} should not be there`),
      ...chains.map(({ table, chain }) => `chain ${table} ${chain} of iptables for nf_tables should not be there`),
      ...legacy.map(({ program }) => `rules of ${program} should not be there`),
    ];
  }

  /** To be called once the rules that stay are in place: at no time is there nothing. */
  async remove(netns: Netns): Promise<void> {
    using own = netns.duplicate();
    const tables = this.#tables(netns);
    if (tables.length > 0) {
      using firewall = FirewallSocket.open(netns);
      firewall.deleteTables(tables);
    }
    if (this.#kept !== "nft") removeForeignChains(netns, OWN_PREFIX);
    for (const { program, state } of await this.#legacy(netns)) {
      const text = exchangeText([], removalCommands(state));
      // The namespace's own lock, as for our own rules: a container may not write where the usual one is (CNI-141).
      const env = { XTABLES_LOCKFILE: `/proc/${Deno.pid}/fd/${own.fd}` };
      const outcome = await this.#runner!.run(own, `${program}-restore`, ["--noflush"], { input: text, env });
      if (outcome?.code !== 0) {
        this.#log.warn("rules of old iptables are left", { program, error: outcome?.stderr ?? "" });
      }
    }
  }

  #tables(netns: Netns): string[] {
    if (this.#kept === "tables") return [];
    using firewall = FirewallSocket.open(netns);
    const ours: readonly string[] = Object.values(TABLE_NAMES);
    return firewall.tableNames().filter((name) => ours.includes(name));
  }

  async #legacy(netns: Netns): Promise<{ program: string; state: SavedState }[]> {
    if (this.#kept === "legacy") return [];
    using own = netns.duplicate(); // The caller's may be closed while a program runs.
    const found: { program: string; state: SavedState }[] = [];
    for (const family of FAMILIES) {
      if (legacyTableNames(own, family).length === 0) continue;
      const program = LEGACY_PROGRAMS[family], saved = await this.#runner?.run(own, `${program}-save`, []);
      if (saved?.code !== 0) {
        this.#log.warn("tables of old iptables cannot be looked at", { program, netnsInode: own.inode });
        continue;
      }
      const state = parseSaved(saved.stdout);
      if (removalCommands(state).size > 0) found.push({ program, state });
    }
    return found;
  }
}
