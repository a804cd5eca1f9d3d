/** What `ambit doctor` says of a node of a cluster: CNI configuration, plugin, agent, the host's rules, mounts (CNI-294). */
import { MeshError } from "../base/errors.ts";
import { HostProbes } from "./host_probes.ts";
import { type ConfFile, hasPlugin, PLUGIN_TYPE, pluginTypes, usableFiles } from "./install/conflist.ts";
import { confFilesOf, textOf } from "./install/node_files.ts";
import { SocketAgent } from "./plugin/agent.ts";

/** A finding as the doctor prints it. */
export interface NodeFinding {
  readonly check: string;
  readonly status: "ok" | "warn" | "fail";
  readonly found: string;
  readonly cure?: string;
}

/** Where things are, as this process sees them. */
export interface NodePlaces {
  readonly confDir: string;
  readonly binDir: string;
  readonly runDir: string;
  /** `/host` in the agent's pod, empty on the node itself. */
  readonly hostRoot: string;
}

/** Everything that is looked at, so that judging is apart from looking. */
export interface NodeFacts {
  readonly conf: readonly ConfFile[];
  readonly plugin: "installed" | "left behind" | "another's" | "absent";
  /** Whether the agent answers the plugin. */
  readonly agent: boolean;
  /** What is wrong with the host's rules, or why that cannot be told. */
  readonly hostRules: readonly string[] | { readonly unknown: string };
  /** Whether namespaces that are made on the node show here; undefined on the node itself. */
  readonly propagation: boolean | undefined;
  /** Whether the node's processes can be seen. */
  readonly processes: boolean;
}

const SCRIPT_BYTES = 512;
const ON_NODE: NodePlaces = {
  confDir: "/etc/cni/net.d",
  binDir: "/opt/cni/bin",
  runDir: "/var/run/istio-cni",
  hostRoot: "",
};
const IN_POD: NodePlaces = {
  confDir: "/host/etc/cni/net.d",
  binDir: "/host/opt/cni/bin",
  runDir: "/var/run/istio-cni",
  hostRoot: "/host",
};

/** Nothing where no Kubernetes node is: there is no CNI configuration, and nothing of ours. */
export async function nodeFindings(places?: NodePlaces): Promise<NodeFinding[]> {
  const at = places ?? [IN_POD, ON_NODE].find(({ confDir }) => isFolder(confDir));
  if (at === undefined || !isFolder(at.confDir)) return [];
  const facts = await lookAtNode(at);
  return facts.conf.length === 0 && facts.plugin === "absent" && !facts.agent ? [] : judgeNode(facts);
}

async function lookAtNode({ confDir, binDir, runDir, hostRoot }: NodePlaces): Promise<NodeFacts> {
  const script = scriptOf(`${binDir}/${PLUGIN_TYPE}`);
  const decision = await new SocketAgent(runDir).decide({ namespace: "kube-system", name: "ambit-doctor", uid: "" });
  const mounts = textOf("/proc/self/mountinfo") ?? "";
  return {
    conf: confFilesOf(confDir),
    plugin: script === undefined
      ? "absent"
      : script.includes("Starts the CNI plugin")
      ? "installed"
      : script.includes("Left behind by")
      ? "left behind"
      : "another's",
    agent: decision !== "unreachable",
    hostRules: hostRules(),
    propagation: hostRoot === "" ? undefined : isPropagated(mounts, `${hostRoot}/var/run/netns`),
    processes: isFolder(`${hostRoot}/proc/1`),
  };
}

/** The findings, in the order in which a pod meets them. Pure. */
export function judgeNode(facts: NodeFacts): NodeFinding[] {
  return [configuration(facts), plugin(facts), agent(facts), rules(facts), ...mounts(facts)];
}

