/** What another backend left on the node for its probes: chains of iptables of either variant, and its sets (CNI-144). */
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { legacyTableNames } from "../../os/legacy_tables.ts";
import { removeForeignChains } from "../../os/netlink/nft_foreign.ts";
import { type Netns, ownNetns } from "../../os/netns.ts";
import { NODE_CHAIN } from "./iptables_rules.ts";
import { onlyChain, parseSaved, removalCommands } from "./iptables_state.ts";
import { exchangeText } from "./iptables_text.ts";
import { Ipset } from "./ipset.ts";
import type { ProgramRunner } from "./programs.ts";
import type { BackendName } from "./redirection.ts";
import { LEGACY_PROGRAMS } from "./residue.ts";

const FAMILIES = ["ipv4", "ipv6"] as const;

export interface NodeResidueOptions {
  readonly kept: BackendName;
  readonly runner: ProgramRunner;
  /** What legacy programs of the node lock, as this process sees it. */
  readonly nodeLock: string | undefined;
  readonly log: Logger;
}

/**
 * To be called once the node's probes pass by the rules that stay. Tables of nf_tables are taken over or removed by whose
 * rules stay; what cannot be removed is told of, and hurts nobody: it does what ours do.
 */
export async function removeNodeResidue(host: Netns | undefined, options: NodeResidueOptions): Promise<void> {
  const { kept, runner, log } = options;
  try {
    using own = host?.duplicate() ?? ownNetns();
    if (kept !== "iptables-nft") removeForeignChains(own, NODE_CHAIN);
    if (kept !== "iptables-legacy") { for (const family of FAMILIES) await removeLegacy(own, family, options); }
    if (kept.startsWith("iptables-")) return;
    const sets = new Ipset(host, runner);
    for (const family of FAMILIES) await sets.destroy(family);
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    log.warn("what another means of redirection left on the node stays", { error: chain(error) });
  }
}

async function removeLegacy(
  host: Netns,
  family: typeof FAMILIES[number],
  { runner, nodeLock, log }: NodeResidueOptions,
): Promise<void> {
  if (legacyTableNames(host, family).length === 0) return;
  const program = LEGACY_PROGRAMS[family], saved = await runner.run(host, `${program}-save`, []);
  if (saved?.code !== 0) return; // Without the program nobody of ours wrote by it either.
  const commands = removalCommands(onlyChain(parseSaved(saved.stdout), NODE_CHAIN));
  if (commands.size === 0) return;
  const env = nodeLock === undefined ? undefined : { XTABLES_LOCKFILE: nodeLock };
  const input = exchangeText([], commands);
  const outcome = await runner.run(host, `${program}-restore`, ["--noflush", "--wait=30"], {
    input,
    ...env && { env },
  });
  if (outcome?.code !== 0) {
    log.warn("rules of old iptables are left on the node", { program, error: outcome?.stderr ?? "" });
  }
}
