/** The node's side by iptables and ipset (CNI-181, CNI-182, CNI-185). */
import { parseIp } from "../../base/address.ts";
import type { IpFamily } from "../../os/netlink/nft_model.ts";
import { FirewallSocket } from "../../os/netlink/nftables.ts";
import type { Netns } from "../../os/netns.ts";
import { type ProbeSource, TABLE_NAMES } from "../nft_rules.ts";
import type { IptablesProgram } from "./iptables_program.ts";
import { NODE_CHAIN, nodeRules, PROBE_SETS } from "./iptables_rules.ts";
import { differencesOf, onlyChain, parseSaved, removalCommands, type SavedState } from "./iptables_state.ts";
import { exchangeText } from "./iptables_text.ts";
import { Ipset } from "./ipset.ts";
import type { ProgramRunner } from "./programs.ts";
import type { NodeProbes, ProbedAddress } from "./redirection.ts";

export interface ProbesOptions {
  readonly programs: Readonly<Record<IpFamily, IptablesProgram | undefined>>;
  readonly runner: ProgramRunner;
  readonly probe?: ProbeSource;
}

export class IptablesProbes implements NodeProbes {
  readonly #netns: Netns | undefined;
  readonly #programs: readonly IptablesProgram[];
  readonly #sets: Ipset;
  readonly #probe: ProbeSource | undefined;

  constructor(netns: Netns | undefined, { programs, runner, probe }: ProbesOptions) {
    this.#probe = probe;
    this.#netns = netns;
    this.#programs = [programs.ipv4, programs.ipv6].filter((it) => it !== undefined);
    this.#sets = new Ipset(netns, runner);
  }

  async ensure(): Promise<void> {
    for (const program of this.#programs) {
      await this.#sets.create(program.family);
      const state = await this.#state(program);
      if ((await this.#differences(program, state)).length === 0) continue;
      await program.restore(this.#netns, exchangeText(nodeRules(program.family, this.#probe), removalCommands(state)));
    }
    // What nf_tables had of the node's goes once ours stands: its set is ours from the next sync on (CNI-144).
    using firewall = FirewallSocket.open(this.#netns);
    if (firewall.tableNames().includes(TABLE_NAMES.nat)) firewall.deleteTables([TABLE_NAMES.nat]);
  }

  async check(): Promise<string[]> {
    const differences: string[] = [];
    for (const program of this.#programs) {
      if (!await this.#sets.exists(program.family)) differences.push(`set ${PROBE_SETS[program.family]} is missing`);
      differences.push(...await this.#differences(program, await this.#state(program)));
    }
    return differences;
  }

  async add(addresses: readonly ProbedAddress[]): Promise<void> {
    for (const { family } of this.#programs) {
      const wanted = ofFamily(addresses, family);
      if (wanted.length === 0) continue;
      const present = await this.#sets.members(family);
      const changed = wanted.filter(({ ip, uid }) => present.get(ip)?.uid !== uid);
      const replaced = changed.filter(({ ip }) => present.has(ip)).map(({ ip }) => ip); // A comment is not changed in place.
      await this.#sets.change(family, { add: changed, remove: replaced });
    }
  }

  async remove(addresses: readonly ProbedAddress[]): Promise<ProbedAddress[]> {
    const others: ProbedAddress[] = [];
    for (const { family } of this.#programs) {
      const gone = ofFamily(addresses, family);
      if (gone.length === 0) continue;
      const present = await this.#sets.members(family);
      const found = gone.flatMap(({ ip }) => present.get(ip) ?? []);
      const isOwn = ({ ip, uid }: ProbedAddress) => gone.some((it) => it.ip === ip && it.uid === uid);
      others.push(...found.filter((it) => !isOwn(it)));
      await this.#sets.change(family, { add: [], remove: found.filter(isOwn).map(({ ip }) => ip) });
    }
    return others;
  }

  async sync(addresses: readonly ProbedAddress[], { complete }: { readonly complete: boolean }): Promise<void> {
    await this.add(addresses);
    if (!complete) return;
    const wanted = new Set(addresses.map(({ ip }) => ip));
    for (const { family } of this.#programs) {
      const present = [...(await this.#sets.members(family)).keys()];
      await this.#sets.change(family, { add: [], remove: present.filter((ip) => !wanted.has(ip)) });
    }
  }

  async addresses(): Promise<ProbedAddress[]> {
    const all: ProbedAddress[] = [];
    for (const { family } of this.#programs) all.push(...(await this.#sets.members(family)).values());
    return all;
  }

  async uninstall(): Promise<void> {
    for (const program of this.#programs) {
      const commands = removalCommands(await this.#state(program));
      if (commands.size > 0) await program.restore(this.#netns, exchangeText([], commands));
      await this.#sets.destroy(program.family);
    }
  }

  [Symbol.dispose](): void {}

  async #state(program: IptablesProgram): Promise<SavedState> {
    return onlyChain(parseSaved(await program.save(this.#netns)), NODE_CHAIN);
  }

  async #differences(program: IptablesProgram, state: SavedState): Promise<string[]> {
    const { different, doubtful } = differencesOf(state, nodeRules(program.family, this.#probe), program.family);
    const differences = [...different];
    for (const { table, chain, args } of doubtful) {
      if (await program.has(this.#netns, table, chain, args)) continue;
      differences.push(`${program.name} rule "${args.join(" ")}" of ${table} ${chain} is missing or different`);
    }
    return differences;
  }
}

function ofFamily(addresses: readonly ProbedAddress[], family: IpFamily): ProbedAddress[] {
  return addresses.filter(({ ip }) => parseIp(ip) !== undefined && (ip.includes(":") ? "ipv6" : "ipv4") === family);
}
