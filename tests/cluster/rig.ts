/** The cluster that a test is in: its objects by kubectl, its nodes and pods by their namespaces. */
import { MeshError } from "../../base/errors.ts";
import { openNetns } from "../../os/netns.ts";
import type { Netns } from "../../os/netns.ts";
import { type AuditedCall, readAudit } from "../kube/audit.ts";
import { output } from "../kube/go_tools.ts";
import { until } from "../kube/until.ts";
import { apply, type ClusterPlace, kubectl } from "./cluster.ts";
import { enter, type NodePlace } from "./node.ts";

export const SYSTEM = "istio-system", ZTUNNEL = "daemonset/ztunnel";
export const MANIFESTS = new URL("../../deploy/kubernetes", import.meta.url).pathname;
const WAIT_MS = 60_000;
const TAIL_LINES = 15;
const RUN_BY = "not run: `deno task test:cluster` runs";

export interface PodStatus {
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly uid: string;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly labels?: Readonly<Record<string, string>>;
    readonly deletionTimestamp?: string;
  };
  readonly spec: { readonly nodeName?: string };
  readonly status: {
    readonly phase: string;
    readonly podIP?: string;
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
    readonly containerStatuses?: readonly { readonly restartCount: number; readonly containerID?: string }[];
  };
}

/** The one cluster of this run. */
export class Cluster {
  readonly #place: ClusterPlace;

  constructor(place: ClusterPlace) {
    this.#place = place;
  }

  /** Of the run that this process is part of. @throws MeshError AMB7192 outside of one. */
  static open(): Cluster {
    const folder = Deno.env.get("AMBIT_CLUSTER");
    if (folder === undefined) {
      throw new MeshError("AMB7192", "there is no cluster to test on", { remedy: "run `deno task test:cluster`" });
    }
    return new Cluster(JSON.parse(Deno.readTextFileSync(`${folder}/cluster.json`)));
  }

  get folder(): string {
    return this.#place.folder;
  }

  get nodes(): readonly NodePlace[] {
    return this.#place.nodes;
  }

  node(name: string): NodePlace {
    const node = this.nodes.find((it) => it.name === name);
    if (node === undefined) throw new Error(`there is no node ${name}`);
    return node;
  }

