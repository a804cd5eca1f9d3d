/** A mesh of two nodes for a test, and real programs in its pods. */
import { assert } from "@std/assert";
import { Mesh, type MeshOptions, type Pod, type PodSpec } from "../../demo/lab/mesh.ts";
import { sumOf } from "../../demo/lab/metrics.ts";
import { sweepLeftovers } from "../../demo/lab/network.ts";
import { until } from "../../demo/lab/until.ts";
import { spawnWithin } from "../../os/process.ts";

export { until } from "../../demo/lab/until.ts";
export type { Pod } from "../../demo/lab/mesh.ts";

/** What a test is given: a mesh, a client's pod on node A, a server's on node B. */
export interface Rig {
  readonly mesh: Mesh;
  readonly client: Pod;
  readonly server: Pod;
}

const PROGRAM_TIMEOUT_MS = 300_000;

const CLIENT: PodSpec = { name: "client", namespace: "e2e", serviceAccount: "client", node: "node-a" };
const SERVER: PodSpec = { name: "server", namespace: "e2e", serviceAccount: "server", node: "node-b" };

/** A test with a mesh of its own; whatever it does, nothing of the mesh is left. Needs root, and says so. */
export function meshTest(name: string, run: (rig: Rig) => Promise<void>, options: Partial<MeshOptions> = {}): void {
  Deno.test(name, async () => {
    assert(Deno.uid() === 0, "network namespaces need root: run `deno task e2e` as root");
    sweepLeftovers(); // Of a run that was killed before it could clean up.
    await using mesh = await Mesh.start({ key: "e2e", ...options });
    const [client, server] = await Promise.all([mesh.addPod(CLIENT), mesh.addPod(SERVER)]);
    await run({ mesh, client, server });
  });
}

/** The program's path. Fails, and says what to install, when it is not there: an end-to-end test is never skipped. */
export function program(name: string, aptPackage = name): string {
  const folders = [...(Deno.env.get("PATH") ?? "").split(":"), "/usr/sbin", "/sbin", ...postgresFolders()];
  const found = folders.map((folder) => `${folder}/${name}`).find(isFile);
  if (found === undefined) throw new Error(`the program ${name} is not here: apt-get install ${aptPackage}`);
  return found;
}

function postgresFolders(): string[] {
  try {
    return [...Deno.readDirSync("/usr/lib/postgresql")].map((entry) => `/usr/lib/postgresql/${entry.name}/bin`);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return false;
    throw error;
  }
}

/** Runs a program in a pod to its end. @returns What it wrote. Fails, with that, when its status is not 0. */
export async function runIn(pod: Pod, command: string, args: readonly string[], options: Deno.CommandOptions = {}) {
  const child = spawnWithin(pod.place.netns, command, {
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    ...options,
    args: [...args],
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), PROGRAM_TIMEOUT_MS);
  const { success, code, stdout, stderr } = await child.output();
  clearTimeout(timer);
  const [out, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  assert(success, `${command} ${args.join(" ")} ended with ${code}:\n${out}\n${errors}`);
  return { out: out!, errors: errors! };
}

/** Waits until something listens on a port of the pod. Looks without connecting: some servers serve one caller only. */
export async function listening(pod: Pod, port: number): Promise<void> {
  await pod.probe.attempt("served", { port }); // Started, so that its process shows the pod's sockets.
  const wanted = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  await until(
    `port ${port} of ${pod.spec.name}`,
    60_000,
    () =>
      ["tcp", "tcp6"].some((table) =>
        Deno.readTextFileSync(`/proc/${pod.probe.pid}/net/${table}`).split("\n").some((line) => {
          const [, local, , state] = line.trim().split(/\s+/);
          return state === "0A" && local?.endsWith(wanted); // TCP_LISTEN
        })
      ),
  );
}

/** How many connections from client to server both sides have counted as mutual TLS by the client's identity. */
export async function mutualTlsCount({ mesh, client, server }: Rig): Promise<number> {
  const labels = {
    connection_security_policy: "mutual_tls",
    source_principal: `spiffe://${client.principal}`,
    destination_principal: `spiffe://${server.principal}`,
  };
  const sides = [["node-a", "source"], ["node-b", "destination"]] as const;
  const counts = await Promise.all(
    sides.map(async ([node, reporter]) =>
      sumOf(await mesh.nodes[node].metrics(), "istio_tcp_connections_opened_total", { ...labels, reporter })
    ),
  );
  return Math.min(...counts);
}

/** Fails unless the programs' traffic went through both proxies under mutual TLS. */
export async function assertCarried(rig: Rig, connectionsMin = 1): Promise<void> {
  await until(
    `${connectionsMin} connections under mutual TLS`,
    60_000,
    async () => await mutualTlsCount(rig) >= connectionsMin,
  );
}
