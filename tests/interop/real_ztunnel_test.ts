/**
 * A ztunnel of another make against our istiod. Needs root and AMBIT_PEER_ZTUNNEL, the path of its program; without the
 * variable the tests are shown as ignored.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { LogFilter, Logger } from "../../base/log.ts";
import { ISTIOD_CONFIG } from "../../control/config.ts";
import { type RunningIstiod, startIstiod } from "../../control/main.ts";
import { TokenIssuer } from "../../control/tokens.ts";

const PEER = Deno.env.get("AMBIT_PEER_ZTUNNEL");
const CART = "spiffe://cluster.local/ns/shop/sa/cart";

const OBJECTS = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-1, namespace: shop, labels: {app: cart}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {serviceAccountName: cart, nodeName: node-1, containers: [{name: c, ports: [{containerPort: 80}]}]}
status: {phase: Running, podIP: 10.0.0.5, podIPs: [{ip: 10.0.0.5}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.9.0.1, clusterIPs: [10.9.0.1], selector: {app: cart}, ports: [{name: http, port: 80, targetPort: 8080}]}
`;

const POLICY = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-shop, namespace: shop}
spec: {action: ALLOW, rules: [{from: [{source: {namespaces: [shop]}}]}]}
`;

async function command(program: string, ...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(program, { args }).output();
  if (!success) throw new Error(`${program} ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}

let made = 0;

/** A network namespace joined to ours by one link, in which the peer has all its ports to itself. */
class PeerNamespace implements AsyncDisposable {
  readonly name = `ambxi${Deno.pid}-${++made}`; // The kernel takes the link of a namespace that is gone away later.
  readonly link = this.name.slice(0, 15);
  /** Ours on the link, where istiod listens. */
  readonly gateway: string;

  constructor() {
    this.gateway = `10.255.${Deno.pid % 250}.1`;
  }

  async create(): Promise<this> {
    const inside = this.gateway.replace(/1$/, "2");
    await command("ip", "netns", "add", this.name);
    await command("ip", "link", "add", this.link, "type", "veth", "peer", "name", "eth0", "netns", this.name);
    await command("ip", "addr", "add", `${this.gateway}/30`, "dev", this.link);
    await command("ip", "link", "set", this.link, "up");
    await this.run("ip", "link", "set", "lo", "up");
    await this.run("ip", "addr", "add", `${inside}/30`, "dev", "eth0");
    await this.run("ip", "link", "set", "eth0", "up");
    return this;
  }

  run(...args: string[]): Promise<string> {
    return command("nsenter", `--net=/run/netns/${this.name}`, ...args);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await command("ip", "netns", "del", this.name);
  }
}

/** Our istiod on the link of a namespace, fed from a folder of its own. */
class Istiod implements AsyncDisposable {
  readonly #stop = new AbortController();
  readonly folder: string;
  readonly running: RunningIstiod;

  private constructor(folder: string, running: RunningIstiod, stop: AbortController) {
    this.folder = folder;
    this.running = running;
    this.#stop = stop;
  }

  static async start(host: string): Promise<Istiod> {
    const folder = await Deno.makeTempDir({ prefix: "peer-ztunnel-" });
    await Deno.mkdir(`${folder}/objects`);
    await Deno.writeTextFile(`${folder}/objects/mesh.yaml`, OBJECTS);
    const flags = ["--config-dir", `${folder}/objects`, "--state-dir", `${folder}/state`, "--server-hosts", host];
    flags.push("--secure-grpc-address", `${host}:0`, "--http-address=127.0.0.1:0", "--monitoring-address=127.0.0.1:0");
    const { config } = ISTIOD_CONFIG.parse(flags, () => undefined);
    const stop = new AbortController();
    const log = new Logger("istiod", { filter: new LogFilter("error") });
    return new Istiod(folder, await startIstiod(config, { signal: stop.signal, log }), stop);
  }

  async writeToken(subject: { namespace: string; serviceAccount: string; pod: string; node: string }): Promise<string> {
    const issuer = await TokenIssuer.open(`${this.folder}/state`);
    const path = `${this.folder}/token`;
    await Deno.writeTextFile(
      path,
      await issuer.mint({ podUid: "", ...subject }, { ttlMs: 600_000, nowMs: Date.now() }),
    );
    return path;
  }

