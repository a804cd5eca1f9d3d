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
  /**
   * Everything is written once into namespaces that are thrown away, and read back (CNI-217 does so for eBPF). A pod's and
   * the node's rules stand in tables of one name, so each has a namespace of its own, as they have in use.
   */
  missing() {
    try {
      using pod = createAnonymousNetns();
      using node = createAnonymousNetns();
      const options = { dnsCapture: true };
      applyPodRules(pod, options);
      using probes = new HostProbes(node);
      probes.ensure();
      return [...checkPodRules(pod, options), ...probes.check()];
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      return [chain(error)];
    }
  },
  open: () => NETLINK_REDIRECTION,
};
