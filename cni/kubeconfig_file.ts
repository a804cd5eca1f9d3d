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

/** Reads what {@link formatPluginKubeconfig} wrote, or Istio's agent in the same place. Throws when it is something else. */
export function parsePluginKubeconfig(text: string): KubeAccess {
  const fields = text.startsWith("{") ? ownFields(text) : istioFields(text), { ca, server, token } = fields;
  if (typeof token !== "string" || typeof server !== "string" || (ca !== undefined && typeof ca !== "string")) {
    throw new TypeError("not our kubeconfig");
  }
  return {
    server: new URL(server),
    ca: ca === undefined ? undefined : new TextDecoder().decode(Uint8Array.fromBase64(ca)),
    serverName: undefined,
    insecure: fields.insecure,
    credentials: fixedCredentials({ token }),
    headers: {},
    namespace: "",
    source: "the plugin's kubeconfig",
  };
}

interface KubeconfigFields {
  readonly server: unknown;
  readonly ca: unknown;
  readonly insecure: boolean;
  readonly token: unknown;
}

function ownFields(text: string): KubeconfigFields {
  const config = JSON.parse(text), cluster = config.clusters[0].cluster;
  return {
    server: cluster.server,
    ca: cluster["certificate-authority-data"],
    insecure: cluster["insecure-skip-tls-verify"] === true,
    token: config.users[0].user.token,
  };
}

/** Istio's agent writes YAML, always of one form, a key a line (CNI-034): for that the plugin needs no reader of YAML (CNI-021). */
function istioFields(text: string): KubeconfigFields {
  const field = (key: string) => new RegExp(`^ *${key}: *"?([^"\\s]+)"? *$`, "m").exec(text)?.[1];
  return {
    server: field("server"),
    ca: field("certificate-authority-data"),
    insecure: field("insecure-skip-tls-verify") === "true",
    token: field("token"),
  };
}