function configuration({ conf }: NodeFacts): NodeFinding {
  const check = "cni configuration", usable = usableFiles(conf), [first] = usable;
  const unusable = conf.length - usable.length, ignored = unusable === 0 ? "" : `; ${unusable} more cannot be read`;
  if (first === undefined) {
    return { check, status: "fail", found: `none can be used${ignored}`, cure: "install the cluster's network plugin" };
  }
  const types = pluginTypes(first).join(", "), found = `${first.name}: ${types}${ignored}`;
  if (hasPlugin(first)) return { check, status: "ok", found };
  const ours = usable.find(hasPlugin);
  if (ours?.name.endsWith(".conf")) return { check, status: "ok", found: `${ours.name} stands alone beside ${found}` };
  const rival = /cilium/.test(first.name)
    ? "set Cilium's cni.exclusive=false"
    : /multus/.test(first.name)
    ? "let Multus delegate to the file that has istio-cni, or give ours a name that sorts before it"
    : "give ours a name that sorts before it (--istio-owned-cni-config-filename)";
  return ours === undefined
    ? { check, status: "warn", found: `${found}; istio-cni is in none`, cure: "start the node agent (ambit cni)" }
    : { check, status: "fail", found: `${first.name} comes before ${ours.name}, and passes the mesh by`, cure: rival };
}

function plugin({ plugin, conf }: NodeFacts): NodeFinding {
  const check = "cni plugin", named = usableFiles(conf).some(hasPlugin);
  if (plugin === "installed") return { check, status: "ok", found: "ours" };
  if (plugin === "another's") return { check, status: named ? "ok" : "warn", found: "istio-cni of another make" };
  if (!named) return { check, status: "ok", found: plugin === "absent" ? "none" : "what an uninstallation left" };
  const cure = "start the node agent, which copies it; until then no pod can start on this node";
  return { check, status: "fail", found: "the configuration names it, and it is not there", cure };
}

function agent({ agent, conf }: NodeFacts): NodeFinding {
  const check = "node agent";
  if (agent) return { check, status: "ok", found: "answers the plugin" };
  if (!usableFiles(conf).some(hasPlugin)) return { check, status: "ok", found: "none" };
  const found = "does not answer at its socket: new pods of the mesh wait";
  return { check, status: "fail", found, cure: "see the pod of istio-cni-node on this node, and its log" };
}

function rules({ hostRules, agent }: NodeFacts): NodeFinding {
  const check = "probe rules";
  if ("unknown" in hostRules) return { check, status: "warn", found: hostRules.unknown, cure: "run doctor as root" };
  if (hostRules.length === 0) return { check, status: "ok", found: "the node's own probes reach enrolled pods" };
  if (!agent) return { check, status: "ok", found: "none, as there is no agent" };
  const cure =
    "with iptables that is as it should be; else wait for the agent's audit, and look for a firewall that flushes";
  return { check, status: "warn", found: `not in nf_tables: ${hostRules.join("; ")}`, cure };
}

function mounts({ propagation, processes }: NodeFacts): NodeFinding[] {
  return [
    processes ? { check: "node's processes", status: "ok", found: "pods that run can be found" } : {
      check: "node's processes",
      status: "fail",
      found: "the node's /proc is not to be seen",
      cure: "mount the node's /proc at /host/proc",
    },
    ...propagation === undefined ? [] : [
      propagation ? { check: "pods' namespaces", status: "ok" as const, found: "new ones show here" } : {
        check: "pods' namespaces",
        status: "fail" as const,
        found: "new ones do not show here, so that no new pod can be enrolled",
        cure: "mount /var/run/netns with mountPropagation: HostToContainer; with minikube it is /var/run/docker/netns",
      },
    ],
  ];
}

function hostRules(): NodeFacts["hostRules"] {
  try {
    using probes = new HostProbes();
    return probes.check();
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    return { unknown: "the host's rules cannot be read" };
  }
}

/** A mount that gets what is mounted in the node's namespace: shared with it, or its slave (proc_pid_mountinfo(5)). */
export function isPropagated(mountinfo: string, path: string): boolean {
  return mountinfo.split("\n").some((line) => {
    const fields = line.split(" "), optional = fields.slice(6, fields.indexOf("-", 6));
    return fields[4] === path && optional.some((it) => it.startsWith("master:") || it.startsWith("shared:"));
  });
}

/** The beginning of what stands under the plugin's name; a program of another make may be large. */
function scriptOf(path: string): string | undefined {
  try {
    using file = Deno.openSync(path);
    const bytes = new Uint8Array(SCRIPT_BYTES), count = file.readSync(bytes) ?? 0;
    return new TextDecoder().decode(bytes.subarray(0, count));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

function isFolder(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.PermissionDenied) return false;
    throw error;
  }
}
