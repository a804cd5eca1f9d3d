/** The whole role from its settings: start, pages, changes of the folder, stop. */
import { connect, type Settings } from "node:http2";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { MeshError } from "../base/errors.ts";
import { Logger } from "../base/log.ts";
import { HeldPort } from "../os/held_port_testing.ts";
import { until } from "./cluster/testing.ts";
import { ISTIOD_CONFIG } from "./config.ts";
import { type RunningIstiod, startIstiod } from "./main.ts";

const POD = `
apiVersion: v1
kind: Pod
metadata: {name: cart-1, namespace: shop}
spec: {serviceAccountName: cart, nodeName: node-1, containers: []}
status: {phase: Running, podIP: 10.0.0.5, podIPs: [{ip: 10.0.0.5}]}
`;

class Rig implements AsyncDisposable {
  readonly folder: string;
  readonly lines: string[] = [];
  readonly #stop = new AbortController();
  #running: RunningIstiod | undefined;

  private constructor(folder: string) {
    this.folder = folder;
  }

  static async create(): Promise<Rig> {
    const folder = await Deno.makeTempDir({ prefix: "istiod-" });
    await Deno.mkdir(`${folder}/objects`);
    await Deno.writeTextFile(`${folder}/objects/pod.yaml`, POD);
    return new Rig(folder);
  }

  async start(...flags: string[]): Promise<RunningIstiod> {
    const local = ["--secure-grpc-address", "--http-address", "--monitoring-address"].map((flag) =>
      `${flag}=127.0.0.1:0`
    );
    const places = [`--config-dir=${this.folder}/objects`, `--state-dir=${this.folder}/state`];
    const given = new Set(flags.map((flag) => flag.split("=")[0]));
    const all = [...flags, ...[...local, ...places].filter((flag) => !given.has(flag.split("=")[0]))];
    const { config } = ISTIOD_CONFIG.parse(all, () => undefined);
    const log = new Logger("istiod", { sink: (line) => this.lines.push(line) });
    return this.#running = await startIstiod(config, { signal: this.#stop.signal, log });
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running?.done;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await Deno.remove(this.folder, { recursive: true });
  }
}

async function get(port: number, path: string, init?: RequestInit): Promise<[number, string]> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, init);
  return [response.status, await response.text()];
}

Deno.test("startIstiod() is ready once it serves, and says what it watches and who it is (CP-011, CP-012)", async () => {
  await using rig = await Rig.create();
  const { httpPort, monitoringPort, rootsPem } = await rig.start("--trust-domain=example.org");
  assertEquals(await get(httpPort, "/ready"), [200, ""]);
  assertEquals(JSON.parse((await get(httpPort, "/debug/configz"))[1]), ["Pod/shop/cart-1"]);
  assertEquals((await get(httpPort, "/debug/syncz"))[1], "[]\n");
  const [status, metrics] = await get(monitoringPort, "/metrics");
  assertEquals(status, 200);
  for (
    const line of ["pilot_xds 0", "pilot_services 0", 'ambit_resources{type="wds"} 1', "citadel_server_csr_count 0"]
  ) {
    assertStringIncludes(metrics, `\n${line}\n`);
  }
  assertEquals(await Deno.readTextFile(`${rig.folder}/state/root-cert.pem`), rootsPem);
  const log = rig.lines.join("\n");
  assertStringIncludes(log, `watching a folder of Kubernetes objects\tdirectory="${rig.folder}/objects"`);
  assert(/istiod is ready\t.*secureGrpcPort=\d+ .*trustDomain="example.org"/.test(log), log);
});

Deno.test("discovery selectors of a folder's mesh settings hold for its objects, too (CP-104)", async () => {
  await using rig = await Rig.create();
  const { monitoringPort } = await rig.start();
  const served = async () =>
    /ambit_resources\{type="wds"\} (\d+)/.exec((await get(monitoringPort, "/metrics"))[1])?.[1];
  assertEquals(await served(), "1");
  const settings = (selectors: string) => `
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "discoverySelectors: ${selectors}"}
`;
  const write = (text: string) => Deno.writeTextFile(`${rig.folder}/objects/mesh.yaml`, text);
  await write(settings("[{matchLabels: {mesh: on-it}}]"));
  await until("the pod is shut out", async () => await served() === "0");
  await write(settings("[]"));
  await until("the pod is back", async () => await served() === "1");
});