  async syncz(): Promise<
    { proxy: string; resources: Record<string, { sent: string; acked: string; lastError?: string }> }[]
  > {
    return await (await fetch(`http://127.0.0.1:${this.running.httpPort}/debug/syncz`)).json();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.running.done;
    await Deno.remove(this.folder, { recursive: true });
  }
}

interface Dump {
  readonly workloads: {
    uid: string;
    workloadIps: string[];
    protocol: string;
    serviceAccount: string;
    services: string[];
  }[];
  readonly services: {
    hostname: string;
    vips: string[];
    ports: Record<string, number>;
    endpoints: Record<string, unknown>;
  }[];
  readonly policies: { name: string; namespace: string; action: string; scope: string }[];
  readonly certificates: { identity: string; state: string; certChain: { serialNumber: string }[] }[];
}

/** The other ztunnel, running in a namespace. */
class PeerZtunnel implements AsyncDisposable {
  readonly #namespace: PeerNamespace;
  readonly #process: Deno.ChildProcess;
  readonly #log: Promise<[string, string]>;

  constructor(namespace: PeerNamespace, istiod: Istiod, env: Record<string, string>) {
    this.#namespace = namespace;
    const address = `https://${namespace.gateway}:${istiod.running.secureGrpcPort}`;
    const root = `${istiod.folder}/state/root-cert.pem`;
    this.#process = new Deno.Command("nsenter", {
      args: [`--net=/run/netns/${namespace.name}`, PEER!, "proxy", "ztunnel"],
      env: {
        XDS_ADDRESS: address,
        CA_ADDRESS: address,
        XDS_ROOT_CA: root,
        CA_ROOT_CA: root,
        NODE_NAME: "node-1",
        ISTIO_META_DNS_CAPTURE: "false",
        INPOD_UDS: `${istiod.folder}/no-cni.sock`,
        PROXY_CONFIG: '{"proxyAdminPort": 15000, "concurrency": 1, "proxyMetadata": {}}',
        ...env,
      },
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#log = Promise.all([
      new Response(this.#process.stdout).text(),
      new Response(this.#process.stderr).text(),
    ]);
  }

  /** Its state, as its admin page tells it; undefined until the page answers. */
  async dump(): Promise<Dump | undefined> {
    const args = [
      `--net=/run/netns/${this.#namespace.name}`,
      "curl",
      "-s",
      "-m",
      "5",
      "http://localhost:15000/config_dump",
    ];
    const { success, stdout } = await new Deno.Command("nsenter", { args }).output();
    return success ? JSON.parse(new TextDecoder().decode(stdout)) : undefined;
  }

