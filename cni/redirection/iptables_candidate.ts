/** Whether iptables can redirect here, by variant, and the backend that does (CNI-139). */
import type { Logger } from "../../base/log.ts";
import type { IpFamily } from "../../os/netlink/nft_model.ts";
import { type Netns, ownNetns } from "../../os/netns.ts";
import type { ProbeSource } from "../nft_rules.ts";
import { IptablesRedirection } from "./iptables.ts";
import { type Detected, type FindOptions, IptablesProgram, type Variant } from "./iptables_program.ts";
import { kernelFamilies } from "./policy_routes.ts";
import type { Candidate } from "./redirection.ts";

export interface IptablesChoice extends FindOptions {
  readonly reconcile: boolean;
  /** False: no pod gets rules of IPv6, and its programs may be missing. */
  readonly ipv6?: boolean;
  readonly log: Logger;
  readonly probe?: ProbeSource;
}

export function iptablesCandidate(variant: Variant, choice: IptablesChoice): Candidate {
  const found = new Map<IpFamily, Detected>();
  const look = async (): Promise<string[]> => {
    const missing: string[] = [];
    for (const family of families()) {
      const detected = await IptablesProgram.find(variant, family, choice);
      if ("program" in detected) found.set(family, detected);
      else if (family === "ipv4" || choice.ipv6 !== false) missing.push(detected.missing);
    }
    if (await choice.runner.run(choice.host, "ipset", ["--version"]) === undefined) {
      missing.push("ipset is not installed");
    }
    return missing;
  };
  return {
    name: `iptables-${variant}`,
    missing: look,
    inUse: () => found.get("ipv4")?.hasRules === true,
    open() {
      const programs = { ipv4: found.get("ipv4")?.program, ipv6: found.get("ipv6")?.program };
      return new IptablesRedirection(variant, { ...choice, programs });
    },
  };
}

function families(): readonly IpFamily[] {
  using own: Netns = ownNetns();
  return kernelFamilies(own);
}
