/** `ambit install` and `ambit uninstall`: the mesh into a cluster or onto this node, and out again. */
import { stringify } from "@std/yaml";
import {
  ConfigDefinition,
  type ConfigOf,
  defineConfig,
  duration,
  oneOf,
  optional,
  text,
  toggle,
} from "../base/config.ts";
import { MeshError } from "../base/errors.ts";
import { Logger } from "../base/log.ts";
import { writeOut } from "../base/standard_output.ts";
import type { NodeStatus } from "../mesh/enrolment.ts";
import type { OpenKubeApi } from "../kube/client.ts";
import { openKubeApi } from "../kube/client.ts";
import { loadKubeconfig } from "../kube/kubeconfig_access.ts";
import { askNodeAgent, ENROL_SOCKET } from "./enrol_client.ts";
import { applyAll } from "./install/apply.ts";
import { placeText } from "./install/kinds.ts";
import { DEFAULT_IMAGE, DEFAULT_NAMESPACE, fitManifests, readManifests } from "./install/manifests.ts";
import { installNode, isInstalled, type NodeOptions, uninstallNode } from "./install/node.ts";
import { profileOf, PROFILES } from "./install/profiles.ts";
import { removalOrder, removeAll } from "./install/remove.ts";

const where = {
  node: {
    kind: toggle(),
    flag: "node",
    default: false,
    help: "this machine, a node without Kubernetes, instead of a cluster",
  },
  root: { kind: text("DIR"), flag: "root", default: "/", help: "with --node: the root of its files, for images" },
  dryRun: { kind: toggle(), flag: "dry-run", default: false, help: "change nothing: say what would be done" },
  kubeconfig: {
    kind: optional(text("PATH")),
    flag: "kubeconfig",
    env: "KUBECONFIG",
    default: undefined,
    defaultText: "~/.kube/config",
    help: "how to reach the API server",
  },
  context: {
    kind: optional(text("NAME")),
    flag: "context",
    default: undefined,
    defaultText: "the kubeconfig's own",
    help: "which context of the kubeconfig",
  },
  namespace: {
    kind: optional(text("NAME")),
    flag: "namespace",
    default: undefined,
    defaultText: `${DEFAULT_NAMESPACE}, or the platform's`,
    help: "namespace of the mesh's own parts",
  },
  image: {
    kind: text("IMAGE"),
    flag: "image",
    default: DEFAULT_IMAGE,
    help: "the image of `deno task image`, as nodes pull it",
  },
  platform: {
    kind: oneOf("none", ...Object.keys(PROFILES).filter((it) => it !== "none")),
    flag: "platform",
    default: "none",
    help: "whose paths the nodes have",
  },
  waitMs: {
    kind: duration(0, 3_600_000),
    flag: "wait",
    default: 300_000,
    help: "how long to wait until all of it is done",
  },
} as const;

export const INSTALL_CONFIG = defineConfig("ambit install", {
  ...where,
  control: {
    kind: toggle(),
    flag: "control-plane",
    default: false,
    help: "with --node: istiod instead of cni and ztunnel",
  },
  output: {
    kind: optional(oneOf("yaml")),
    flag: "output",
    short: "o",
    default: undefined,
    defaultText: "none",
    help: "print the manifests, apply nothing",
  },
}, {
  examples: [
    "ambit install --image registry.example/ambit:0.1.0",
    "ambit install --image registry.example/ambit:0.1.0 -o yaml | kubectl diff --server-side -f -",
    "ambit install --node --dry-run",
  ],
});

export const UNINSTALL_CONFIG = defineConfig("ambit uninstall", {
  ...where,
  unmeshPods: {
    kind: toggle(),
    flag: "unmesh-pods",
    default: false,
    help: "take all pods out of the mesh first, node by node",
  },
  purge: {
    kind: toggle(),
    flag: "purge",
    default: false,
    help: "delete the namespace, the CA's key in it, and the roots in all namespaces, too",
  },
  force: {
    kind: toggle(),
    flag: "force",
    default: false,
    help: "with --node: although no node agent can take the workloads out",
  },
  enrolSocket: {
    kind: text("PATH"),
    flag: "enrol-socket",
    env: "AMBIT_ENROL_SOCKET",
    default: ENROL_SOCKET,
    help: "with --node: the node agent's socket",
  },
}, {
  examples: ["ambit uninstall --unmesh-pods", "ambit uninstall --unmesh-pods --dry-run", "ambit uninstall --node"],
});

const say = (line: string) => writeOut(`${line}\n`);
const timing = {
  say,
  sleep: (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms)),
  now: () => performance.now(),
};

