/** A Kubernetes API of its own for a test: etcd and kube-apiserver on loopback, with ports, folder and users of their own. */
import type { Definitions, EtcdVersion, KubeParts } from "./parts.ts";
import { kubeParts } from "./parts.ts";
import { freePort } from "./free_port.ts";
import { PartProcess } from "./part_process.ts";
import { AUDIT_POLICY, type AuditedCall, readAudit } from "./audit.ts";
import { writeKeyPair } from "./account_key.ts";
import { until } from "./until.ts";

const ISSUER = "https://kubernetes.default.svc";
const SERVICE_RANGE = "10.96.0.0/16";
const ANSWER_MS = 10_000; // of one that may not answer yet; it is asked again
const ADMIN_TOKEN = "admin-token-of-a-test";

export interface ApiServerOptions {
  /** 3.6 has streaming lists, 3.4 has none: the poor case. */
  readonly etcd?: EtcdVersion;
  /** Applied before it is handed over. */
  readonly definitions?: readonly Definitions[];
  /** Further users by name; the token is the name with `-token` behind it. `admin` is there. */
  readonly users?: readonly string[];
  /** Controllers of kube-controller-manager to run, by their names; none: it is not started. */
  readonly controllers?: readonly string[];
  /** Off: every list and watch goes to etcd, so that a compaction is felt at once. */
  readonly watchCache?: boolean;
  /** Further flags of kube-apiserver. */
  readonly flags?: readonly string[];
  /** Whether every call is written down with who made it and what allowed it, for {@link ApiServer.calls}. */
  readonly audit?: boolean;
}

/** Starts everything and returns once it serves. @throws MeshError if a part cannot be had or does not start. */
export async function startApiServer(options: ApiServerOptions = {}): Promise<ApiServer> {
  const parts = await kubeParts(), folder = await Deno.makeTempDir({ prefix: "ambit-kube-" });
  const server = new ApiServer(parts, folder, options);
  try {
    await server.begin();
  } catch (error) {
    await server[Symbol.asyncDispose]();
    throw error;
  }
  return server;
}

/** A running API; dispose it and nothing is left of it. */
export class ApiServer implements AsyncDisposable {
  readonly folder: string;
  /** The administrator's. */
  readonly kubeconfig: string;
  readonly url: string;
  readonly adminToken = ADMIN_TOKEN;
  readonly etcd: PartProcess;
  readonly apiServer: PartProcess;
  readonly controllers: PartProcess | undefined;
  readonly #parts: KubeParts;
  readonly #options: ApiServerOptions;
  readonly #etcdUrl: string;

  constructor(parts: KubeParts, folder: string, options: ApiServerOptions) {
    this.folder = folder;
    this.kubeconfig = `${folder}/admin.kubeconfig`;
    this.#parts = parts;
    this.#options = options;
    const port = freePort();
    this.url = `https://127.0.0.1:${port}`;
    this.#etcdUrl = `http://127.0.0.1:${freePort()}`;
    this.etcd = this.#etcdProcess();
    this.apiServer = this.#apiServerProcess(port);
    this.controllers = options.controllers === undefined ? undefined : this.#controllerProcess(options.controllers);
  }

  /** Starts what was constructed. */
  async begin(): Promise<void> {
    const { users = [], definitions = [] } = this.#options;
    await writeKeyPair(`${this.folder}/account`);
    const rows = users.map((name) => `${name}-token,${name},${name}`);
    const tokens = [`${ADMIN_TOKEN},admin,admin,system:masters`, ...rows];
    await Deno.writeTextFile(`${this.folder}/tokens.csv`, tokens.join("\n") + "\n");
    await Deno.writeTextFile(`${this.folder}/audit.yaml`, AUDIT_POLICY);
    await this.etcd.start();
    await this.apiServer.start();
    await this.writeKubeconfig("admin", ADMIN_TOKEN);
    for (const name of users) await this.writeKubeconfig(name, `${name}-token`);
    await this.controllers?.start();
    for (const set of definitions) await this.#define(set);
  }

