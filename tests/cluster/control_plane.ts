/** The control plane of a cluster: etcd, kube-apiserver, kube-controller-manager, kube-scheduler and CoreDNS. */
import { TestCa } from "../../kube/pki_testing.ts";
import { AUDIT_POLICY } from "../kube/audit.ts";
import { writeKeyPair } from "../kube/account_key.ts";
import { PartProcess } from "../kube/part_process.ts";
import {
  API_SERVICE,
  API_URL,
  CONTROL_PLANE,
  DNS_SERVICE,
  type NodeLayout,
  POD_RANGE,
  SERVICE_RANGE,
} from "./layout.ts";
import type { ClusterParts } from "./parts.ts";

const ETCD_URL = "http://127.0.0.1:2379", ETCD_PEER = "http://127.0.0.1:2380";
const SCHEDULER_PORT = 10259, CONTROLLERS_PORT = 10257, DNS_HEALTH_PORT = 8081;

/** Programs of the control plane and of nodes, by the names that Kubernetes gives rights to. */
const USERS: Readonly<Record<string, { readonly user: string; readonly group?: string }>> = {
  admin: { user: "admin", group: "system:masters" },
  controllers: { user: "system:kube-controller-manager" },
  scheduler: { user: "system:kube-scheduler" },
  proxy: { user: "system:kube-proxy" },
};

/** Makes keys, users and kubeconfigs in the folder. @returns The administrator's kubeconfig. */
export async function writeCredentials(folder: string, nodes: readonly NodeLayout[]): Promise<string> {
  const ca = await TestCa.create("CN=cluster"), pki = `${folder}/pki`;
  await Deno.mkdir(pki);
  await Deno.writeTextFile(`${pki}/ca.crt`, ca.pem);
  const names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
  const serving = await ca.issue("CN=kube-apiserver", [
    ...names.map((value) => ({ type: "dns" as const, value })),
    ...[CONTROL_PLANE, API_SERVICE, "127.0.0.1"].map((value) => ({ type: "ip" as const, value })),
  ]);
  const client = await ca.issue("O=system:masters, CN=kubelet-client");
  for (const [name, pair] of Object.entries({ serving, client })) {
    await Deno.writeTextFile(`${pki}/${name}.crt`, pair.certificate);
    await Deno.writeTextFile(`${pki}/${name}.key`, pair.key, { mode: 0o600 });
  }
  await writeKeyPair(`${pki}/account`);
  const kubelets = nodes.map(({ name }) => [name, { user: `system:node:${name}`, group: "system:nodes" }] as const);
  const rows: string[] = [];
  for (const [name, { user, group }] of [...Object.entries(USERS), ...kubelets]) {
    const token = crypto.randomUUID();
    rows.push([token, user, user, ...(group === undefined ? [] : [`"${group}"`])].join(","));
    await Deno.writeTextFile(`${folder}/${name}.kubeconfig`, kubeconfig(`${pki}/ca.crt`, token), { mode: 0o600 });
  }
  await Deno.writeTextFile(`${pki}/tokens.csv`, `${rows.join("\n")}\n`, { mode: 0o600 });
  await Deno.writeTextFile(`${folder}/audit.yaml`, AUDIT_POLICY);
  return `${folder}/admin.kubeconfig`;
}

function kubeconfig(roots: string, token: string): string {
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "cluster", cluster: { server: API_URL, "certificate-authority": roots } }],
    users: [{ name: "user", user: { token } }],
    contexts: [{ name: "cluster", context: { cluster: "cluster", user: "user" } }],
    "current-context": "cluster",
  });
}

/** Starts etcd and the API server; the rest can come once that serves. */
export async function startApi(folder: string, { kube }: ClusterParts): Promise<void> {
  const part = starter(folder), pki = `${folder}/pki`;
  await part("etcd", kube.etcd["3.6"], {
    "data-dir": `${folder}/etcd`,
    "unsafe-no-fsync": "true",
    "log-level": "warn",
    "listen-client-urls": ETCD_URL,
    "advertise-client-urls": ETCD_URL,
    "listen-peer-urls": ETCD_PEER,
    "initial-advertise-peer-urls": ETCD_PEER,
    "initial-cluster": `default=${ETCD_PEER}`,
  }, () => serves(`${ETCD_URL}/health`));
  await part("kube-apiserver", kube.apiServer, {
    "etcd-servers": ETCD_URL,
    "bind-address": "0.0.0.0",
    "advertise-address": CONTROL_PLANE,
    "secure-port": "6443",
    "tls-cert-file": `${pki}/serving.crt`,
    "tls-private-key-file": `${pki}/serving.key`,
    "client-ca-file": `${pki}/ca.crt`,
    "kubelet-client-certificate": `${pki}/client.crt`,
    "kubelet-client-key": `${pki}/client.key`,
    "kubelet-preferred-address-types": "InternalIP",
    "token-auth-file": `${pki}/tokens.csv`,
    "authorization-mode": "Node,RBAC",
    "enable-admission-plugins": "NodeRestriction",
    "service-account-issuer": "https://kubernetes.default.svc",
    "service-account-key-file": `${pki}/account.pub`,
    "service-account-signing-key-file": `${pki}/account.key`,
    "service-cluster-ip-range": SERVICE_RANGE,
    // Webhooks are reached at their pods: no kube-proxy runs beside the API server.
    "enable-aggregator-routing": "true",
    "allow-privileged": "true",
    "audit-policy-file": `${folder}/audit.yaml`,
    "audit-log-path": `${folder}/audit.log`,
  }, async () => serves(`${API_URL}/readyz`, await roots(folder)));
}

