/** Access from inside a pod: the environment says where the API server is, mounted files say whom to trust and who we are. */
import { MeshError } from "../base/errors.ts";
import type { KubeAccess } from "./access.ts";
import { readTextBounded, TokenFile } from "./file_credentials.ts";
import { certificatesProblem } from "./pem_files.ts";
import { dialBy, environmentsProxy } from "./proxy_connection.ts";

const FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount";

/** Whether the environment is that of a pod. */
export function isInCluster(environment: Readonly<Record<string, string | undefined>>): boolean {
  return (environment.KUBERNETES_SERVICE_HOST ?? "") !== "" && (environment.KUBERNETES_SERVICE_PORT ?? "") !== "";
}

/** @param options `folder`: where the service account's files are mounted. @throws MeshError AMB0805, AMB0807, AMB0840. */
export async function inClusterAccess(
  options: { environment?: Readonly<Record<string, string | undefined>>; folder?: string; now?: () => number } = {},
): Promise<KubeAccess> {
  const environment = options.environment ?? Deno.env.toObject(), folder = options.folder ?? FOLDER;
  const host = environment.KUBERNETES_SERVICE_HOST ?? "", port = environment.KUBERNETES_SERVICE_PORT ?? "";
  const server = URL.parse(`https://${host.includes(":") ? `[${host}]` : host}:${port}`);
  if (!isInCluster(environment) || server === null || !/^\d+$/.test(port)) {
    throw new MeshError("AMB0805", `finding the API server by KUBERNETES_SERVICE_HOST="${host}" and _PORT="${port}"`, {
      remedy: "run it in a pod of the cluster, or name a kubeconfig",
    });
  }
  const remedy = "mount the pod's service account token (automountServiceAccountToken)";
  let ca: string, namespace = "";
  try {
    ca = await readTextBounded(`${folder}/ca.crt`);
  } catch (error) {
    throw new MeshError("AMB0805", `reading the API server's CA from ${folder}/ca.crt`, { remedy, cause: error });
  }
  const problem = certificatesProblem(ca);
  if (problem !== undefined) {
    throw new MeshError("AMB0805", `reading the API server's CA: ${folder}/ca.crt ${problem}`, { remedy });
  }
  try {
    namespace = (await readTextBounded(`${folder}/namespace`)).trim();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error; // It tells where we are; nothing here needs it.
  }
  const credentials = new TokenFile(`${folder}/token`, options.now);
  await credentials.current();
  const proxy = environmentsProxy(server, environment);
  return {
    server,
    ca,
    dial: proxy && dialBy(proxy),
    serverName: undefined,
    insecure: false,
    credentials,
    headers: {},
    namespace,
    source: "in-cluster",
  };
}
