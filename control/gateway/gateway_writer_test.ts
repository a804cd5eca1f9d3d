/** The status of Gateways and classes on its way to the API server: whose it is, how often it is written, what stays. */
import { assert, assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import type { Plain } from "../../base/plain.ts";
import { KubeError, type ResourceType } from "../../kube/api.ts";
import { ENDPOINT_SLICES, GATEWAY_CLASSES, GATEWAYS, NAMESPACES, SERVICES } from "../../kube/resource_types.ts";
import { InMemoryKubeApi } from "../../kube/testing.ts";
import { AmbientIndex } from "../ambient/index.ts";
import { Field } from "../decode/field.ts";
import { decodeObject } from "../decode/kinds.ts";
import { Metrics } from "../../base/metrics.ts";
import { type ObjectChange, type ObjectKey, objectKey, type ObjectKind } from "../objects.ts";
import { conditionsOf } from "../status/conditions.ts";
import { ControllerMetrics } from "../status/controller_metrics.ts";
import { RevisionTags } from "../status/revision_tags.ts";
import { StatusMirror } from "../status/status_mirror.ts";
import { settle, SimulatedClock } from "../status/testing.ts";
import { ClassKeeper } from "./class_keeper.ts";
import { builtInClasses } from "./classes.ts";
import { GatewayWriter } from "./gateway_writer.ts";

const TYPES = [NAMESPACES, GATEWAY_CLASSES, GATEWAYS, SERVICES, ENDPOINT_SLICES];

class Rig {
  readonly clock = new SimulatedClock();
  readonly api = new InMemoryKubeApi();
  readonly index = new AmbientIndex();
  readonly mirror = new StatusMirror();
  readonly tags: RevisionTags;
  readonly metrics = new ControllerMetrics(new Metrics());
  readonly log = new Logger("gateway", { sink: () => {} });
  readonly writer: GatewayWriter;
  readonly keeper: ClassKeeper;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>[] = [];
  #seen = new Set<ObjectKey>();

  constructor(revision = "") {
    this.tags = new RevisionTags(revision);
    const { sources, gatewayStatuses: wanted } = this.index.graph, { api, mirror, tags, metrics, log, clock } = this;
    const shared = { api, metrics, log, clock };
    this.writer = new GatewayWriter({ ...shared, sources, mirror, tags, wanted });
    this.keeper = new ClassKeeper({ ...shared, classes: builtInClasses(false), existing: sources.GatewayClass });
    this.index.follow(wanted, (changes) => this.writer.wantedChanged(changes));
    this.put(GATEWAY_CLASSES, "istio-waypoint", { controllerName: "istio.io/mesh-controller" });
  }

  put(
    type: ResourceType,
    name: string,
    spec: object,
    more: { labels?: object; status?: object; metadata?: object } = {},
  ): void {
    const namespace = type.namespaced ? { namespace: "shop" } : {};
    const { labels = {}, status, metadata = {} } = more;
    const body = type === ENDPOINT_SLICES ? spec : { spec };
    this.api.put(type, { metadata: { name, ...namespace, labels, ...metadata }, ...body, ...(status && { status }) });
  }

  waypoint(name = "wp", labels: object = {}, className = "istio-waypoint"): void {
    const spec = { gatewayClassName: className, listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }] };
    this.put(GATEWAYS, name, spec, { labels });
  }

  service(name = "wp"): void {
    const spec = { clusterIP: "10.96.0.9", clusterIPs: ["10.96.0.9"], ports: [{ name: "mesh", port: 15008 }] };
    this.put(SERVICES, name, spec);
  }

  slice(ready: boolean, service = "wp"): void {
    const endpoints = [{ addresses: ["10.0.0.1"], conditions: { ready } }];
    const slice = { addressType: "IPv4", endpoints, ports: [{ name: "mesh", port: 15008, protocol: "TCP" }] };
    this.put(ENDPOINT_SLICES, `${service}-1`, slice, { labels: { "kubernetes.io/service-name": service } });
  }

  /** The watches tell of everything as it is now. */
  async see(): Promise<void> {
    const changes: ObjectChange[] = [], keys = new Set<ObjectKey>();
    for (const type of TYPES) {
      for (const given of this.api.objects(type)) {
        const { name, namespace = "" } = given.metadata,
          kind = type.kind as ObjectKind,
          key = objectKey(kind, namespace, name);
        keys.add(key);
        this.mirror.note(kind, { namespace, name }, given);
        changes.push({ kind, key, object: decodeObject(new Field(given as Plain), { kind, namespace, name }) });
      }
    }
    for (const key of this.#seen) {
      const [kind, namespace = "", name = ""] = key.split("/");
      if (keys.has(key)) continue;
      this.mirror.note(kind!, { namespace, name }, undefined);
      changes.push({ kind: kind as ObjectKind, key, object: undefined });
    }
    this.#seen = keys;
    this.index.apply(changes);
    this.writer.changed(changes);
    this.keeper.changed(changes);
    await settle();
  }

  async lead(): Promise<void> {
    this.#running.push(this.writer.lead(this.#stop.signal));
    await settle();
  }

  async keep(): Promise<void> {
    this.#running.push(this.keeper.run(this.#stop.signal));
    await settle();
  }

  status(type: ResourceType, name: string): Readonly<Record<string, unknown>> {
    const object = this.api.object(type, type.namespaced ? "shop" : "", name);
    return (object?.["status"] ?? {}) as Readonly<Record<string, unknown>>;
  }

  said(name = "wp"): Record<string, string> {
    return Object.fromEntries(
      conditionsOf(this.status(GATEWAYS, name)).map((it) => [it["type"], `${it["status"]} ${it["reason"]}`]),
    );
  }

  addresses(name = "wp"): unknown {
    return (this.status(GATEWAYS, name)["addresses"] as { value: string }[] | undefined)?.map(({ value }) => value);
  }

  get writes(): number {
    return this.api.calls.filter(({ verb }) => verb === "patch").length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#running);
    assertEquals(this.clock.waiting, 0);
  }
}