  /** Polls the state until it satisfies. @throws Error with the process's log at the deadline. */
  async until(condition: (dump: Dump) => boolean, what: string): Promise<Dump> {
    const deadlineMs = performance.now() + 60_000;
    for (;;) {
      const dump = await this.dump();
      if (dump !== undefined && condition(dump)) return dump;
      if (performance.now() > deadlineMs) {
        this.#kill();
        const [out, err] = await this.#log;
        throw new Error(
          `not in time: ${what}\n${JSON.stringify(dump)?.slice(0, 3_000)}\n${out.slice(-3_000)}${err}`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  #kill(): void {
    try {
      this.#process.kill("SIGKILL");
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // It has ended already.
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#kill();
    await Promise.all([this.#process.status, this.#log]);
  }
}

const OPTIONS = { ignore: PEER === undefined };

Deno.test(
  "istiod feeds a ztunnel of another make in dedicated mode: state, changes, certificate",
  OPTIONS,
  async () => {
    await using namespace = await new PeerNamespace().create();
    await using istiod = await Istiod.start(namespace.gateway);
    const token = await istiod.writeToken({ namespace: "shop", serviceAccount: "cart", pod: "cart-1", node: "node-1" });
    await using peer = new PeerZtunnel(namespace, istiod, {
      PROXY_MODE: "dedicated",
      PROXY_WORKLOAD_INFO: "shop/cart-1/cart",
      AUTH_TOKEN: token,
      POD_NAME: "cart-1",
      POD_NAMESPACE: "shop",
      SERVICE_ACCOUNT: "cart",
      INSTANCE_IP: "10.0.0.5",
    });
    const first = await peer.until(
      ({ workloads, services }) => workloads.length + services.length === 2,
      "the first state",
    );
    const { uid, workloadIps, protocol, serviceAccount, services } = first.workloads[0]!;
    assertEquals({ uid, workloadIps, protocol, serviceAccount, services }, {
      uid: "Kubernetes//Pod/shop/cart-1",
      workloadIps: ["10.0.0.5"],
      protocol: "HBONE",
      serviceAccount: "cart",
      services: ["shop/cart.shop.svc.cluster.local"],
    });
    const { hostname, vips, ports, endpoints } = first.services[0]!;
    assertEquals([hostname, vips, ports], ["cart.shop.svc.cluster.local", ["/10.9.0.1"], { "80": 8080 }]);
    assertEquals(Object.keys(endpoints), [uid]);
    assertEquals(first.policies, []);

    await Deno.writeTextFile(`${istiod.folder}/objects/policy.yaml`, POLICY);
    const second = await peer.until(({ policies }) => policies.length === 1, "the policy");
    assertEquals(second.policies.map(({ name, action, scope }) => [name, action, scope]), [[
      "only-shop",
      "Allow",
      "Namespace",
    ]]);
    await Deno.remove(`${istiod.folder}/objects/policy.yaml`);
    await peer.until(({ policies }) => policies.length === 0, "the policy's removal");

    // In dedicated mode a certificate is fetched when a handshake first needs it.
    const handshake = namespace.run("sh", "-c", "openssl s_client -connect 127.0.0.1:15008 </dev/null 2>&1 || true");
    const third = await peer.until(({ certificates }) => certificates[0]?.state === "Available", "the certificate");
    assertEquals(third.certificates.map(({ identity }) => identity), [CART]);
    assertEquals(third.certificates[0]!.certChain.length, 1);
    assertStringIncludes(await handshake, "issuer=O = cluster.local");

    const [row] = await istiod.syncz();
    assertEquals(row!.proxy, "cart-1.shop");
    const types = Object.values(row!.resources);
    assertEquals(types.map(({ lastError }) => lastError ?? ""), ["", ""]);
    assert(types.every(({ sent, acked }) => sent === acked), "all is acknowledged");
  },
);

Deno.test("istiod certifies a pod for the shared ztunnel of its node, and for no other node's", OPTIONS, async () => {
  await using namespace = await new PeerNamespace().create();
  await using istiod = await Istiod.start(namespace.gateway);
  const account = { namespace: "istio-system", serviceAccount: "ztunnel", pod: "ztunnel-x" };
  const shared = {
    PROXY_MODE: "shared",
    POD_NAME: "ztunnel-x",
    POD_NAMESPACE: "istio-system",
    SERVICE_ACCOUNT: "ztunnel",
  };
  const issued = async () => {
    const text = await (await fetch(`http://127.0.0.1:${istiod.running.monitoringPort}/metrics`)).text();
    const count = (name: string) => Number(new RegExp(`^citadel_server_${name} (\\d+)$`, "m").exec(text)![1]);
    return { issued: count("success_cert_issuance_count"), refused: count("id_extraction_err_count") };
  };
  {
    const token = await istiod.writeToken({ ...account, node: "node-2" });
    // It says that it is on node-1, but its token is bound to node-2.
    await using peer = new PeerZtunnel(namespace, istiod, { ...shared, AUTH_TOKEN: token });
    await peer.until(({ workloads }) => workloads.length === 1, "the state");
    let counts = await issued();
    const deadlineMs = performance.now() + 60_000;
    while (counts.refused === 0 && performance.now() < deadlineMs) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      counts = await issued();
    }
    assert(counts.refused > 0 && counts.issued === 0, "refused, and nothing signed");
  }
  const token = await istiod.writeToken({ ...account, node: "node-1" });
  await using peer = new PeerZtunnel(namespace, istiod, { ...shared, AUTH_TOKEN: token });
  const dump = await peer.until(
    ({ certificates }) => certificates.some((it) => it.state === "Available"),
    "the certificate",
  );
  assertEquals(dump.certificates.map(({ identity }) => identity), [CART]);
});
