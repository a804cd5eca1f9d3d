/** `ambit cni check`: tells of each workload of this node whether its traffic is captured, and if not, why and what helps. */
import {
  ConfigDefinition,
  defineConfig,
  type ListenAddress,
  listenAddress,
  oneOf,
  text,
  toggle,
} from "../../base/config.ts";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { writeOut } from "../../base/standard_output.ts";
import { requireCapabilities } from "../../os/capabilities.ts";
import { createAnonymousNetns, ownNetns } from "../../os/netns.ts";
import type { NodeStatus } from "../../mesh/enrolment.ts";
import { allCandidates } from "../redirection/candidates.ts";
import { REDIRECT_CHOICES, type RedirectChoice, type RedirectSettings } from "../redirection/choices.ts";
import { ProgramThread } from "../redirection/programs.ts";
import { judge, type Verdict } from "./judge.ts";
import { findNamespaces } from "./namespaces.ts";
import { judgeShared, observeHost } from "./shared.ts";
import { judgeNodeOffer, lookAtNode, textOfFindings } from "./node.ts";
import { Observer } from "./observe.ts";
import { type Subjects, subjectsOfCluster, subjectsOfKernel, subjectsOfNode } from "./subjects.ts";

export const CHECK_CONFIG = defineConfig("ambit cni check", {
  output: {
    kind: oneOf("text", "json"),
    flag: "output",
    short: "o",
    default: "text" as const,
    help: "form of the answer",
  },
  enrolSocket: {
    kind: text("PATH"),
    flag: "enrol-socket",
    env: "AMBIT_ENROL_SOCKET",
    default: "/run/ambit/enrol.sock",
    help: "the enrolment socket of a bare node's agent",
  },
  introspectionAddress: {
    kind: listenAddress(),
    flag: "introspection-address",
    default: Object.freeze({ host: "127.0.0.1", port: 9876 }) as ListenAddress,
    help: "where the agent of a cluster's node tells of its pods",
  },
  hostRoot: {
    kind: text("DIR"),
    flag: "host-root",
    env: "AMBIT_HOST_ROOT",
    default: "",
    help: "in a container: where the node's /proc is mounted; empty on the node itself",
    emptyCounts: true,
  },
  node: {
    kind: toggle(),
    flag: "node",
    default: false,
    help:
      "tell instead what this node offers to an agent: each means of redirection is tried, and nothing is left behind",
  },
  redirect: {
    kind: oneOf(...REDIRECT_CHOICES),
    flag: "redirect",
    env: "AMBIT_REDIRECT",
    default: "auto" as RedirectChoice,
    help: "with --node: what the agent is asked to redirect by",
  },
  prove: {
    kind: toggle(),
    flag: "prove",
    default: true,
    help:
      "try a connection to an address that nobody has from inside each workload's namespace; ztunnel logs it as failed",
  },
}, {
  operands: "[TARGET|POD…]",
  examples: ["ambit cni check", "ambit cni check shop/web-0 netns/db -o json", "ambit cni check --node"],
});

const ASK_MS = 2_000;

interface Report {
  readonly source: string;
  readonly verdicts: readonly Verdict[];
}