Deno.test("GatewayWriter follows a waypoint from nothing to its addresses, which it keeps (CP-570, CP-572)", async () => {
  await using rig = new Rig();
  rig.waypoint();
  await rig.see();
  assertEquals(rig.writes, 0, "nothing while another leads");
  await rig.lead();
  assertEquals(rig.said()["Programmed"], "False NotDeployed");
  rig.service();
  await rig.see();
  assertEquals([rig.said()["Programmed"], rig.addresses()], ["False AddressNotAssigned", undefined]);
  rig.slice(true);
  await rig.see();
  const addresses = ["10.96.0.9", "wp.shop.svc.cluster.local"];
  assertEquals([rig.said()["Programmed"], rig.addresses()], ["True Programmed", addresses]);
  rig.slice(false);
  await rig.see();
  assertEquals([rig.said()["Programmed"], rig.addresses()], ["False AddressNotAssigned", addresses]);
  rig.api.remove(SERVICES, "shop", "wp");
  await rig.see();
  assertEquals([rig.said()["Programmed"], rig.addresses()], ["False NotDeployed", addresses]);
  const writes = rig.writes;
  await rig.see();
  await rig.see();
  assertEquals(rig.writes, writes, "what is the same is not written");
});

Deno.test("GatewayWriter moves a condition's time with its status alone, and leaves others' conditions (CP-570)", async () => {
  await using rig = new Rig();
  const foreign = {
    type: "example.com/Seen",
    status: "True",
    reason: "Yes",
    message: "",
    lastTransitionTime: "2020-01-01T00:00:00Z",
  };
  rig.waypoint();
  rig.api.put(GATEWAYS, { ...rig.api.object(GATEWAYS, "shop", "wp")!, status: { conditions: [foreign] } });
  await rig.see();
  await rig.lead();
  await rig.see();
  await rig.clock.advance(60_000);
  rig.service();
  await rig.see();
  const times = conditionsOf(rig.status(GATEWAYS, "wp")).map((it) => `${it["type"]} ${it["lastTransitionTime"]}`);
  const at = "2023-11-14T22:13:20Z";
  assertEquals(times, [
    `${foreign.type} ${foreign.lastTransitionTime}`,
    `Accepted ${at}`,
    `Programmed ${at}`,
    `ResolvedRefs ${at}`,
  ]);
});

Deno.test("GatewayWriter takes listeners that are gone out of the status, whoever wrote them (CP-570)", async () => {
  await using rig = new Rig();
  rig.waypoint();
  const old = { name: "old", supportedKinds: [], attachedRoutes: 3, conditions: [] };
  rig.api.put(GATEWAYS, { ...rig.api.object(GATEWAYS, "shop", "wp")!, status: { listeners: [old] } });
  await rig.see();
  await rig.lead();
  const listeners = rig.status(GATEWAYS, "wp")["listeners"] as { name: string }[];
  assertEquals(listeners.map(({ name }) => name), ["mesh"]);
});

