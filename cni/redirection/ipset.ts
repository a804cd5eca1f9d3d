/** Sets of addresses by the program ipset: each address with its pod's uid as comment (CNI-181). */
import { MeshError } from "../../base/errors.ts";
import { ipToBytes, parseIp } from "../../base/address.ts";
import type { IpFamily } from "../../os/netlink/nft_model.ts";
import type { Netns } from "../../os/netns.ts";
import { PROBE_SETS } from "./iptables_rules.ts";
import type { ProgramOutcome, ProgramRunner } from "./programs.ts";
import type { ProbedAddress } from "./redirection.ts";

const FAMILY = { ipv4: "inet", ipv6: "inet6" } as const;
const UID = /^[A-Za-z0-9._:-]{1,255}$/; // What may stand in quotes in a text for ipset; Kubernetes' uids are.

export class Ipset {
  readonly #netns: Netns | undefined;
  readonly #runner: ProgramRunner;

  constructor(netns: Netns | undefined, runner: ProgramRunner) {
    this.#netns = netns;
    this.#runner = runner;
  }

  /** Makes the set unless it is there. Throws AMB7143. */
  async create(family: IpFamily): Promise<void> {
    await this.#restore(`create ${PROBE_SETS[family]} hash:ip family ${FAMILY[family]} comment\n`);
  }

  /** Whether the set is there. */
  async exists(family: IpFamily): Promise<boolean> {
    const outcome = await this.#runner.run(this.#netns, "ipset", ["list", "-n"]);
    return outcome?.code === 0 && outcome.stdout.split("\n").includes(PROBE_SETS[family]);
  }

  /** What is in it, by address. Throws AMB7143. */
  async members(family: IpFamily): Promise<Map<string, ProbedAddress>> {
    const outcome = await this.#runner.run(this.#netns, "ipset", ["list", PROBE_SETS[family], "-o", "save"]);
    if (outcome?.code !== 0) throw failed("list a set", outcome);
    return new Map(readMembers(outcome.stdout).map((member) => [member.ip, member]));
  }

  /** Adds some, replacing whose they were, and removes others; those not there are fine. Throws AMB7143. */
  async change(
    family: IpFamily,
    { add, remove }: { readonly add: readonly ProbedAddress[]; readonly remove: readonly string[] },
  ): Promise<void> {
    const name = PROBE_SETS[family];
    const lines = [
      ...remove.map((ip) => `del ${name} ${ip}`),
      ...add.map(({ ip, uid }) => `add ${name} ${ip}${UID.test(uid) ? ` comment "${uid}"` : ""}`),
    ];
    if (lines.length > 0) await this.#restore(lines.join("\n") + "\n");
  }

  /** Removes the set if it is there. Throws AMB7143, as long as a rule names it. */
  async destroy(family: IpFamily): Promise<void> {
    if (await this.exists(family)) await this.#restore(`destroy ${PROBE_SETS[family]}\n`);
  }

  async #restore(input: string): Promise<void> {
    const outcome = await this.#runner.run(this.#netns, "ipset", ["-exist", "restore"], { input });
    if (outcome?.code !== 0) throw failed("change a set", outcome);
  }
}

/** Exported for its test. */
export function readMembers(text: string): ProbedAddress[] {
  return text.split("\n").flatMap((line) => {
    const match = /^add \S+ (\S+)(?:.* comment "([^"]*)")?/.exec(line);
    const ip = match === null ? undefined : parseIp(match[1]!);
    return ip === undefined || ipToBytes(ip).length === 0 ? [] : [{ ip: match![1]!, uid: match![2] ?? "" }];
  });
}

function failed(doing: string, outcome: ProgramOutcome | undefined): MeshError {
  const why = outcome === undefined ? "ipset is not installed" : outcome.stderr.trim().split("\n")[0]!.slice(0, 500);
  return new MeshError("AMB7143", `could not ${doing} of the node's probes: ${why}`, {
    remedy:
      "Install ipset and see that the kernel has its sets (ip_set_hash_ip); or choose --redirect=nft, which needs neither.",
  });
}
