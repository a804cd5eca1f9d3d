/** Two control planes over one API server: who writes, what becomes of it when he dies, and that no client is told of it. */
import { assert, assertEquals } from "@std/assert";
import * as grpc from "@grpc/grpc-js";
import { Logger } from "../../base/log.ts";
import type { ResourceType } from "../../kube/api.ts";
import { AUTHORIZATION_POLICIES, GATEWAY_CLASSES, LEASES, SERVICE_ENTRIES } from "../../kube/resource_types.ts";
import type { InMemoryKubeApi } from "../../kube/testing.ts";
import { smallMesh, until } from "../../control/cluster/testing.ts";
import { ISTIOD_CONFIG } from "../../control/config.ts";
import { type RunningIstiod, startIstiod } from "../../control/main.ts";
import { Path } from "../../control/status/testing.ts";
import { isFields } from "../../base/plain.ts";
import { conditionsOf } from "../../control/status/conditions.ts";
import { Stream } from "./xds_rig.ts";

const LEASE_MS = 10_000; // Longer than a busy machine holds back who renews it.

/** One istiod with its own way to the API server. */
class Istiod {
  readonly path = new Path();
  readonly stop = new AbortController();
  readonly lines: string[] = [];
  readonly #folder = Deno.makeTempDirSync({ prefix: "istiod-ha-" });
  readonly #api: InMemoryKubeApi;
  readonly #name: string;
  running: RunningIstiod | undefined;

  constructor(api: InMemoryKubeApi, name: string) {
    this.#api = api;
    this.#name = name;
  }

  async start(): Promise<void> {
    const addresses = ["secure-grpc", "grpc", "http", "https", "monitoring"].map((it) => `--${it}-address=127.0.0.1:0`);
    const flags = [
      ...addresses,
      `--state-dir=${this.#folder}`,
      `--mesh-config=${this.#folder}/none`,
      `--pod-name=${this.#name}`,
      `--leader-lease=${LEASE_MS}ms`,
    ];
    const { config } = ISTIOD_CONFIG.parse(flags, () => undefined);
    const log = new Logger("istiod", { sink: (line) => this.lines.push(line) });
    this.running = await startIstiod(config, { signal: this.stop.signal, log, api: this.path.through(this.#api) });
  }

  metrics(): Promise<string> {
    return fetch(`http://127.0.0.1:${this.running!.httpPort}/metrics`).then((response) => response.text());
  }

  /** As a killed process: nothing it does reaches the API server any more, so that it releases nothing. */
  async kill(): Promise<void> {
    this.path.state = "cut";
    await this.end();
  }

  async end(): Promise<void> {
    this.stop.abort();
    await this.running?.done;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
    await Deno.remove(this.#folder, { recursive: true });
  }
}

function put(api: InMemoryKubeApi, type: ResourceType, name: string, spec: object): void {
  api.put(type, { metadata: { name, namespace: "shop", creationTimestamp: "2026-01-01T00:00:00Z" }, spec });
}

function entry(api: InMemoryKubeApi, name: string): void {
  const ports = [{ number: 80, name: "http", protocol: "HTTP" }];
  put(api, SERVICE_ENTRIES, name, { hosts: [`${name}.test`], ports, resolution: "DNS" });
}

function statusOf(api: InMemoryKubeApi, type: ResourceType, name: string): Readonly<Record<string, unknown>> {
  const status = api.object(type, type.namespaced ? "shop" : "", name)?.["status"];
  return isFields(status) ? status : {};
}

function addresses(api: InMemoryKubeApi, name: string): readonly { readonly value: string }[] {
  return statusOf(api, SERVICE_ENTRIES, name)["addresses"] as { value: string }[] ?? [];
}

function says(api: InMemoryKubeApi, type: ResourceType, name: string, condition: string): boolean {
  return conditionsOf(statusOf(api, type, name)).some((it) => it["type"] === condition && it["status"] === "True");
}

function holders(api: InMemoryKubeApi): string[] {
  const specs = api.objects(LEASES).map((lease) => lease["spec"] as { readonly holderIdentity: string });
  return specs.map(({ holderIdentity }) => holderIdentity);
}

Deno.test("of two istiods one writes, and when it is killed the other, whose clients see nothing of it (CP-650, CP-654, CP-656)", async () => {
  const api = smallMesh();
  await using first = new Istiod(api, "istiod-1");
  await using second = new Istiod(api, "istiod-2");
  entry(api, "early");
  await first.start();
  await until("the first writes", () => addresses(api, "early").length === 2);
  await second.start();
  await until("policies have their condition", () => says(api, AUTHORIZATION_POLICIES, "closed", "ZtunnelAccepted"));
  await until("classes are there, and accepted", () => says(api, GATEWAY_CLASSES, "istio-waypoint", "Accepted"));
  assertEquals(new Set(holders(api)), new Set(["istiod-1"]));

  const client = new grpc.Client(`127.0.0.1:${second.running!.grpcPort}`, grpc.credentials.createInsecure());
  using stream = new Stream(client, new grpc.Metadata());
  stream.send({ node: { id: "ztunnel~10.0.0.1~ztunnel-x.istio-system~istio-system.svc.cluster.local", metadata: {} } });
  const names = () => stream.responses.flatMap(({ resources }) => resources.map(({ name }) => name));
  await until("the client has the mesh", () => names().includes("shop/early.test"));

  await first.kill();
  const killedAtMs = performance.now();
  entry(api, "late");
  put(api, AUTHORIZATION_POLICIES, "late", { selector: { matchLabels: { app: "cart" } }, rules: [{}] });
  assertEquals(addresses(api, "late"), []);
  await until("the other writes addresses", () => addresses(api, "late").length === 2);
  await until("and conditions", () => says(api, AUTHORIZATION_POLICIES, "late", "ZtunnelAccepted"));
  const tookMs = performance.now() - killedAtMs;
  assert(
    tookMs > LEASE_MS / 2,
    `it took over ${tookMs} ms after the other's death: too soon for a lease of ${LEASE_MS} ms`,
  );
  await until("every lock is its own", () => holders(api).every((holder) => holder === "istiod-2"));
  assert((await second.metrics()).includes('ambit_leader{lock="istio-status-leader"} 1'));
  assertEquals(
    addresses(api, "late").map(({ value }) => value),
    ["240.240.0.2", "2001:2::2"],
    "what the first gave is kept",
  );

  await until("the client hears of it", () => names().includes("shop/late.test"));
  assertEquals(stream.responses.flatMap(({ removedResources }) => removedResources), []);
  assertEquals(stream.ended, undefined);
});

Deno.test("an istiod that ends leaves the lead at once, without waiting for the lease (CP-650, CP-660)", async () => {
  const api = smallMesh();
  await using first = new Istiod(api, "istiod-1");
  await using second = new Istiod(api, "istiod-2");
  await first.start();
  await until("the first leads", () => holders(api).length === 2 && holders(api).every((it) => it === "istiod-1"));
  await second.start();
  await first.end();
  assert(holders(api).every((it) => it !== "istiod-1"), "it holds none any more");
  assert(first.lines.some((line) => line.includes("lock released")));
  await until("the second leads", () => holders(api).every((it) => it === "istiod-2"));
});