Deno.test("the debug pages answer GET only, and only to this machine by its own names (CP-016)", async () => {
  await using rig = await Rig.create();
  const { httpPort } = await rig.start();
  assertEquals((await get(httpPort, "/nothing"))[0], 404);
  assertEquals((await get(httpPort, "/debug/syncz", { method: "POST" }))[0], 405);
  const connection = await Deno.connect({ hostname: "127.0.0.1", port: httpPort });
  await connection.write(
    new TextEncoder().encode("GET /debug/configz HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"),
  );
  assertStringIncludes(await new Response(connection.readable).text(), "HTTP/1.1 401");
});

Deno.test("startIstiod() keeps its root over a restart, and everything is closed in between", async () => {
  await using rig = await Rig.create();
  using held = new HeldPort(); // One that istiod was given and gives back may be another test's the next moment.
  const first = await rig.start(`--http-address=127.0.0.1:${held.port}`);
  assertEquals(await get(held.port, "/ready"), [200, ""]);
  await rig.stop();
  await assertRejects(() => fetch(`http://127.0.0.1:${held.port}/ready`));
  await using other = await Rig.create();
  const second = await other.start(`--state-dir=${rig.folder}/state`);
  assertEquals(second.rootsPem, first.rootsPem);
});

Deno.test("startIstiod() fails with a remedy, and leaves nothing open, when it cannot have what it needs (CP-500)", async () => {
  await using running = await Rig.create();
  const taken = (await running.start()).secureGrpcPort;
  const cases: [string, string][] = [
    ["--config-dir=/nonexistent/objects", "AMB0350"],
    ["--ca-dir=/nonexistent/ca", "AMB0212"],
    ["--state-dir=/proc/none", "AMB0210"],
    [`--secure-grpc-address=127.0.0.1:${taken}`, "AMB0220"],
    [`--http-address=127.0.0.1:${taken}`, "AMB0221"],
  ];
  for (const [flag, code] of cases) {
    await using rig = await Rig.create();
    const error = await assertRejects(() => rig.start(flag), MeshError);
    assertEquals([flag, error.code], [flag, code]);
    assert(error.remedy.length > 10);
  }
});

Deno.test("ISTIOD_CONFIG has Istio's own variables and defaults", () => {
  const env: Record<string, string> = { CA_TRUSTED_NODE_ACCOUNTS: "a/b, c/d", PILOT_DEBOUNCE_AFTER: "250ms" };
  const { config } = ISTIOD_CONFIG.parse(["--config-dir=x", "--state-dir=y"], (name) => env[name]);
  assertEquals(config.trustedNodeAccounts, ["a/b", "c/d"]);
  assertEquals([config.debounceQuietMs, config.debounceMaxMs], [250, 10_000]);
  assertEquals([config.secureGrpcAddress, config.shutdownMs], [undefined, 10_000]);
  assertStringIncludes(ISTIOD_CONFIG.help("istiod"), "--max-workload-cert-ttl DURATION");
});

Deno.test("startIstiod() does not sign in the stead of another signer that was asked for (CP-005, CP-495)", async () => {
  for (const flag of ["--external-ca=ISTIOD_RA_KUBERNETES_API", "--cert-provider=k8s.io/signer"]) {
    await using rig = await Rig.create();
    const error = await assertRejects(() => rig.start(flag), MeshError, "is not offered");
    assertEquals(error.code, "AMB0259");
  }
});

Deno.test("startIstiod() takes the limits of its gRPC from Istio's settings (CP-003, CP-008)", async () => {
  const env = new Map([["ISTIO_GPRC_MAXSTREAMS", "7"], ["ISTIO_GPRC_MAXRECVMSGSIZE", "70000"]]);
  const { config } = ISTIOD_CONFIG.parse(["--config-dir=/"], (name) => env.get(name));
  assertEquals([config.grpcStreamsMax, config.grpcRequestBytesMax, config.connectionAgeMsMax], [7, 70_000, 1_800_000]);
  await using rig = await Rig.create();
  const { secureGrpcPort, rootsPem } = await rig.start(
    "--max-grpc-streams=7",
    "--max-grpc-request-size=70000",
    "--tls-min-version=TLSV1_3",
  );
  const options = { ca: rootsPem, maxVersion: "TLSv1.2" } as const, url = `https://localhost:${secureGrpcPort}`;
  const old = connect(url, options), refused = new Promise((resolve) => old.on("error", resolve));
  assert(await refused instanceof Error);
  const session = connect(url, { ca: rootsPem });
  const settings = await new Promise<Settings>((resolve) => session.on("remoteSettings", resolve));
  assertEquals(settings.maxConcurrentStreams, 7);
  const closed = new Promise<void>((resolve) => session.on("close", resolve));
  session.close();
  await closed;
});
