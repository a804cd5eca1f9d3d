/** By what means the node agents redirect: chosen at the installation, and changed while the mesh runs. */
import type { BackendName } from "../../cni/redirection/redirection.ts";
import { type Cluster, MANIFESTS, SYSTEM } from "./rig.ts";

export const AGENT = "daemonset/istio-cni-node", AGENT_PODS = "k8s-app=istio-cni-node";
/** In an order in which each finds what one of another kind has left in pods; before the first it is the last, by `auto`. */
export const MEANS: readonly BackendName[] = ["iptables-nft", "nft-binary", "iptables-legacy", "bpf", "nft"];
const VARIABLE = "AMBIT_REDIRECT", AUDIT = "1h", ROLLOUT = "120s";

/** What `--redirection` names. */
export function meansAsked(): string | undefined {
  return Deno.env.get("AMBIT_CLUSTER_REDIRECTION");
}

/**
 * A kustomization of the kind that a user writes who wants eBPF, or may want it later: the mesh's with the component for
 * it, and one setting. @returns Its folder.
 */
export async function writeKustomization(cluster: Cluster, means: string): Promise<string> {
  const folder = `${cluster.folder}/mesh`, base = `${"../".repeat(folder.split("/").length - 1)}${MANIFESTS.slice(1)}`;
  await Deno.mkdir(folder, { recursive: true });
  const agent = {
    apiVersion: "apps/v1",
    kind: "DaemonSet",
    metadata: { name: "istio-cni-node" },
    spec: {
      updateStrategy: { rollingUpdate: { maxUnavailable: "100%" } }, // The suite changes agents more often than anybody.
      template: {
        spec: {
          containers: [{
            name: "install-cni",
            args: ["cni", "--audit-interval", AUDIT], // What is wrong is to be seen, and not repaired meanwhile.
            env: [{ name: VARIABLE, value: means }],
          }],
        },
      },
    },
  };
  const kustomization = {
    apiVersion: "kustomize.config.k8s.io/v1beta1",
    kind: "Kustomization",
    resources: [base],
    components: [`${base}/components/bpf`],
    patches: [{ target: { kind: "DaemonSet", name: "istio-cni-node" }, patch: JSON.stringify(agent) }],
  };
  await Deno.writeTextFile(`${folder}/kustomization.yaml`, JSON.stringify(kustomization));
  return folder;
}

/** Changes the means of all nodes at once. @throws Error if a node's agent does not take them. */
export async function redirectBy(cluster: Cluster, means: BackendName): Promise<void> {
  await cluster.kubectl(["set", "env", AGENT, "-n", SYSTEM, `${VARIABLE}=${means}`]);
  await cluster.kubectl(["rollout", "status", AGENT, "-n", SYSTEM, `--timeout=${ROLLOUT}`]);
  for (const [node, said] of await meansChosen(cluster)) {
    if (said.backend !== means) throw new Error(`${node} does not redirect by ${means}: ${said.line}`);
  }
}

/** What each node's agent has chosen, by its log. */
export async function meansChosen(cluster: Cluster): Promise<Map<string, { backend: string; line: string }>> {
  const chosen = new Map<string, { backend: string; line: string }>();
  for (const { metadata, spec } of await cluster.pods(SYSTEM, AGENT_PODS)) {
    if (metadata.deletionTimestamp !== undefined) continue;
    const log = await cluster.kubectl(["logs", "-n", SYSTEM, metadata.name]);
    const line = log.split("\n").find((it) => /redirection (chosen|by BPF is not possible)/.test(it)) ?? "nothing said";
    chosen.set(spec.nodeName ?? "nowhere", { backend: /backend\W+([\w-]+)/.exec(line)?.[1] ?? "none", line });
  }
  return chosen;
}