/** @returns 0 when it runs. Throws MeshError otherwise. */
export async function runInstall(args: string[]): Promise<number> {
  if (ConfigDefinition.wantsHelp(args)) {
    writeOut(
      INSTALL_CONFIG.help("Puts the mesh into a cluster, or with --node onto this machine, and waits until it runs."),
    );
    return 0;
  }
  const { config } = INSTALL_CONFIG.parse(args, (name) => Deno.env.get(name));
  if (config.node) {
    await installNode(config.control ? "control" : "node", nodeOptions(config));
    return 0;
  }
  const objects = objectsOf(config);
  if (config.output === "yaml") writeOut(objects.map((object) => stringify(object)).join("---\n"));
  else if (config.dryRun) { for (const object of objects) say(`would apply ${placeText(object)}`); }
  else {
    using api = await openApi(config);
    await applyAll(api.client, objects, { ...timing, waitMs: config.waitMs });
    say("the mesh is installed; label a namespace with istio.io/dataplane-mode=ambient to have its pods in it");
  }
  return 0;
}

/** @returns 0 when nothing of it is left but what was said. Throws MeshError otherwise. */
export async function runUninstall(args: string[]): Promise<number> {
  if (ConfigDefinition.wantsHelp(args)) {
    writeOut(UNINSTALL_CONFIG.help("Takes the mesh out of a cluster, or with --node off this machine."));
    return 0;
  }
  const { config } = UNINSTALL_CONFIG.parse(args, (name) => Deno.env.get(name));
  if (config.node) {
    await releaseAll(config);
    await uninstallNode(nodeOptions(config));
    return 0;
  }
  const objects = objectsOf(config);
  if (config.dryRun) {
    if (config.unmeshPods) say("would take all pods out of the mesh, node by node");
    for (const object of removalOrder(objects)) say(`would delete ${placeText(object)}`);
    return 0;
  }
  using api = await openApi(config);
  const { unmeshPods, purge, waitMs } = config;
  await removeAll(api.client, objects, { ...timing, waitMs, unmeshPods, purge, namespace: namespaceOf(config) });
  say("the mesh is uninstalled");
  return 0;
}

type Where = ConfigOf<typeof where>;

const namespaceOf = ({ namespace, platform }: Where) => namespace ?? profileOf(platform).namespace ?? DEFAULT_NAMESPACE;

function objectsOf(config: Where) {
  const { image, platform } = config;
  return fitManifests(readManifests(), { namespace: namespaceOf(config), image, profile: profileOf(platform) });
}

async function openApi({ kubeconfig, context }: Where): Promise<Disposable & { readonly client: OpenKubeApi }> {
  const path = kubeconfig ?? `${Deno.env.get("HOME") ?? ""}/.kube/config`;
  const log = new Logger("kube", { sink: (line) => Deno.stderr.writeSync(new TextEncoder().encode(`${line}\n`)) });
  const client = openKubeApi(await loadKubeconfig(path, context), { log });
  return { client, [Symbol.dispose]: () => client.close() };
}

function nodeOptions({ root, dryRun }: Where): NodeOptions {
  const inPlace = root === "/";
  return {
    root: inPlace ? "" : root.replace(/\/$/, ""),
    dryRun,
    say,
    systemctl: inPlace ? systemctl : () => Promise.resolve(true),
  };
}

/** Only where systemd runs the machine: in a container there may be the program alone. */
async function systemctl(args: readonly string[]): Promise<boolean | undefined> {
  try {
    Deno.statSync("/run/systemd/system");
    return (await new Deno.Command("systemctl", { args: [...args], stdout: "null" }).output()).success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Workloads first: their rules would stay, and refuse what they say. Throws AMB7176 where nobody can take them out. */
async function releaseAll(
  { enrolSocket, dryRun, force, root }: ConfigOf<typeof UNINSTALL_CONFIG.table>,
): Promise<void> {
  if (root !== "/") return;
  let status: NodeStatus;
  try {
    status = await askNodeAgent(enrolSocket, { method: "GET", path: "/status" }) as NodeStatus;
  } catch (cause) {
    if (!(cause instanceof MeshError)) throw cause;
    if (force || !isInstalled()) return; // Where there never was an agent, nothing is captured.
    throw new MeshError(
      "AMB7176",
      "the node agent does not answer, and only it can take what is enrolled out of the mesh",
      {
        remedy: "Start it (systemctl start ambit-cni) and do this again; with --force what is enrolled stays captured.",
        cause,
      },
    );
  }
  for (const { target } of status.pods) {
    if (!dryRun) await askNodeAgent(enrolSocket, { method: "POST", path: "/unenrol", body: { target } });
    say(`${dryRun ? "would unenrol" : "unenrolled"} ${target}`);
  }
}
