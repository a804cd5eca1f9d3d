/** A cluster, brought up in the namespaces that this process is in. */
import { writeOciArchive } from "../../tools/oci_archive.ts";
import { output } from "../kube/go_tools.ts";
import { until } from "../kube/until.ts";
import { DNS_OBJECTS, startApi, startControllers, writeCredentials } from "./control_plane.ts";
import { BRIDGE, CONTROL_PLANE, nodeLayout, PAUSE_IMAGE } from "./layout.ts";
import { addRoute, loadImage, makeNode, type NodePlace, startNode } from "./node.ts";
import type { ClusterParts } from "./parts.ts";
import type { Network } from "./primary_network.ts";

const READY_MS = 120_000;
const ARCHITECTURES = { x86_64: "amd64", aarch64: "arm64" } as const;

/** What is needed to drive a cluster from any process in its namespaces; `cluster.json` in the run's folder. */
export interface ClusterPlace {
  readonly folder: string;
  readonly kubeconfig: string;
  readonly kubectl: string;
  readonly nodes: readonly NodePlace[];
}

/** Brings a cluster up, of a node for each primary network. @returns Once every node is ready. It ends with this process. */
export async function bringUp(
  folder: string,
  parts: ClusterParts,
  networks: readonly Network[],
): Promise<ClusterPlace> {
  const nodeCount = networks.length, layouts = networks.map((_, at) => nodeLayout(at + 1));
  await Deno.mkdir(`${folder}/log`);
  await makeSwitch();
  const kubeconfig = await writeCredentials(folder, layouts);
  const [nodes, pause] = await Promise.all([
    Promise.all(layouts.map((layout, at) => makeNode(folder, layout, parts, networks[at]!))),
    packPod(folder, parts.pod),
    startApi(folder, parts),
  ]);
  for (const node of nodes) {
    await output("ip", ["route", "add", node.podRange, "via", node.ip]);
    for (const other of nodes) if (other !== node) await addRoute(node, other);
  }
  const place = { folder, kubeconfig, kubectl: parts.kube.kubectl, nodes };
  await Promise.all([
    startControllers(folder, parts),
    ...nodes.map((node) => startNode(folder, node, parts, pause)),
    apply(place, DNS_OBJECTS),
  ]);
  const ready = async () =>
    (await kubectl(place, ["get", "nodes", "--no-headers"])).split("\n").filter((line) => / Ready /.test(line)).length;
  await until(async () => await ready() === nodeCount, `${nodeCount} nodes are ready`, READY_MS);
  await Deno.writeTextFile(`${folder}/cluster.json`, JSON.stringify(place));
  return place;
}

/** Runs kubectl as the administrator. @returns What it printed. @throws Error if it fails. */
export async function kubectl(place: ClusterPlace, args: readonly string[], stdin = ""): Promise<string> {
  const child = new Deno.Command(place.kubectl, {
    args: ["--kubeconfig", place.kubeconfig, "--cache-dir", `${place.folder}/kubectl`, ...args],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(stdin));
  await writer.close();
  const { success, code, stdout, stderr } = await child.output();
  if (success) return new TextDecoder().decode(stdout);
  throw new Error(`kubectl ${args.join(" ")} ended with status ${code}: ${new TextDecoder().decode(stderr)}`);
}

/** Applies objects as a user would. */
export async function apply(place: ClusterPlace, objects: readonly object[]): Promise<void> {
  const list = JSON.stringify({ apiVersion: "v1", kind: "List", items: objects });
  await kubectl(place, ["apply", "--server-side", "--force-conflicts", "-f", "-"], list);
}

/** Makes an image known to every node. */
export async function load(place: ClusterPlace, archive: string): Promise<void> {
  await Promise.all(place.nodes.map((node) => loadImage(node, archive)));
}

/** Between the nodes, with the control plane at it. */
async function makeSwitch(): Promise<void> {
  await output("ip", ["link", "set", "lo", "up"]);
  await output("ip", ["link", "add", BRIDGE, "type", "bridge"]);
  await output("ip", ["addr", "add", `${CONTROL_PLANE}/24`, "dev", BRIDGE]);
  await output("ip", ["link", "set", BRIDGE, "up"]);
}

/** The image of every pod's sandbox, which small pods run too. @returns The archive. */
async function packPod(folder: string, program: string): Promise<string> {
  const root = `${folder}/pod-root`, archive = `${folder}/pod.tar`;
  await Deno.mkdir(`${root}/image`, { recursive: true });
  await Deno.mkdir(`${root}/work`);
  await Deno.copyFile(program, `${root}/image/pod`);
  await Deno.chmod(`${root}/image/pod`, 0o755);
  await writeOciArchive(archive, [`${root}/image`], `${root}/work`, {
    name: PAUSE_IMAGE,
    architecture: ARCHITECTURES[Deno.build.arch as keyof typeof ARCHITECTURES],
    entrypoint: ["/pod"],
    environment: ["PATH=/"],
    labels: {},
    createdAt: 0,
  });
  return archive;
}
