/** The settings of role istiod, as one table. */
import { type ConfigOf, defineConfig, duration, integer, list, listenAddress, optional, text } from "../base/config.ts";

const DAY_MS = 86_400_000;
const YEAR_MS = 365 * DAY_MS;

/** The default that {@link listenOn} makes of an address that is not given. */
const listenText = (port: number) => `127.0.0.1:${port}, in a pod of a cluster :${port}`;

export const ISTIOD_CONFIG = defineConfig("ambit istiod", {
  configDir: {
    kind: optional(text("DIR")),
    flag: "config-dir",
    env: "AMBIT_CONFIG_DIR",
    default: undefined,
    defaultText: "the objects of a cluster",
    help: "folder of Kubernetes objects in YAML, watched for changes, in place of a cluster",
  },
  kubeconfig: {
    kind: optional(text("PATH")),
    flag: "kubeconfig",
    env: "KUBECONFIG",
    default: undefined,
    defaultText: "the service account of the pod this runs in",
    help: "file that says how to reach the cluster's API server; of no account with --config-dir",
  },
  systemNamespace: {
    kind: optional(text("NAME")),
    flag: "system-namespace",
    env: "POD_NAMESPACE",
    default: undefined,
    defaultText: "the root namespace",
    help: "namespace that istiod runs in: its host names, its ConfigMaps, Secrets and Leases",
  },
  podName: {
    kind: optional(text("NAME")),
    flag: "pod-name",
    env: "POD_NAME",
    default: undefined,
    defaultText: "the host's name",
    help: "what this istiod is called among others of its kind",
  },
  revision: {
    kind: text("NAME"),
    flag: "revision",
    env: "REVISION",
    default: "",
    help: "which istiod of several this is: objects labelled istio.io/rev with another are left to that one",
  },
  stateDir: {
    kind: text("DIR"),
    flag: "state-dir",
    env: "AMBIT_STATE_DIR",
    help: "folder for the CA's and the token issuer's keys; made if it is not there",
  },
  secureGrpcAddress: {
    kind: optional(listenAddress()),
    flag: "secure-grpc-address",
    default: undefined,
    defaultText: listenText(15012),
    help: "where xDS and the CA are served, over TLS",
  },
  httpAddress: {
    kind: optional(listenAddress()),
    flag: "http-address",
    default: undefined,
    defaultText: listenText(8080),
    help: "where /ready and the debug pages are served",
  },
  monitoringAddress: {
    kind: optional(listenAddress()),
    flag: "monitoring-address",
    default: undefined,
    defaultText: listenText(15014),
    help: "where /metrics, /version and the debug pages are served",
  },
  clusterId: {
    kind: text("NAME"),
    flag: "cluster-id",
    env: "CLUSTER_ID",
    default: "Kubernetes",
    help: "name of this cluster; clients say it in their calls",
  },
  trustDomain: {
    kind: text("DOMAIN"),
    flag: "trust-domain",
    env: "TRUST_DOMAIN",
    default: "cluster.local",
    help: "trust domain of the identities that are served and signed",
  },
  network: {
    kind: text("NAME"),
    flag: "network",
    env: "NETWORK",
    default: "",
    help: "network of the addresses in the folder",
  },
  rootNamespace: {
    kind: text("NAME"),
    flag: "root-namespace",
    env: "ISTIO_ROOT_NAMESPACE",
    default: "istio-system",
    help: "namespace whose policies hold for the whole mesh",
  },
  serverHosts: {
    kind: list("HOST,IP"),
    flag: "server-hosts",
    env: "ISTIOD_CUSTOM_HOST",
    default: Object.freeze(["localhost", "127.0.0.1", "::1"]) as readonly string[],
    help: "further names and addresses in the server certificate, by which clients may reach it",
  },
  caDir: {
    kind: optional(text("DIR")),
    flag: "ca-dir",
    env: "ROOT_CA_DIR",
    default: undefined,
    defaultText: "a self-signed root, made once in the state folder",
    help: "folder with ca-cert.pem, ca-key.pem, root-cert.pem and cert-chain.pem to sign with",
  },
  trustedNodeAccounts: {
    kind: list("NAMESPACE/ACCOUNT"),
    flag: "trusted-node-accounts",
    env: "CA_TRUSTED_NODE_ACCOUNTS",
    default: Object.freeze(["istio-system/ztunnel"]) as readonly string[],
    help: "accounts of node proxies, which may ask for certificates of the pods on their node",
  },
  clusterAliases: {
    kind: list("ALIAS=CLUSTER"),
    flag: "cluster-aliases",
    default: Object.freeze([]) as readonly string[],
    help: "other names that clients may say for a cluster",
  },
  tokenAudiences: {
    kind: list("AUDIENCE"),
    flag: "token-audiences",
    env: "TOKEN_AUDIENCES",
    default: Object.freeze(["istio-ca"]) as readonly string[],
    help: "a cluster's service account tokens must be for one of these",
  },
  defaultCertificateTtlMs: {
    kind: duration(60_000, YEAR_MS),
    flag: "default-workload-cert-ttl",
    env: "DEFAULT_WORKLOAD_CERT_TTL",
    default: DAY_MS,
    help: "life of a certificate when the request names none",
  },
  maxCertificateTtlMs: {
    kind: duration(60_000, YEAR_MS),
    flag: "max-workload-cert-ttl",
    env: "MAX_WORKLOAD_CERT_TTL",
    default: 90 * DAY_MS,
    help: "longest life that may be asked for",
  },
  debounceQuietMs: {
    kind: duration(0, 60_000),
    flag: "debounce-after",
    env: "PILOT_DEBOUNCE_AFTER",
    default: 100,
    help: "quiet time that ends a burst of changes; a lone change is pushed sooner",
  },
  debounceMaxMs: {
    kind: duration(0, 600_000),
    flag: "debounce-max",
    env: "PILOT_DEBOUNCE_MAX",
    default: 10_000,
    help: "longest time a change waits for its burst to end",
  },
  newStreamsPerSecond: {
    kind: optional(integer(1, 100_000)),
    flag: "max-requests-per-second",
    env: "PILOT_MAX_REQUESTS_PER_SECOND",
    default: undefined,
    defaultText: "15 and 5 for each processor, at most 100",
    help: "new xDS streams let in per second",
  },
  keepaliveIntervalMs: {
    kind: duration(1_000, 3_600_000),
    flag: "keepalive-interval",
    default: 30_000,
    help: "how often a silent connection is pinged",
  },
  keepaliveTimeoutMs: {
    kind: duration(1_000, 600_000),
    flag: "keepalive-timeout",
    default: 10_000,
    help: "how long a ping may stay unanswered before the connection is closed",
  },
  shutdownMs: {
    kind: duration(0, 600_000),
    flag: "shutdown-duration",
    default: 10_000,
    help: "how long clients may take to leave when istiod ends",
  },
  connectionAgeMsMax: {
    kind: duration(60_000, YEAR_MS),
    flag: "keepalive-max-server-connection-age",
    default: 30 * 60_000,
    help: "after this long a client is asked to reconnect, which also renews its authentication",
  },
});

export type IstiodConfig = ConfigOf<typeof ISTIOD_CONFIG.table>;