  kubectl(args: readonly string[], stdin?: string): Promise<string> {
    return kubectl(this.#place, args, stdin);
  }

  async get<T>(args: readonly string[]): Promise<T> {
    return JSON.parse(await this.kubectl(["get", "-o", "json", ...args])) as T;
  }

  apply(...objects: readonly object[]): Promise<void> {
    return apply(this.#place, objects);
  }

  /** Runs a program on a node to its end. @returns What it printed. */
  on(node: NodePlace, ...command: readonly string[]): Promise<string> {
    return output("nsenter", [...enter(node), ...command]);
  }

  async pods(namespace: string, selector = ""): Promise<PodStatus[]> {
    return (await this.get<{ items: PodStatus[] }>(["pods", "-n", namespace, "-l", selector])).items;
  }

  /** The one pod with the label `app`, once it is ready. */
  async readyPod(namespace: string, app: string, ms = WAIT_MS): Promise<PodStatus> {
    let found: PodStatus | undefined;
    const ready = async () => (found = (await this.pods(namespace, `app=${app}`)).find(isReady)) !== undefined;
    await until(ready, `pod ${app} of ${namespace} is ready`, ms);
    return found!;
  }

  async untilPods(
    namespace: string,
    selector: string,
    count: number,
    fits: (pod: PodStatus) => boolean,
    ms = WAIT_MS,
  ): Promise<void> {
    const enough = async () => (await this.pods(namespace, selector)).filter(fits).length >= count;
    await until(enough, `${count} pods ${selector} of ${namespace} are as wanted`, ms);
  }

  /** A process of a pod, as we see it. */
  pidOf(pod: PodStatus): number {
    const [pid] = this.pidsOf(pod);
    if (pid === undefined) throw new Error(`no process of pod ${pod.metadata.name} runs`);
    return pid;
  }

  /** All processes of a pod. */
  pidsOf({ metadata: { uid } }: PodStatus): number[] {
    const names = [`pod${uid}`, `pod${uid.replaceAll("-", "_")}`];
    return [...Deno.readDirSync("/proc")].map(({ name }) => name).filter((name) => {
      const groups = /^\d+$/.test(name) ? textOf(`/proc/${name}/cgroup`) : undefined;
      return groups !== undefined && names.some((it) => groups.includes(it));
    }).map(Number);
  }

  /** A pod's network namespace; the caller closes it. */
  netnsOf(pod: PodStatus): Netns {
    return openNetns(`/proc/${this.pidOf(pod)}/ns/net`);
  }

  /** Every call that the API server has answered so far. */
  calls(): Promise<AuditedCall[]> {
    return readAudit(`${this.folder}/audit.log`);
  }

  /** Deletes namespaces with all in them, and waits until that is gone. */
  async remove(...namespaces: readonly string[]): Promise<void> {
    await this.kubectl(["delete", "namespace", "--wait", "--ignore-not-found", "--timeout=120s", ...namespaces]);
  }
}

export function isReady({ status: { conditions = [] }, metadata: { deletionTimestamp } }: PodStatus): boolean {
  const ready = conditions.some(({ type, status }) => type === "Ready" && status === "True");
  return ready && deletionTimestamp === undefined;
}

/** Whether the node's agent says that the pod is in the mesh. */
export function isEnrolled({ metadata: { annotations = {} } }: PodStatus): boolean {
  return annotations["ambient.istio.io/redirection"] === "enabled";
}

function textOf(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    if (error instanceof Error && error.message.includes("os error 3")) return undefined; // It ended while we looked.
    throw error;
  }
}

interface TestOptions {
  /** Whether it runs whatever `--only` names. */
  readonly always?: boolean;
  /** Removed afterwards, however the test ends. */
  readonly namespaces?: readonly string[];
}

/** Defines a test of the suite: all run, or those that `--only` names. What it knows of a failure is printed with it. */
export function clusterTest(
  name: string,
  { always = false, namespaces = [] }: TestOptions,
  run: (cluster: Cluster) => Promise<void>,
): void {
  if (Deno.env.get("AMBIT_CLUSTER") === undefined) return report(`${RUN_BY}: ${name}`);
  const only = Deno.env.get("AMBIT_CLUSTER_ONLY")?.split(",");
  if (!always && only !== undefined && !only.some((word) => name.includes(word))) return;
  Deno.test(name, async () => {
    const cluster = Cluster.open();
    try {
      await run(cluster);
    } catch (error) {
      await describe(cluster);
      throw error;
    } finally {
      if (namespaces.length > 0) await cluster.remove(...namespaces);
    }
  });
}

/** Prints what somebody would look at first. */
async function describe(cluster: Cluster): Promise<void> {
  report(await cluster.kubectl(["get", "pods", "-A", "-o", "wide"]));
  report(await cluster.kubectl(["get", "events", "-A", "--field-selector", "type!=Normal"]));
  for (const { metadata: { name } } of await cluster.pods(SYSTEM)) {
    const log = await cluster.kubectl(["logs", "-n", SYSTEM, name, `--tail=${TAIL_LINES}`]).catch(String);
    report(`${name}:\n${log}`);
  }
}

/** How often or how many, from the command line. */
export function amount(name: "rounds" | "kills" | "seed" | "pods", usual: number): number {
  return Number(Deno.env.get(`AMBIT_CLUSTER_${name.toUpperCase()}`) ?? usual);
}

/** Whether a flag is on the command line. */
export function isAsked(name: "supervised"): boolean {
  return Deno.env.get(`AMBIT_CLUSTER_${name.toUpperCase()}`) === "true";
}

/** Prints a figure between the tests. */
export function report(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`    ${line}\n`));
}