  /** Writes a kubeconfig for whoever the token is of. @returns Its path. */
  async writeKubeconfig(name: string, token: string): Promise<string> {
    const path = `${this.folder}/${name}.kubeconfig`;
    const config = {
      apiVersion: "v1",
      kind: "Config",
      clusters: [{ name: "test", cluster: { server: this.url, "certificate-authority": this.rootsPath } }],
      users: [{ name, user: { token } }],
      contexts: [{ name: "test", context: { cluster: "test", user: name } }],
      "current-context": "test",
    };
    await Deno.writeTextFile(path, JSON.stringify(config), { mode: 0o600 });
    return path;
  }

  /** What the API server's certificate leads to. */
  get rootsPath(): string {
    return `${this.folder}/pki/apiserver.crt`;
  }

  /** Runs kubectl as the administrator, or as whoever the kubeconfig is of. @returns What it printed. @throws Error if it fails. */
  async kubectl(
    args: readonly string[],
    { stdin, kubeconfig = this.kubeconfig }: { stdin?: string; kubeconfig?: string } = {},
  ): Promise<string> {
    const child = new Deno.Command(this.#parts.kubectl, {
      args: ["--kubeconfig", kubeconfig, "--cache-dir", `${this.folder}/kubectl`, ...args],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(stdin ?? ""));
    await writer.close();
    const { success, code, stdout, stderr } = await child.output();
    if (success) return new TextDecoder().decode(stdout);
    throw new Error(`kubectl ${args.join(" ")} ended with status ${code}: ${new TextDecoder().decode(stderr)}`);
  }

  /** Applies objects; a status among them is written too. */
  async apply(...objects: readonly object[]): Promise<void> {
    const list = JSON.stringify({ apiVersion: "v1", kind: "List", items: objects });
    await this.kubectl(["apply", "--server-side", "--force-conflicts", "-f", "-"], { stdin: list });
    const withStatus = objects.filter((it) => "status" in it);
    if (withStatus.length === 0) return;
    const statuses = JSON.stringify({ apiVersion: "v1", kind: "List", items: withStatus });
    const args = ["apply", "--server-side", "--force-conflicts", "--subresource=status", "-f", "-"];
    await this.kubectl(args, { stdin: statuses });
  }

  /** A service account's token, minted by the API server itself. @param pod binds it to one. */
  async accountToken(namespace: string, account: string, audience?: string, pod?: string): Promise<string> {
    const audiences = audience === undefined ? [] : [`--audience=${audience}`];
    const bound = pod === undefined ? [] : ["--bound-object-kind=Pod", `--bound-object-name=${pod}`];
    return (await this.kubectl(["create", "token", account, "-n", namespace, ...audiences, ...bound])).trim();
  }

  /** Makes etcd forget everything but the present: what is asked from an older version on is answered 410. */
  async compact(): Promise<void> {
    const post = async (path: string, body: object) => {
      const response = await fetch(`${this.#etcdUrl}/v3/kv/${path}`, { method: "POST", body: JSON.stringify(body) });
      const text = await response.text();
      if (!response.ok) throw new Error(`etcd answered ${response.status} to ${path}: ${text}`);
      return JSON.parse(text) as { header?: { revision?: string } };
    };
    const { header } = await post("range", { key: btoa("/"), limit: "1" });
    await post("compaction", { revision: header?.revision ?? "0", physical: true });
  }

