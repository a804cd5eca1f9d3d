/** Every backend that there is, ready to be asked what it lacks here. */
import type { Logger } from "../../base/log.ts";
import type { Netns } from "../../os/netns.ts";
import { bpfCandidate, isFolder } from "../bpf/candidate.ts";
import type { RedirectSettings } from "./choices.ts";
import type { ProbeSource } from "../nft_rules.ts";
import { iptablesCandidate } from "./iptables_candidate.ts";
import { netlinkCandidate } from "./netlink.ts";
import { nftBinaryCandidate } from "./nft_binary.ts";
import type { ProgramRunner } from "./programs.ts";
import type { Candidate } from "./redirection.ts";

export interface CandidateOptions {
  readonly runner: ProgramRunner;
  readonly settings: RedirectSettings;
  readonly log: Logger;
  /** Where iptables is tried; absent: this process's own namespace, the host's. */
  readonly host?: Netns;
  /** Where the node's probes come from, if not from PR. */
  readonly probe?: ProbeSource;
}

export function allCandidates({ runner, settings, log, host, probe }: CandidateOptions): readonly Candidate[] {
  const strict = settings.redirect === "auto" && settings.forceIptables !== undefined;
  const reconcile = settings.reconcilePodRules, nodeLock = nodeLockOf(settings.hostRoot);
  const iptables = { runner, log, strict, host, probe, reconcile, nodeLock };
  return [
    bpfCandidate({ runner, settings, log }),
    netlinkCandidate({ runner, log, probe }),
    nftBinaryCandidate({ runner, log, probe }),
    iptablesCandidate("nft", iptables),
    iptablesCandidate("legacy", iptables),
  ];
}

/** In a container: what programs of the node lock, by the root of the node's first process (CNI-141). */
export function nodeLockOf(hostRoot = ""): string | undefined {
  const first = `${hostRoot}/proc/1`;
  return hostRoot === "" || !isFolder(first) ? undefined : `${first}/root/run/xtables.lock`;
}