/** @returns 0 when all is captured, else 1. */
export async function runCheck(args: readonly string[]): Promise<number> {
  if (ConfigDefinition.wantsHelp(args)) {
    writeOut(
      CHECK_CONFIG.help(
        "Tells whether what should be captured is. A pod is NAMESPACE/NAME; without any, all are looked at.",
      ),
    );
    return 0;
  }
  const { config, operands: wanted } = CHECK_CONFIG.parse(args, (name) => Deno.env.get(name));
  checkNames(wanted);
  requireCapabilities(["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
  const log = new Logger("check", { sink: (line) => void Deno.stderr.writeSync(new TextEncoder().encode(line)) });
  if (config.node) return await checkNode(config, log);
  using observer = new Observer({ runner: new ProgramThread(log), log, prove: config.prove });
  const report = await look(config, { observer, wanted });
  writeOut(config.output === "json" ? `${JSON.stringify(report, undefined, 2)}\n` : textOf(report));
  return report.verdicts.every(({ captured }) => captured) ? 0 : 1;
}

/** @returns 0 unless nothing can redirect here. */
async function checkNode(
  { redirect, hostRoot, output }: ReturnType<typeof CHECK_CONFIG.parse>["config"],
  log: Logger,
): Promise<number> {
  const settings: RedirectSettings = {
    redirect,
    nativeNftables: undefined,
    forceIptables: undefined,
    reconcilePodRules: true,
    hostRoot,
  };
  using runner = new ProgramThread(log), scratch = createAnonymousNetns();
  // iptables leaves empty chains where it is tried, so that is not in the node's own namespace.
  const candidates = allCandidates({ runner, settings, log, host: scratch });
  const findings = judgeNodeOffer(await lookAtNode(settings, candidates));
  writeOut(output === "json" ? `${JSON.stringify({ findings }, undefined, 2)}\n` : textOfFindings(findings));
  return findings.some(({ status }) => status === "fail") ? 1 : 0;
}

async function look(
  config: ReturnType<typeof CHECK_CONFIG.parse>["config"],
  { observer, wanted }: { readonly observer: Observer; readonly wanted: readonly string[] },
): Promise<Report> {
  using open = new DisposableStack();
  const { source, subjects, shared, unseen } = await subjectsFrom(config, observer, open);
  for (const { netns } of subjects) open.use(netns);
  const isWanted = ({ target, pod }: { readonly target: string; readonly pod?: string }) =>
    wanted.length === 0 || wanted.includes(target) || (pod !== undefined && wanted.includes(pod));
  using host = ownNetns();
  const probed = await observer.probed(host), verdicts: Verdict[] = [];
  for (const subject of subjects.filter(isWanted)) verdicts.push(judge(await observer.look(subject, probed)));
  const units = shared.filter(isWanted), seen = units.length === 0 ? undefined : observeHost(host);
  if (seen !== undefined) verdicts.push(...units.map((it) => judgeShared(it, seen)));
  for (const { target, pod, problem } of unseen.filter(isWanted)) {
    verdicts.push(failed(target, problem, "see the node agent's log, and that the workload runs", pod));
  }
  for (const name of wanted.filter((it) => !verdicts.some(({ target, pod }) => target === it || pod === it))) {
    verdicts.push(failed(name, "it is not enrolled", "see its labels in a cluster; on a bare node run `ambit enroll`"));
  }
  return { source, verdicts };
}

function failed(target: string, cause: string, cure: string, pod?: string): Verdict {
  const findings = [{ check: "agent", cause, cure }] as const;
  return { target, pod, captured: false, backend: undefined, proof: "not tried", findings, notes: [] };
}

/** Whichever agent answers; with neither, the kernel itself. */
async function subjectsFrom(
  { enrolSocket, introspectionAddress, hostRoot }: ReturnType<typeof CHECK_CONFIG.parse>["config"],
  observer: Observer,
  open: DisposableStack,
): Promise<Subjects> {
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path: enrolSocket } });
  const node = await ask("http://localhost/status", client);
  if (node !== undefined) return subjectsOfNode(node as NodeStatus);
  const namespaces = findNamespaces(`${hostRoot}/proc`);
  for (const { netns } of namespaces) open.use(netns);
  const { host, port } = introspectionAddress;
  const page = await ask(`http://${host.includes(":") ? `[${host}]` : host}:${port}/debug/pods`);
  return page === undefined ? await subjectsOfKernel(namespaces, observer) : subjectsOfCluster(page, namespaces);
}

/** @returns undefined when nobody answers there. */
async function ask(url: string, client?: Deno.HttpClient): Promise<unknown> {
  try {
    const response = await fetch(url, { client, signal: AbortSignal.timeout(ASK_MS) });
    if (response.ok) return await response.json();
    await response.body?.cancel();
    return undefined;
  } catch (error) {
    if (error instanceof TypeError || error instanceof SyntaxError) return undefined; // Not reached, or no agent of ours.
    if (error instanceof DOMException && error.name === "TimeoutError") return undefined;
    throw error;
  }
}

function textOf({ source, verdicts }: Report): string {
  const lines = [`from ${source}`];
  if (verdicts.length === 0) lines.push("nothing is captured on this node");
  for (const { target, pod, captured, backend, proof, findings, notes } of verdicts) {
    const name = pod === undefined || pod === target ? target : `${target} (${pod})`;
    const seen = proof === "yes" ? ", seen by a connection" : "";
    lines.push(
      `${captured ? "captured    " : "NOT CAPTURED"}  ${name}${backend === undefined ? "" : `  by ${backend}${seen}`}`,
    );
    findings.forEach(({ cause, cure }, at) => {
      lines.push(`  cause: ${cause}`);
      if (findings[at + 1]?.cure !== cure) lines.push(`  cure:  ${cure}`); // One for all that it helps against.
    });
    for (const note of notes) lines.push(`  note:  ${note}`);
  }
  return `${lines.join("\n")}\n`;
}

function checkNames(wanted: readonly string[]): void {
  const wrong = wanted.find((it) => !it.includes("/"));
  if (wrong === undefined) return;
  throw new MeshError("AMB7145", `${JSON.stringify(wrong)} is neither a pod nor a target`, {
    remedy: "Name a pod as NAMESPACE/NAME, a target as netns/NAME, pid/N or container/ID.",
  });
}
