/** What an operator can say of redirection, and which backends are tried for it, in order. Pure. */
import { type BackendName, BACKENDS } from "./redirection.ts";

/** What `--redirect` takes. */
export const REDIRECT_CHOICES = ["auto", ...BACKENDS] as const;
export type RedirectChoice = typeof REDIRECT_CHOICES[number];

/** What the operator said. */
export interface RedirectSettings {
  readonly redirect: RedirectChoice;
  /** Istio's NATIVE_NFTABLES: true for nf_tables, false for iptables; undefined when nothing was said. */
  readonly nativeNftables: boolean | undefined;
  /** Istio's FORCE_IPTABLES_BINARY: with an automatic choice of iptables, that variant and no other. */
  readonly forceIptables: "legacy" | "nft" | undefined;
  /** Istio's AMBIENT_RECONCILE_POD_RULES_ON_STARTUP: iptables' rules that differ are exchanged behind guardrails (CNI-135). */
  readonly reconcilePodRules: boolean;
  /** Folder of eBPF's pins; undefined: the usual one. */
  readonly bpfPins?: string;
  /** The cgroup whose processes eBPF's hooks see; undefined: all of the node's. */
  readonly bpfCgroup?: string;
  /** The cgroup of a ztunnel of another make; undefined: ztunnel is ours. */
  readonly bpfForeignZtunnel?: string;
  /** Where the node's files are mounted, in a container. */
  readonly hostRoot?: string;
}

/** The backends to try, in order. Pure. */
export function candidateNames(said: RedirectSettings): readonly BackendName[] {
  const { redirect, nativeNftables, forceIptables } = said;
  if (redirect === "bpf") return ["bpf", ...candidateNames({ ...said, redirect: "auto" })]; // Rules are its way back (CNI-217).
  if (redirect !== "auto") return [redirect];
  const iptables: readonly BackendName[] = forceIptables === undefined
    ? ["iptables-nft", "iptables-legacy"]
    : [`iptables-${forceIptables}`];
  if (nativeNftables === true) return ["nft", "nft-binary"];
  if (nativeNftables === false || forceIptables !== undefined) return iptables;
  return ["nft", "nft-binary", ...iptables];
}
