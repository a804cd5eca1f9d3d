/** What is to be checked: what the node's agent says it has captured, or, without one, whatever has our rules. */
import { MeshError } from "../../base/errors.ts";
import { isFields } from "../../base/plain.ts";
import { type EnrolmentStatus, isShared, type NodeStatus, parseEnrolTarget } from "../../mesh/enrolment.ts";
import type { PodStatus } from "../kubernetes/pod_table.ts";
import { BACKENDS } from "../redirection/redirection.ts";
import { openTarget } from "../target.ts";
import type { FoundNamespace } from "./namespaces.ts";
import type { SharedSubject } from "./shared.ts";
import type { Observer, Subject } from "./observe.ts";

/** A workload that cannot be looked at, and what is wrong with it. */
export interface Unseen {
  readonly target: string;
  readonly pod?: string;
  readonly problem: string;
}

export interface Subjects {
  /** Where they come from, for people. */
  readonly source: string;
  readonly subjects: readonly Subject[];
  /** Units and control groups: what is to be seen of them is in the namespace of the host. */
  readonly shared: readonly SharedSubject[];
  readonly unseen: readonly Unseen[];
}

/** What the agent of a bare node lists. */
export function subjectsOfNode({ pods }: NodeStatus): Subjects {
  const subjects: Subject[] = [], shared: SharedSubject[] = [], unseen: Unseen[] = [];
  for (const status of pods) {
    const pod = `${status.namespace}/${status.name}`, target = parseEnrolTarget(status.target);
    if (target === undefined) {
      unseen.push({ target: status.target, pod, problem: "the node agent is of another version" });
      continue;
    }
    if (isShared(target)) {
      const { outboundPort, plaintextPort, dnsPort } = status;
      shared.push({ target: status.target, pod, outboundPort, plaintextPort, dnsPort, problems: problemsOf(status) });
      continue;
    }
    try {
      const netns = openTarget(target);
      subjects.push({ target: status.target, pod, netns, problems: problemsOf(status) });
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      unseen.push({ target: status.target, pod, problem: error.message });
    }
  }
  return { source: "the node agent's enrolments", subjects, shared, unseen };
}

function problemsOf({ state, problems }: EnrolmentStatus): string[] {
  return [...state === "enrolled" ? [] : [`it is ${state}`], ...problems];
}

/** What the agent in a cluster lists, each with the namespace of that number. */
export function subjectsOfCluster(page: unknown, namespaces: readonly FoundNamespace[]): Subjects {
  const fields = isFields(page) ? page : {};
  const backend = BACKENDS.find((it) => it === fields.backend);
  const subjects: Subject[] = [], unseen: Unseen[] = [];
  for (const row of Array.isArray(fields.pods) ? fields.pods as PodStatus[] : []) {
    const found = namespaces.find(({ netns }) => netns.inode === row.netnsInode);
    const problems = row.lastError === undefined ? [] : [row.lastError];
    if (found === undefined) {
      const problem = problems[0] ?? "its network namespace was not found among the processes";
      unseen.push({ target: row.pod, pod: row.pod, problem });
      continue;
    }
    const { ips, rules } = row;
    subjects.push({ target: row.pod, pod: row.pod, netns: found.netns.duplicate(), rules, backend, ips, problems });
  }
  return { source: "the node agent's pods", subjects, shared: [], unseen };
}

/** Every namespace in which someone redirects. */
export async function subjectsOfKernel(
  namespaces: readonly FoundNamespace[],
  observer: Pick<Observer, "usedBackend">,
): Promise<Subjects> {
  const subjects: Subject[] = [];
  for (const { target, netns } of namespaces) {
    if (await observer.usedBackend(netns) === undefined) continue;
    subjects.push({ target, netns: netns.duplicate(), problems: [] });
  }
  return { source: "the kernel: no node agent answers", subjects, shared: [], unseen: [] };
}
