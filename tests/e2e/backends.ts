/** Every redirection backend that this machine has, for tests that hold all of them to the same. */
import { assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import type { ProbeSource } from "../../cni/nft_rules.ts";
import { allCandidates } from "../../cni/redirection/candidates.ts";
import { ProgramThread } from "../../cni/redirection/programs.ts";
import type { BackendName, Redirection } from "../../cni/redirection/redirection.ts";
import { createAnonymousNetns } from "../../os/netns.ts";

/** By netfilter; eBPF has tests of its own. */
export const NETFILTER_BACKENDS = ["nft", "nft-binary", "iptables-nft", "iptables-legacy"] as const;

export interface BackendOptions {
  readonly reconcile?: boolean;
  /** Where the node's probes come from. */
  readonly probe?: ProbeSource;
  /** Log lines go here. */
  readonly sink?: (line: string) => void;
}

/** Fails where the machine lacks what the backend needs. The caller disposes of it. */
export async function openBackend(
  name: BackendName,
  { reconcile = true, probe, sink = () => {} }: BackendOptions = {},
): Promise<Redirection> {
  using cleanup = new DisposableStack();
  using host = createAnonymousNetns(); // What is tried is tried in here.
  const log = new Logger("test", { sink }), runner = cleanup.use(new ProgramThread(log));
  const settings = {
    redirect: name,
    nativeNftables: undefined,
    forceIptables: undefined,
    reconcilePodRules: reconcile,
  };
  const candidate = allCandidates({ runner, settings, log, host, probe }).find((it) => it.name === name)!;
  assertEquals(await candidate.missing(), [], `what ${name} lacks here`);
  const redirection = await candidate.open();
  cleanup.move();
  return redirection;
}
