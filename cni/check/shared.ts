/** Whether what should be captured of a unit or control group is: by what stands in the host's namespace, where it has a chain and ports of its own. */
import type { Netns } from "../../os/netns.ts";
import { foreignChains } from "../../os/netlink/nft_foreign.ts";
import { listeningPorts } from "../../os/netlink/sock_diag.ts";
import { SHARED_PORTS, SHARED_TABLE_NAMES } from "../bare/shared_statements.ts";
import { CAPTURE_PORTS } from "../nft_rules.ts";
import { type CheckFinding, CURE_LISTENERS, CURE_RULES, type Verdict } from "./judge.ts";

/** As its agent tells of it. */
export interface SharedSubject {
  readonly target: string;
  readonly pod: string;
  readonly outboundPort: number | undefined;
  /** Where it serves anything. */
  readonly plaintextPort: number | undefined;
  /** Where its DNS is captured. */
  readonly dnsPort: number | undefined;
  readonly problems: readonly string[];
}

/** What was seen of the host's namespace. */
export interface HostObservation {
  /** Chains of our tables, as `TABLE CHAIN`. */
  readonly chains: ReadonlySet<string>;
  /** undefined where the kernel does not tell. */
  readonly listening: ReadonlySet<number> | undefined;
}

/** Throws AMB7010, AMB7014. */
export function observeHost(host: Netns): HostObservation {
  const chains = foreignChains(host, "").map(({ table, chain }) => `${table} ${chain}`);
  return { chains: new Set(chains), listening: listeningPorts(host) };
}

/** Which rules are in its chains only its agent knows, and checks. Pure. */
export function judgeShared(subject: SharedSubject, { chains, listening }: HostObservation): Verdict {
  const { target, pod, outboundPort, plaintextPort, dnsPort, problems } = subject;
  const findings: CheckFinding[] = problems.map((cause) => ({
    check: "agent",
    cause,
    cure: "see the node agent's log",
  }));
  const slot = (outboundPort ?? SHARED_PORTS.outbound) - SHARED_PORTS.outbound,
    { nat, mangle, raw } = SHARED_TABLE_NAMES;
  const wanted = [`${nat} workload-${slot}`, `${mangle} output`];
  if (dnsPort !== undefined) wanted.push(`${nat} dns-${slot}`, `${raw} dns-${slot}`);
  for (const name of wanted.filter((it) => !chains.has(it))) {
    findings.push({ check: "rules", cause: `chain ${name} is missing`, cure: CURE_RULES });
  }
  const ports = [
    outboundPort,
    ...plaintextPort === undefined ? [] : [plaintextPort, CAPTURE_PORTS.inboundHbone],
    dnsPort,
  ];
  const missing = ports.filter((port) => port !== undefined && listening?.has(port) === false);
  if (missing.length > 0) {
    findings.push({ check: "listeners", cause: `nothing listens on ${missing.join(", ")}`, cure: CURE_LISTENERS });
  }
  const notes = ["no connection was tried: it would have to be made by a process of its control group"];
  if (listening === undefined) notes.push("listeners could not be looked at: the kernel lacks sock_diag");
  return { target, pod, captured: findings.length === 0, backend: "nft", proof: "not tried", findings, notes };
}
