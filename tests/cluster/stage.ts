/** Namespaces with applications in them: servers on the second node, a client that loads them on the first. */
import { output } from "../kube/go_tools.ts";
import { until } from "../kube/until.ts";
import { APPS_IMAGE, POSTGRES_USER } from "./apps_image.ts";
import { type Cluster, isEnrolled, type PodStatus } from "./rig.ts";

const ENROL_MS = 30_000;
const DATA = "/data/db";
const POSTGRES = `initdb -D ${DATA} -A trust -U postgres --locale=C --no-sync >&2 || ` +
  `{ echo initdb failed; exit 1; }; echo host all all all trust >>${DATA}/pg_hba.conf; exec postgres -D ${DATA} -h 0.0.0.0 -k /tmp -c fsync=off`;

/** What is said of a lane by tests/cluster/apps/load.ts. */
export interface Lane {
  readonly name: string;
  readonly asked: number;
  readonly wrong: number;
  readonly failures: readonly Failure[];
}

export interface Failure {
  readonly atMs: number;
  readonly tookMs: number;
  readonly error: string;
  /** Whether its connection had served before. */
  readonly open: boolean;
}

interface AppOptions {
  readonly node: string;
  readonly container: object;
  readonly ports?: readonly number[];
  readonly volumes?: readonly object[];
  readonly labels?: Readonly<Record<string, string>>;
  readonly pod?: object;
}

/** A pod under an account of its own name, and a Service before it if it has ports. */
export function app(namespace: string, name: string, options: AppOptions): object[] {
  const { node, container, ports = [], volumes = [], labels = {}, pod = {} } = options;
  const metadata = { name, namespace, labels: { app: name, ...labels } };
  const service = {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name, namespace },
    spec: { selector: { app: name }, ports: ports.map((port) => ({ name: `tcp-${port}`, port })) },
  };
  return [
    { apiVersion: "v1", kind: "ServiceAccount", metadata: { name, namespace } },
    {
      apiVersion: "v1",
      kind: "Pod",
      metadata,
      spec: {
        serviceAccountName: name,
        terminationGracePeriodSeconds: 1,
        nodeSelector: { "kubernetes.io/hostname": node },
        containers: [{ name, image: APPS_IMAGE, imagePullPolicy: "Never", ...container }],
        volumes,
        ...pod,
      },
    },
    ...(ports.length === 0 ? [] : [service]),
  ];
}

export const tcpProbe = (port: number) => ({ readinessProbe: { tcpSocket: { port }, periodSeconds: 1 } });

/** Servers of every kind, and load on them: `server`, `redis`, `postgres`, `load`. */
export function stage(namespace: string): object[] {
  const [near, far] = ["node1", "node2"] as const;
  return [
    { apiVersion: "v1", kind: "Namespace", metadata: { name: namespace } },
    ...app(namespace, "server", {
      node: far,
      container: { args: ["/apps/server.ts"], ...tcpProbe(8080) },
      ports: [8080, 9090, 7000],
    }),
    ...app(namespace, "redis", {
      node: far,
      container: {
        command: ["redis-server", "--save", "", "--bind", "0.0.0.0", "--protected-mode", "no"],
        ...tcpProbe(6379),
      },
      ports: [6379],
    }),
    ...app(namespace, "postgres", {
      node: far,
      container: {
        command: ["sh", "-c", POSTGRES],
        securityContext: { runAsUser: POSTGRES_USER, runAsGroup: POSTGRES_USER },
        volumeMounts: [{ name: "data", mountPath: "/data" }],
        ...tcpProbe(5432),
      },
      ports: [5432],
      volumes: [{ name: "data", emptyDir: {} }],
      pod: { securityContext: { fsGroup: POSTGRES_USER } },
    }),
    ...app(namespace, "load", { node: near, container: { args: ["/apps/load.ts"] } }),
  ];
}

/** The load's own account of itself so far. */
export function lanesOf(cluster: Cluster, load: PodStatus, clear = false): Promise<Lane[]> {
  return toLoad(cluster, load, clear ? "?clear" : "");
}

/** Has the load close the connections that it keeps, and keep others. */
export async function connectAnew(cluster: Cluster, load: PodStatus): Promise<void> {
  await toLoad(cluster, load, "?anew");
}

async function toLoad(cluster: Cluster, load: PodStatus, query: string): Promise<Lane[]> {
  const inside = ["--net", "--target", `${cluster.pidOf(load)}`, "curl", "--silent", "--fail"];
  return JSON.parse(await output("nsenter", [...inside, `http://127.0.0.1:9000/${query}`]));
}

/** Waits until every lane has had so many answers, counted from the last time that it was cleared. */
export function untilServed(cluster: Cluster, load: PodStatus, count: number, ms?: number): Promise<void> {
  return untilAnswered(cluster, load, { count, before: [] }, ms);
}

/** Waits until every lane has had so many answers more. */
export async function untilServedAgain(cluster: Cluster, load: PodStatus, count: number, ms?: number): Promise<void> {
  await untilAnswered(cluster, load, { count, before: (await lanesOf(cluster, load)).map(answers) }, ms);
}

const answers = ({ asked, failures }: Lane) => asked - failures.length;

async function untilAnswered(
  cluster: Cluster,
  load: PodStatus,
  { count, before }: { readonly count: number; readonly before: readonly number[] },
  ms = 30_000,
): Promise<void> {
  let lanes: Lane[] = [];
  const served = async () =>
    (lanes = await lanesOf(cluster, load)).every((it, at) => answers(it) >= count + (before[at] ?? 0));
  await until(served, `every lane is served ${count} times`, ms).catch((error) => {
    throw new Error(
      `${error.message}: ${JSON.stringify(lanes.map((it) => ({ ...it, failures: it.failures.slice(-2) })))}`,
    );
  });
}

export async function setMode(cluster: Cluster, namespace: string, mode: "ambient" | undefined): Promise<void> {
  const label = `istio.io/dataplane-mode${mode === undefined ? "-" : `=${mode}`}`;
  await cluster.kubectl(["label", "namespace", namespace, "--overwrite", label]);
}

/** Waits until the node's agents say of all pods that they are in the mesh, or that none is. */
export async function untilMode(cluster: Cluster, namespace: string, inMesh: boolean): Promise<void> {
  const all = async () => (await cluster.pods(namespace)).every((pod) => isEnrolled(pod) === inMesh);
  await until(all, `all pods of ${namespace} are ${inMesh ? "in" : "out of"} the mesh`, ENROL_MS);
}

/** Asks from a pod, by its own network namespace. @returns What came, or undefined where nobody answered. */
export async function ask(cluster: Cluster, pod: PodStatus, url: string): Promise<string | undefined> {
  const curl = ["curl", "--silent", "--max-time", "3", url];
  const { success, stdout } = await new Deno.Command("nsenter", {
    args: ["--net", "--target", `${cluster.pidOf(pod)}`, ...curl],
  }).output();
  return success ? new TextDecoder().decode(stdout) : undefined;
}

/** How often each line is there. */
export function countOf(lines: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const line of lines) counts.set(line, (counts.get(line) ?? 0) + 1);
  return counts;
}
