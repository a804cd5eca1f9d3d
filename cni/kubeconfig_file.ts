/** The plugin's kubeconfig: written by the agent, read by the plugin; JSON, which is YAML too, so that others can read it (CNI-034). Pure. */
import { fixedCredentials, type KubeAccess } from "../kube/access.ts";

/** What the plugin reaches the API server by. */
export interface PluginAccess {
  /** `https://10.96.0.1:443` */
  readonly server: string;
  /** PEM; empty where the server's certificate is taken unseen. */
  readonly ca: string;
  readonly token: string;
}

/** In the agent's run folder. */
export const KUBECONFIG_FILE = "istio-cni-kubeconfig";
const CLUSTER = "local", USER = "istio-cni", CONTEXT = "istio-cni-context";

export function formatPluginKubeconfig({ server, ca, token }: PluginAccess): string {
  const trust = ca === ""
    ? { "insecure-skip-tls-verify": true }
    : { "certificate-authority-data": new TextEncoder().encode(ca).toBase64() };
  const config = {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: CLUSTER, cluster: { server, ...trust } }],
    users: [{ name: USER, user: { token } }],
    contexts: [{ name: CONTEXT, context: { cluster: CLUSTER, user: USER } }],
    "current-context": CONTEXT,
  };
  return `${JSON.stringify(config, undefined, 2)}\n`;
}

/** Reads what {@link formatPluginKubeconfig} wrote. Throws when it is something else. */
export function parsePluginKubeconfig(text: string): KubeAccess {
  const config = JSON.parse(text), cluster = config.clusters[0].cluster, ca = cluster["certificate-authority-data"];
  const token: unknown = config.users[0].user.token;
  if (typeof token !== "string" || (ca !== undefined && typeof ca !== "string")) {
    throw new TypeError("not our kubeconfig");
  }
  return {
    server: new URL(cluster.server),
    ca: ca === undefined ? undefined : new TextDecoder().decode(Uint8Array.fromBase64(ca)),
    serverName: undefined,
    insecure: cluster["insecure-skip-tls-verify"] === true,
    credentials: fixedCredentials({ token }),
    headers: {},
    namespace: "",
    source: "the plugin's kubeconfig",
  };
}
