/** Redirection by the program nft: the same tables as over netlink, written as text (CNI-130, CNI-144). */
import { MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { FirewallTable } from "../../os/netlink/nft_model.ts";
import { FirewallSocket } from "../../os/netlink/nftables.ts";
import { createAnonymousNetns, type Netns } from "../../os/netns.ts";
import { leavingTable, type ProbeSource, redirectionTables, TABLE_NAMES, unusedTableNames } from "../nft_rules.ts";
import { renderDeletionText, renderNftText } from "../nft_text.ts";
import { NftProbes } from "./nft_probes.ts";
import { addPolicyRoutes, deletePolicyRoutes, hasIpv6, missingPolicyRoutes } from "./policy_routes.ts";
import type { ProgramOutcome, ProgramRunner } from "./programs.ts";
import type { Candidate, NodeProbes, PodRuleOptions, Redirection } from "./redirection.ts";
import { Residue } from "./residue.ts";

export interface NftOptions {
  readonly runner: ProgramRunner;
  readonly log: Logger;
  readonly probe?: ProbeSource;
}

export class NftBinaryRedirection implements Redirection {
  readonly name = "nft-binary";
  readonly #runner: ProgramRunner;
  readonly #residue: Residue;
  readonly #probe: ProbeSource | undefined;
  /** What nft lists of given tables, by the text that makes them. */
  readonly #expected = new Map<string, string>();

  constructor(options: NftOptions) {
    this.#runner = options.runner;
    this.#probe = options.probe;
    this.#residue = new Residue("tables", options);
  }

  async apply(netns: Netns, options: PodRuleOptions): Promise<void> {
    using own = netns.duplicate();
    const tables = redirectionTables({ ...options, ipv6: hasIpv6(own, options) });
    const unused = present(own, unusedTableNames(tables));
    await runNft(this.#runner, own, renderNftText(tables) + renderDeletionText(unused));
    await this.#residue.remove(own);
    addPolicyRoutes(own, options);
  }

  async release(netns: Netns): Promise<void> {
    using own = netns.duplicate();
    await runNft(this.#runner, own, renderNftText([leavingTable()]));
  }

  async remove(netns: Netns): Promise<void> {
    using own = netns.duplicate();
    const names = present(own, Object.values(TABLE_NAMES));
    if (names.length > 0) await runNft(this.#runner, own, renderDeletionText(names));
    await this.#residue.remove(own);
    deletePolicyRoutes(own);
  }

  async check(netns: Netns, options: PodRuleOptions): Promise<string[]> {
    using own = netns.duplicate();
    const tables = redirectionTables({ ...options, ipv6: hasIpv6(own, options) });
    const expected = await this.#listingOf(tables), differences: string[] = [];
    for (const name of Object.values(TABLE_NAMES)) {
      const found = await listTable(this.#runner, own, name), wanted = expected.get(name);
      if (found === wanted) continue;
      if (found === undefined) differences.push(`table ${name} is missing`);
      else differences.push(`table ${name} ${wanted === undefined ? "should not be there" : "is different"}`);
    }
    return [...differences, ...await this.#residue.list(own), ...missingPolicyRoutes(own, options)];
  }

  openNode(netns?: Netns): NodeProbes {
    return new NftProbes(netns, this.#runner, this.#probe);
  }

  [Symbol.dispose](): void {
    this.#runner[Symbol.dispose]();
  }

  /** What nft lists of the tables, by table: found out once, in a namespace that is thrown away. */
  async #listingOf(tables: readonly FirewallTable[]): Promise<Map<string, string>> {
    const listing = new Map<string, string>(),
      missing = tables.filter((it) => !this.#expected.has(renderNftText([it])));
    if (missing.length > 0) {
      using scratch = createAnonymousNetns();
      await runNft(this.#runner, scratch, renderNftText(missing));
      for (const table of missing) {
        this.#expected.set(renderNftText([table]), await listTable(this.#runner, scratch, table.name) ?? "");
      }
    }
    for (const table of tables) listing.set(table.name, this.#expected.get(renderNftText([table]))!);
    return listing;
  }
}

export function nftBinaryCandidate(options: NftOptions): Candidate {
  return {
    name: "nft-binary",
    async missing() {
      const shown = await options.runner.run(undefined, "nft", ["--version"]);
      if (shown === undefined) return ["nft is not installed"];
      try {
        using scratch = createAnonymousNetns();
        await runNft(options.runner, scratch, renderNftText(redirectionTables({ ipv6: true, dnsCapture: true })));
        return [];
      } catch (error) {
        if (!(error instanceof MeshError)) throw error;
        return [error.message];
      }
    },
    open: () => new NftBinaryRedirection(options),
  };
}

/** Those of the tables that are there: after a deletion the kernel lets nobody go before it has waited for all readers. */
function present(netns: Netns, names: readonly string[]): string[] {
  using firewall = FirewallSocket.open(netns);
  const there = firewall.tableNames();
  return names.filter((name) => there.includes(name));
}

/** One transaction. Throws AMB7144. */
export async function runNft(runner: ProgramRunner, netns: Netns | undefined, input: string): Promise<string> {
  const outcome = await runner.run(netns, "nft", ["-f", "-"], { input });
  if (outcome?.code === 0) return outcome.stdout;
  throw failed(outcome);
}

/** A table without its counters, as nft prints it. @returns undefined when there is none. */
async function listTable(runner: ProgramRunner, netns: Netns, name: string): Promise<string | undefined> {
  const outcome = await runner.run(netns, "nft", ["-n", "-s", "list", "table", "inet", name]);
  if (outcome === undefined) throw failed(outcome);
  return outcome.code === 0 ? outcome.stdout : undefined;
}

function failed(outcome: ProgramOutcome | undefined): MeshError {
  const why = outcome === undefined ? "it is not installed" : outcome.stderr.trim().split("\n")[0]!.slice(0, 500);
  return new MeshError("AMB7144", `nft did not take the rules: ${why}`, {
    remedy: "See what it says; `ambit cni render --backend nft` shows the text. --redirect=nft needs no program.",
  });
}