/** Starts what acts on the API's objects. */
export async function startControllers(folder: string, { kube, scheduler, coredns }: ClusterParts): Promise<void> {
  const part = starter(folder), pki = `${folder}/pki`;
  const own = { "tls-cert-file": `${pki}/serving.crt`, "tls-private-key-file": `${pki}/serving.key` };
  const local = { "bind-address": "127.0.0.1", "leader-elect": "false", ...own };
  const healthy = async (port: number) => serves(`https://127.0.0.1:${port}/healthz`, await roots(folder));
  await Deno.writeTextFile(`${folder}/Corefile`, corefile(`${folder}/admin.kubeconfig`));
  await Promise.all([
    part("kube-controller-manager", kube.controllerManager, {
      ...local,
      kubeconfig: `${folder}/controllers.kubeconfig`,
      "secure-port": `${CONTROLLERS_PORT}`,
      "service-account-private-key-file": `${pki}/account.key`,
      "root-ca-file": `${pki}/ca.crt`,
      "use-service-account-credentials": "true",
      "cluster-cidr": POD_RANGE,
    }, () => healthy(CONTROLLERS_PORT)),
    part("kube-scheduler", scheduler, {
      ...local,
      kubeconfig: `${folder}/scheduler.kubeconfig`,
      "secure-port": `${SCHEDULER_PORT}`,
    }, () => healthy(SCHEDULER_PORT)),
    part(
      "coredns",
      coredns,
      { conf: `${folder}/Corefile` },
      () => serves(`http://127.0.0.1:${DNS_HEALTH_PORT}/health`),
    ),
  ]);
}

/** The cluster's name service: CoreDNS beside the API server, behind the usual Service address. */
export const DNS_OBJECTS = [
  {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: "kube-dns", namespace: "kube-system", labels: { "k8s-app": "kube-dns" } },
    spec: {
      clusterIP: DNS_SERVICE,
      ports: [{ name: "dns", port: 53, protocol: "UDP" }, { name: "dns-tcp", port: 53, protocol: "TCP" }],
    },
  },
  {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: { name: "kube-dns", namespace: "kube-system", labels: { "kubernetes.io/service-name": "kube-dns" } },
    addressType: "IPv4",
    endpoints: [{ addresses: [CONTROL_PLANE], conditions: { ready: true } }],
    ports: [{ name: "dns", port: 53, protocol: "UDP" }, { name: "dns-tcp", port: 53, protocol: "TCP" }],
  },
];

function corefile(kubeconfig: string): string {
  return `.:53 {
  bind ${CONTROL_PLANE}
  errors
  health 127.0.0.1:${DNS_HEALTH_PORT}
  kubernetes cluster.local in-addr.arpa ip6.arpa {
    kubeconfig ${kubeconfig} cluster
    pods insecure
  }
}
`;
}

type StartPart = (
  name: string,
  command: string,
  flags: Readonly<Record<string, string>>,
  isReady: () => Promise<boolean>,
) => Promise<void>;

/** Starts programs that log into the folder and end with us. */
function starter(folder: string): StartPart {
  return async (name, command, flags, isReady) => {
    const prefix = name === "coredns" ? "-" : "--";
    const args = Object.entries(flags).map(([flag, value]) => `${prefix}${flag}=${value}`);
    await new PartProcess(name, { command, args, logPath: `${folder}/log/${name}.log`, isReady }).start();
  };
}

const roots = (folder: string) => Deno.readTextFile(`${folder}/pki/ca.crt`);

async function serves(url: string, roots?: string): Promise<boolean> {
  try {
    using client = Deno.createHttpClient({ caCerts: roots === undefined ? [] : [roots] });
    const response = await fetch(url, { client });
    await response.body?.cancel();
    return response.ok || response.status === 401; // It serves, and does not know us.
  } catch (error) {
    if (error instanceof TypeError || error instanceof Deno.errors.NotFound) return false; // Not yet.
    throw error;
  }
}