  /** Every call written down so far. */
  calls(): Promise<AuditedCall[]> {
    return readAudit(`${this.folder}/audit.log`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.controllers?.kill(), this.apiServer.kill()]); // Without its etcd the API server would linger.
    await this.etcd.kill();
    await Deno.remove(this.folder, { recursive: true });
  }

  #etcdProcess(): PartProcess {
    const { folder } = this, peer = `http://127.0.0.1:${freePort()}`, url = this.#etcdUrl;
    const args = ["--data-dir", `${folder}/etcd`, "--unsafe-no-fsync", "--log-level", "warn"];
    args.push("--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peer);
    args.push("--initial-advertise-peer-urls", peer, "--initial-cluster", `default=${peer}`);
    return new PartProcess("etcd", {
      command: this.#parts.etcd[this.#options.etcd ?? "3.6"],
      args,
      logPath: `${folder}/etcd.log`,
      isReady: () => answers(`${url}/health`, undefined),
    });
  }

  #apiServerProcess(port: number): PartProcess {
    const { folder } = this, { watchCache = true, audit = false, flags = [] } = this.#options;
    const own = {
      "etcd-servers": this.#etcdUrl,
      "bind-address": "127.0.0.1",
      "advertise-address": "127.0.0.1",
      "secure-port": `${port}`,
      "cert-dir": `${folder}/pki`,
      "token-auth-file": `${folder}/tokens.csv`,
      "authorization-mode": "RBAC",
      "service-account-issuer": ISSUER,
      "service-account-key-file": `${folder}/account.pub`,
      "service-account-signing-key-file": `${folder}/account.key`,
      "service-cluster-ip-range": SERVICE_RANGE,
      "watch-cache": `${watchCache}`,
      // Nobody fills in the account's mounts here, and pods name accounts before these are made.
      "disable-admission-plugins": "ServiceAccount",
      ...(audit ? { "audit-policy-file": `${folder}/audit.yaml`, "audit-log-path": `${folder}/audit.log` } : {}),
    };
    return new PartProcess("kube-apiserver", {
      command: this.#parts.apiServer,
      args: [...Object.entries(own).map(([name, value]) => `--${name}=${value}`), ...flags],
      logPath: `${folder}/apiserver.log`,
      isReady: () => answers(`${this.url}/readyz`, this.rootsPath),
    });
  }

  #controllerProcess(names: readonly string[]): PartProcess {
    const { folder, kubeconfig } = this, port = freePort();
    const own = {
      kubeconfig,
      controllers: names.join(","),
      "service-account-private-key-file": `${folder}/account.key`,
      "root-ca-file": this.rootsPath,
      "bind-address": "127.0.0.1",
      "secure-port": `${port}`,
      "cert-dir": `${folder}/controllers`,
      "leader-elect": "false",
      "kube-api-qps": "1000",
      "kube-api-burst": "2000",
    };
    const roots = `${folder}/controllers/kube-controller-manager.crt`;
    return new PartProcess("kube-controller-manager", {
      command: this.#parts.controllerManager,
      args: Object.entries(own).map(([name, value]) => `--${name}=${value}`),
      logPath: `${folder}/controllers.log`,
      isReady: () => answers(`https://127.0.0.1:${port}/healthz`, roots),
    });
  }

  async #define(set: Definitions): Promise<void> {
    const path = this.#parts.definitions[set];
    await this.kubectl(["apply", "--server-side", "-f", path]);
    // Not `kubectl wait`: it fails at one that is so new that it has no conditions at all.
    await until(() => this.#areEstablished(), "the definitions are established", 180_000);
  }

  async #areEstablished(): Promise<boolean> {
    const { items } = JSON.parse(await this.kubectl(["get", "crd", "-o", "json"])) as {
      items: { status?: { conditions?: { type: string; status: string }[] | null } }[];
    };
    return items.length > 0 &&
      items.every(({ status }) =>
        status?.conditions?.some(({ type, status }) => type === "Established" && status === "True") === true
      );
  }
}

/** Whether the page says 200. @param rootsPath of the server's certificate, which may not be there yet. */
async function answers(url: string, rootsPath: string | undefined): Promise<boolean> {
  try {
    const caCerts = rootsPath === undefined ? [] : [await Deno.readTextFile(rootsPath)];
    using client = Deno.createHttpClient({ caCerts });
    const headers = { authorization: `Bearer ${ADMIN_TOKEN}` };
    const signal = AbortSignal.timeout(ANSWER_MS);
    const response = await fetch(url, { client, signal, ...(rootsPath === undefined ? {} : { headers }) });
    await response.body?.cancel();
    return response.ok;
  } catch (error) {
    if (error instanceof TypeError || error instanceof Deno.errors.NotFound) return false; // Not listening yet.
    if (error instanceof DOMException) return false; // Listening, and no more.
    throw error;
  }
}
