/** Redirection by nf_tables over netlink: no program of the node is run, but for what old iptables left in a pod. */
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { createAnonymousNetns, type Netns } from "../../os/netns.ts";
import type { ProbeSource } from "../nft_rules.ts";
import { HostProbes } from "../host_probes.ts";
import { applyPodRules, checkPodRules, deletePodRules, releasePodRules } from "../pod_rules.ts";
import type { ProgramRunner } from "./programs.ts";
import type { Candidate, PodRuleOptions, Redirection } from "./redirection.ts";
import { Residue } from "./residue.ts";

/** All that the kernel alone can do. */
export const NETLINK_REDIRECTION: Redirection = {
  name: "nft",
  apply: applyPodRules,
  release: releasePodRules,
  remove: deletePodRules,
  check: checkPodRules,
  openNode: (netns) => new HostProbes(netns),
  [Symbol.dispose]() {},
};

export interface NetlinkOptions {
  readonly runner: ProgramRunner;
  readonly log: Logger;
  readonly probe?: ProbeSource;
}

export function netlinkCandidate(options: NetlinkOptions): Candidate {
  const residue = new Residue("tables", options);
  return {
    name: "nft",
    /** Everything is written once into a namespace that is thrown away, and read back. */
    missing() {
      try {
        using scratch = createAnonymousNetns();
        const wanted = { dnsCapture: true };
        applyPodRules(scratch, wanted);
        const differences = checkPodRules(scratch, wanted);
        if (differences.length > 0) return differences;
        using probes = new HostProbes(scratch); // In place of the pod's: both tables have the same name.
        probes.ensure();
        return probes.check();
      } catch (error) {
        if (!(error instanceof MeshError)) throw error;
        return [chain(error)];
      }
    },
    open: () => ({
      ...NETLINK_REDIRECTION,
      async apply(netns: Netns, wanted: PodRuleOptions) {
        applyPodRules(netns, wanted);
        await residue.remove(netns);
      },
      async remove(netns: Netns) {
        deletePodRules(netns);
        await residue.remove(netns);
      },
      async check(netns: Netns, wanted: PodRuleOptions) {
        return [...checkPodRules(netns, wanted), ...await residue.list(netns)];
      },
      openNode: (netns) => new HostProbes(netns, options.probe),
      [Symbol.dispose]: () => options.runner[Symbol.dispose](),
    }),
  };
}
