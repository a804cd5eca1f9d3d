/** Redirection by nf_tables over netlink: no program of the node is run. */
import { HostProbes } from "../host_probes.ts";
import { applyPodRules, checkPodRules, deletePodRules, releasePodRules } from "../pod_rules.ts";
import { createAnonymousNetns } from "../../os/netns.ts";
import { chain, MeshError } from "../../base/errors.ts";
import type { Candidate, Redirection } from "./redirection.ts";

export const NETLINK_REDIRECTION: Redirection = {
  name: "nft",
  apply: applyPodRules,
  release: releasePodRules,
  remove: deletePodRules,
  check: checkPodRules,
  openNode: (netns) => new HostProbes(netns),
};

export const NETLINK_CANDIDATE: Candidate = {
  name: "nft",
  /** Everything is written once into a namespace that is thrown away, and read back (CNI-217 does so for eBPF). */
  missing() {
    try {
      using scratch = createAnonymousNetns();
      const options = { dnsCapture: true };
      applyPodRules(scratch, options);
      using probes = new HostProbes(scratch);
      probes.ensure();
      return [...checkPodRules(scratch, options), ...probes.check()];
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      return [chain(error)];
    }
  },
  open: () => NETLINK_REDIRECTION,
};
