/** `deno task test:cluster`: brings a real Kubernetes of two nodes up, runs the suite in it, and takes it away again. */
import { parseArgs } from "@std/cli";
import { chain, MeshError } from "../../base/errors.ts";
import { output, say } from "../kube/go_tools.ts";
import { appsImage } from "./apps_image.ts";
import { bringUp, load } from "./cluster.ts";
import { type ClusterParts, clusterParts } from "./parts.ts";
import { NETWORKS, networksOf, USUAL } from "./primary_network.ts";
import { requireRoot, RunFolder, runInSandbox } from "./sandbox.ts";

const ROOT = new URL("../../", import.meta.url).pathname;
const SELF = new URL(import.meta.url).pathname;
const NODES = 2;
const INTERRUPTED = 130;

const USAGE =
  `deno task test:cluster [--only NAMES] [--rounds N] [--kills N] [--seed N] [--supervised] [--pods N] [--redirection MEANS] [--cni NETWORKS] [--shell]
  --only    run tests whose names contain one of these words, comma-separated, besides install and uninstall
  --rounds  how often a namespace is labelled under load (2), and once less under STRICT
  --kills   how many processes are killed under load (6)
  --seed    which ones, in what order (1), after the first six
  --supervised  ztunnel has a parent that starts it again, in the test that kills it
  --pods    how many pods start for the figures (10), and how many more idle beside them
  --redirection  by what means pods are redirected throughout: nft, nft-binary, iptables-nft, iptables-legacy, bpf
  --cni     how pods are plugged in before the mesh: ${NETWORKS.join(", ")}; or one for each node, by commas (${USUAL})
  --shell   bring the cluster up and start a shell in it, with kubectl, instead of the suite
`;

const VALUES = ["only", "rounds", "kills", "seed", "pods", "redirection", "cni"] as const;
const SETTINGS = [...VALUES, "supervised"] as const;
const OPTIONS = {
  string: [...VALUES, "inside"],
  boolean: ["shell", "help", "supervised"],
} as const;

/** Outside: gets what is needed, and starts us again in namespaces that end with us. */
async function outside(args: readonly string[]): Promise<number> {
  requireRoot();
  const parts = await clusterParts();
  await output(Deno.execPath(), ["run", "-A", "--quiet", "tools/build_image.ts"], { cwd: ROOT });
  await using folder = await RunFolder.make();
  await Deno.writeTextFile(`${folder.path}/parts.json`, JSON.stringify(parts));
  await Deno.symlink(await appsImage(), `${folder.path}/apps.tar`);
  const interrupted = new AbortController(), interrupt = () => interrupted.abort();
  for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.addSignalListener(signal, interrupt);
  const again = [Deno.execPath(), "run", "-A", "--unstable-worker-options", SELF, "--inside", folder.path, ...args];
  const code = await runInSandbox(again, interrupted.signal);
  for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.removeSignalListener(signal, interrupt);
  return interrupted.signal.aborted ? INTERRUPTED : code;
}

/** Inside: the cluster, and the suite or a shell in it. */
async function inside(folder: string, { shell, ...settings }: { shell: boolean } & Settings): Promise<number> {
  const parts = JSON.parse(await Deno.readTextFile(`${folder}/parts.json`)) as ClusterParts;
  const startedAt = performance.now(),
    networks = networksOf(settings.cni, NODES),
    place = await bringUp(folder, parts, networks);
  for (const archive of [`${ROOT}dist/ambit.tar`, `${folder}/apps.tar`]) await load(place, archive);
  say(
    `a cluster of ${NODES} nodes (${networks.join(", ")}) is ready, after ${
      ((performance.now() - startedAt) / 1_000).toFixed(1)
    } s`,
  );
  const path = `${parts.kube.kubectl.replace(/\/[^/]*$/, "")}:${Deno.env.get("PATH")}`;
  const env = { AMBIT_CLUSTER: folder, KUBECONFIG: place.kubeconfig, PATH: path, ...environment(settings) };
  if (shell) say(`kubectl is on the path; a node: nsenter -a -t ${place.nodes[0]!.pid}; leave, and all of it is gone`);
  const suite = ["test", "-A", "--unstable-worker-options", "tests/cluster/suite_test.ts"];
  const [command, args] = shell ? [Deno.env.get("SHELL") ?? "bash", []] : [Deno.execPath(), suite];
  return (await new Deno.Command(command, { args, env, cwd: ROOT }).spawn().status).code;
}

type Settings =
  & Readonly<Record<typeof VALUES[number], string | undefined>>
  & { readonly supervised?: boolean | undefined };

function environment(settings: Settings): Record<string, string> {
  return Object.fromEntries(
    SETTINGS.flatMap((name) =>
      settings[name] === undefined ? [] : [[`AMBIT_CLUSTER_${name.toUpperCase()}`, String(settings[name])]]
    ),
  );
}

const { help, inside: folder, ...options } = parseArgs(Deno.args, OPTIONS);
if (help) {
  await Deno.stdout.write(new TextEncoder().encode(USAGE));
  Deno.exit(0);
}
try {
  Deno.exitCode = folder === undefined ? await outside(Deno.args) : await inside(folder, options);
} catch (error) {
  if (!(error instanceof MeshError)) throw error;
  say(`${error.code}: ${chain(error)}\n  try: ${error.remedy}`);
  Deno.exitCode = 1;
}
if (folder !== undefined) Deno.exit(); // Programs of the cluster would keep us; they end with our namespaces.
