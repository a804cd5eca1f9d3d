/** Whether what should be captured is, from what was seen: each thing that is wrong with its cause and its cure. Pure. */
import type { TrialOutcome } from "../../os/connect_trial.ts";
import { CAPTURE_PORTS } from "../nft_rules.ts";
import type { BackendName } from "../redirection/redirection.ts";

/** What was seen of one workload. */
export interface Observation {
  readonly target: string;
  /** The pod's name, where the agent told it. */
  readonly pod?: string;
  /** What has rules there; undefined: nothing has. */
  readonly backend: BackendName | undefined;
  /** What of the rules and routes differs, in words. */
  readonly differences: readonly string[];
  readonly dnsCapture: boolean;
  /** TCP ports with a listener; undefined where that could not be seen. */
  readonly listening: ReadonlySet<number> | undefined;
  /** Addresses of the pod that the node's probes do not reach past the mesh; undefined where the node has no such rules. */
  readonly unprobed: readonly string[] | undefined;
  /** How a connection to an address that nobody has went, by address; empty when none was tried. */
  readonly trials: readonly { readonly ip: string; readonly outcome: TrialOutcome }[];
  /** What the agent itself knows to be wrong. */
  readonly problems: readonly string[];
}

export interface CheckFinding {
  readonly check: "rules" | "listeners" | "probes" | "proof" | "agent";
  readonly cause: string;
  readonly cure: string;
}

export interface Verdict {
  readonly target: string;
  readonly pod?: string;
  readonly captured: boolean;
  readonly backend: BackendName | undefined;
  /** Whether a connection was seen to be captured: `yes`, `no`, or `not tried` with the reason among the notes. */
  readonly proof: "yes" | "no" | "not tried";
  /** What makes it not captured, and what else is wrong. */
  readonly findings: readonly CheckFinding[];
  readonly notes: readonly string[];
}

export const CURE_RULES =
  "the node agent repairs it with its next audit; without one start it, or enrol the workload again";
export const CURE_LISTENERS = "start ztunnel, or see in its log why it does not listen in this namespace";

export function judge(seen: Observation): Verdict {
  const findings: CheckFinding[] = [], notes: string[] = [];
  const add = (check: CheckFinding["check"], cause: string, cure: string) => void findings.push({ check, cause, cure });
  for (const problem of seen.problems) add("agent", problem, "see the node agent's log");
  if (seen.backend === undefined) add("rules", "there are no redirection rules", CURE_RULES);
  else for (const difference of seen.differences) add("rules", difference, CURE_RULES);
  if (seen.listening === undefined) notes.push("listeners could not be looked at: the kernel lacks sock_diag");
  else {
    const missing = wantedPorts(seen).filter((port) => !seen.listening!.has(port));
    if (missing.length > 0) add("listeners", `nothing listens on ${missing.join(", ")}`, CURE_LISTENERS);
  }
  const proof = proofOf(seen, notes);
  if (proof === "no") {
    const through = seen.trials.filter(({ outcome }) => outcome === "silent").map(({ ip }) => ip).join(", ");
    add("proof", `a connection to ${through} was not answered by ztunnel`, CURE_RULES);
  }
  const captured = findings.length === 0; // Missing probes are wrong, but nothing escapes by that.
  if (seen.unprobed !== undefined && seen.unprobed.length > 0) {
    add(
      "probes",
      `the node's probes of ${seen.unprobed.join(", ")} are captured, and may fail`,
      "the node agent adds it with its next audit; see its log if it stays",
    );
  }
  const { target, pod, backend } = seen;
  return { target, pod, captured, backend, proof, findings, notes };
}

function wantedPorts({ dnsCapture }: Observation): number[] {
  const { outbound, inboundPlaintext, inboundHbone, dns } = CAPTURE_PORTS;
  return [outbound, inboundPlaintext, inboundHbone, ...dnsCapture ? [dns] : []];
}

/** Refused is captured, too: nobody else could have answered, and nothing got out. */
function proofOf({ trials }: Observation, notes: string[]): Verdict["proof"] {
  const tried = trials.filter(({ outcome }) => outcome !== "unreachable");
  for (const { ip, outcome } of trials) {
    if (outcome === "unreachable") notes.push(`no proof by ${ip}: there is no route to it`);
  }
  if (tried.length === 0) return "not tried";
  return tried.every(({ outcome }) => outcome !== "silent") ? "yes" : "no";
}
