/** Which backend redirects on this node: the one asked for, or the first that this machine can use (CNI-139, CNI-143, CNI-144). */
import { MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { delegated, withoutBpf } from "../bpf/candidate.ts";
import type { Netns } from "../../os/netns.ts";
import type { ProbeSource } from "../nft_rules.ts";
import { allCandidates, nodeLockOf } from "./candidates.ts";
import { candidateNames, type RedirectSettings } from "./choices.ts";
import { Ipset } from "./ipset.ts";
import { removeNodeResidue } from "./node_residue.ts";
import { type ProgramRunner, ProgramThread } from "./programs.ts";
import type { Candidate, Redirection } from "./redirection.ts";

export interface ChoiceParts {
  readonly log: Logger;
  readonly runner?: ProgramRunner;
  readonly candidates?: readonly Candidate[];
  /** Where the node's probes come from, if not from PR (CNI-189). */
  readonly probe?: ProbeSource;
  /** The host's network namespace, where iptables is tried; absent: this process's own. */
  readonly host?: Netns;
}

/** Throws AMB7140, with what each lacks, when none can be used. The redirection owns the thread that runs its programs. */
export async function chooseRedirection(settings: RedirectSettings, parts: ChoiceParts): Promise<Redirection> {
  const { log } = parts;
  using cleanup = new DisposableStack();
  const runner = cleanup.use(parts.runner ?? new ProgramThread(log));
  const guarded = await guardMigration(settings, { runner, log, host: parts.host });
  const candidates = parts.candidates ??
    allCandidates({ runner, settings: guarded, log, host: parts.host, probe: parts.probe });
  const lacks: string[] = [], usable: Candidate[] = [];
  for (const name of candidateNames(guarded)) {
    const candidate = candidates.find((it) => it.name === name);
    const missing = candidate === undefined ? ["it is not part of this build"] : await candidate.missing();
    if (name === "bpf" && parts.probe !== undefined) missing.push("it takes no other address for the node's probes");
    if (candidate !== undefined && missing.length === 0) usable.push(candidate);
    else lacks.push(`${name}: ${missing.join(", ")}`);
    if (usable.length > 0 && !name.startsWith("iptables-")) break; // Of iptables both variants are looked at.
  }
  const chosen = preferred(usable);
  if (chosen !== undefined) {
    const told = { backend: chosen.name, passedOver: lacks.join("; ") };
    if (settings.redirect === "bpf" && chosen.name !== "bpf") log.warn("redirection by BPF is not possible here", told);
    else log.info("redirection chosen", told);
    const opened = await chosen.open(), nodeLock = nodeLockOf(settings.hostRoot);
    cleanup.move();
    const redirection: Redirection = {
      ...delegated(opened),
      clearNode: (host) => removeNodeResidue(host, { kept: opened.name, runner, nodeLock, log }),
    };
    if (redirection.name === "bpf") return redirection;
    const alone = withoutBpf(redirection, settings, log);
    return settings.redirect === "bpf" ? { ...delegated(alone), reason: lacks.join("; ") } : alone;
  }
  throw new MeshError("AMB7140", `no redirection can be used here: ${lacks.join("; ")}`, {
    remedy: "Provide what is missing, or choose another --redirect; `ambit doctor` tells what this machine offers.",
  });
}

/** Legacy, if the node has rules of it, for then that is the variant in use; else the first. */
export function preferred(usable: readonly Candidate[]): Candidate | undefined {
  const first = usable[0];
  if (first?.name !== "iptables-nft") return first;
  return usable.find((it) => it.name === "iptables-legacy" && it.inUse?.() === true) ?? first;
}

/** A node whose probes pass by an ipset still has pods of iptables: it stays with it until it is booted again (CNI-143). */
async function guardMigration(
  settings: RedirectSettings,
  { runner, log, host }: { readonly runner: ProgramRunner; readonly log: Logger; readonly host: Netns | undefined },
): Promise<RedirectSettings> {
  if (settings.redirect !== "auto" || settings.nativeNftables !== true) return settings;
  const sets = new Ipset(host, runner);
  if (!await sets.exists("ipv4") && !await sets.exists("ipv6")) return settings;
  log.warn("the node has an ipset for probes: iptables stays until the next boot");
  return { ...settings, nativeNftables: false };
}