Deno.test("GatewayWriter writes to Gateways of its own revision and tags alone, live (CP-583, CP-662)", async () => {
  await using rig = new Rig("blue");
  rig.put(NAMESPACES, "shop", {});
  rig.waypoint("ours", { "istio.io/rev": "blue" });
  rig.waypoint("tagged", { "istio.io/rev": "prod" });
  rig.waypoint("theirs", { "istio.io/rev": "green" });
  rig.waypoint("unnamed");
  rig.waypoint("nginx", { "istio.io/rev": "blue" }, "nginx");
  await rig.see();
  await rig.lead();
  const written = () =>
    ["ours", "tagged", "theirs", "unnamed", "nginx"].filter((name) => rig.said(name)["Accepted"] !== undefined);
  assertEquals(written(), ["ours"]);
  rig.tags.note("Service", "prod", new Map([["istio.io/tag", "prod"], ["istio.io/rev", "blue"]]));
  await settle();
  assertEquals(written(), ["ours", "tagged"]);
  rig.put(NAMESPACES, "shop", {}, { labels: { "istio.io/rev": "blue" } });
  await rig.see();
  assertEquals(written(), ["ours", "tagged", "unnamed"]);
});

Deno.test("GatewayWriter looks again when another wrote in between (CP-570)", async () => {
  await using rig = new Rig();
  rig.waypoint();
  await rig.see();
  const foreign = { type: "example.com/Seen", status: "True", reason: "Yes", message: "" };
  rig.api.put(GATEWAYS, { ...rig.api.object(GATEWAYS, "shop", "wp")!, status: { conditions: [foreign] } });
  await rig.lead();
  assertEquals(Object.keys(rig.said()), [foreign.type, "Accepted", "Programmed", "ResolvedRefs"]);
  assertEquals(rig.metrics.writes("gateways", "conflict"), 1);
});

Deno.test("GatewayWriter accepts the classes of our controllers, and no others (CP-550)", async () => {
  await using rig = new Rig();
  rig.put(GATEWAY_CLASSES, "mine", { controllerName: "istio.io/mesh-controller" });
  rig.put(GATEWAY_CLASSES, "ingress", { controllerName: "istio.io/gateway-controller" });
  await rig.see();
  await rig.lead();
  assertEquals(conditionsOf(rig.status(GATEWAY_CLASSES, "mine")).map((it) => `${it["type"]} ${it["status"]}`), [
    "Accepted True",
  ]);
  assertEquals(rig.status(GATEWAY_CLASSES, "ingress"), {});
});

Deno.test("ClassKeeper makes the classes that are missing, again when one is deleted, and changes none (CP-550, CP-653)", async () => {
  await using rig = new Rig();
  rig.put(GATEWAY_CLASSES, "istio-remote", { controllerName: "example.com/mine" }, { labels: { team: "mesh" } });
  await rig.see();
  await rig.keep();
  const names = () => rig.api.objects(GATEWAY_CLASSES).map(({ metadata }) => metadata.name).sort();
  assertEquals(names(), ["istio-remote", "istio-waypoint"]);
  assertEquals(rig.api.object(GATEWAY_CLASSES, "", "istio-remote")!["spec"], { controllerName: "example.com/mine" });
  await rig.see();
  rig.api.remove(GATEWAY_CLASSES, "", "istio-waypoint");
  await rig.see();
  assertEquals(names(), ["istio-remote", "istio-waypoint"]);
  assertEquals(rig.writes, 0);
});

Deno.test("ClassKeeper waits for a cluster that has no GatewayClasses, or does not let it (CP-550)", async () => {
  await using rig = new Rig();
  rig.api.serve(GATEWAY_CLASSES, false);
  await rig.keep();
  rig.api.serve(GATEWAY_CLASSES, true);
  rig.api.fail(new KubeError(403, "Forbidden", "no"), { verb: "create", times: 2 });
  await rig.clock.advance(60_000);
  assertEquals(rig.api.objects(GATEWAY_CLASSES).length, 0);
  await rig.clock.advance(60_000);
  assertEquals(rig.api.objects(GATEWAY_CLASSES).length, 2);
  assert(rig.metrics.writes("gateway-classes", "written") === 2);
});
