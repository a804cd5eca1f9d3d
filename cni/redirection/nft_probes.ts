/** The node's side by the program nft: table, sets and members as over netlink (CNI-181, CNI-183, CNI-184). */
import { parseIp } from "../../base/address.ts";
import type { FirewallTable, IpFamily } from "../../os/netlink/nft_model.ts";
import type { Netns } from "../../os/netns.ts";
import { hostTable } from "../host_probes.ts";
import { PROBE_ADDRESS, type ProbeSource, TABLE_NAMES } from "../nft_rules.ts";
import { renderDeletionText, renderNftText } from "../nft_text.ts";
import { PROBE_SETS } from "./iptables_rules.ts";
import { runNft } from "./nft_binary.ts";
import type { ProgramRunner } from "./programs.ts";
import type { NodeProbes, ProbedAddress } from "./redirection.ts";

const FAMILIES = ["ipv4", "ipv6"] as const;
const UID = /^[A-Za-z0-9._:-]{1,127}$/; // What may stand in quotes in a text for nft.
/** An element as nft lists it. */
const ELEMENT = /([0-9a-fA-F:.]+)(?: comment "([^"]*)")?/;

export class NftProbes implements NodeProbes {
  readonly #netns: Netns | undefined;
  readonly #runner: ProgramRunner;
  readonly #table: FirewallTable;
  readonly #sources: readonly string[];

  constructor(netns: Netns | undefined, runner: ProgramRunner, probe?: ProbeSource) {
    this.#netns = netns;
    this.#table = hostTable(undefined, probe);
    this.#sources = Object.values(probe ?? PROBE_ADDRESS);
    this.#runner = runner;
  }

  async ensure(): Promise<void> {
    await runNft(this.#runner, this.#netns, renderNftText([this.#table]));
  }

  async check(): Promise<string[]> {
    const outcome = await this.#runner.run(this.#netns, "nft", ["-n", "-s", "list", "table", "inet", TABLE_NAMES.nat]);
    if (outcome?.code !== 0) return [`table ${TABLE_NAMES.nat} is missing`];
    const found =
        outcome.stdout.split("\n").filter((line) =>
          line.includes("snat") && this.#sources.some((ip) => line.endsWith(` ${ip}`))
        ).length,
      wanted = this.#table.rules.length;
    const sets = FAMILIES.filter((family) => !outcome.stdout.includes(`set ${PROBE_SETS[family]} `));
    return [
      ...sets.map((family) => `set ${PROBE_SETS[family]} is missing`),
      ...found === wanted ? [] : [`chain ${TABLE_NAMES.nat} postrouting has ${found} rules, not ${wanted}`],
    ];
  }

  async add(addresses: readonly ProbedAddress[]): Promise<void> {
    for (const family of FAMILIES) {
      const wanted = ofFamily(addresses, family);
      if (wanted.length === 0) continue;
      const present = await this.#members(family);
      const changed = wanted.filter(({ ip, uid }) => present.get(ip) !== uid);
      await this.#change(family, changed.filter(({ ip }) => present.has(ip)).map(({ ip }) => ip), changed);
    }
  }

  async remove(addresses: readonly ProbedAddress[]): Promise<ProbedAddress[]> {
    const others: ProbedAddress[] = [];
    for (const family of FAMILIES) {
      const gone = ofFamily(addresses, family);
      if (gone.length === 0) continue;
      const present = await this.#members(family), own: string[] = [];
      for (const { ip, uid } of gone) {
        const owner = present.get(ip);
        if (owner === uid) own.push(ip);
        else if (owner !== undefined) others.push({ ip, uid: owner });
      }
      await this.#change(family, own, []);
    }
    return others;
  }

  async sync(addresses: readonly ProbedAddress[], { complete }: { readonly complete: boolean }): Promise<void> {
    await this.add(addresses);
    if (!complete) return;
    const wanted = new Set(addresses.map(({ ip }) => ip));
    for (const family of FAMILIES) {
      const present = [...(await this.#members(family)).keys()];
      await this.#change(family, present.filter((ip) => !wanted.has(ip)), []);
    }
  }

  async addresses(): Promise<ProbedAddress[]> {
    const all: ProbedAddress[] = [];
    for (const family of FAMILIES) for (const [ip, uid] of await this.#members(family)) all.push({ ip, uid });
    return all;
  }

  async uninstall(): Promise<void> {
    await runNft(this.#runner, this.#netns, renderDeletionText([TABLE_NAMES.nat]));
  }

  [Symbol.dispose](): void {}

  async #members(family: IpFamily): Promise<Map<string, string>> {
    const name = PROBE_SETS[family];
    const text = await runNft(this.#runner, this.#netns, `list set inet ${TABLE_NAMES.nat} ${name}\n`);
    const inside = /elements = \{([^}]*)\}/.exec(text)?.[1] ?? "";
    return new Map(
      inside.split(",").flatMap((part) => {
        const match = ELEMENT.exec(part.trim());
        return match === null ? [] : [[match[1]!, match[2] ?? ""] as const];
      }),
    );
  }

  async #change(family: IpFamily, remove: readonly string[], add: readonly ProbedAddress[]): Promise<void> {
    const set = `inet ${TABLE_NAMES.nat} ${PROBE_SETS[family]}`;
    const lines = [
      ...remove.map((ip) => `delete element ${set} { ${ip} }`),
      ...add.map(({ ip, uid }) => `add element ${set} { ${ip}${UID.test(uid) ? ` comment "${uid}"` : ""} }`),
    ];
    if (lines.length > 0) await runNft(this.#runner, this.#netns, lines.join("\n") + "\n");
  }
}

function ofFamily(addresses: readonly ProbedAddress[], family: IpFamily): ProbedAddress[] {
  return addresses.filter(({ ip }) => parseIp(ip) !== undefined && (ip.includes(":") ? "ipv6" : "ipv4") === family);
}
