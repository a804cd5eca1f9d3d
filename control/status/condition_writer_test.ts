/** Conditions on their way to the API server: what is written, by whom, how often, and what is left alone. */
import { assert, assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { KubeError, type KubeObject, KubeUnreachable, type ResourceType } from "../../kube/api.ts";
import { AUTHORIZATION_POLICIES, SERVICES } from "../../kube/resource_types.ts";
import { InMemoryKubeApi } from "../../kube/testing.ts";
import { Engine } from "../collect/engine.ts";
import { Metrics } from "../../base/metrics.ts";
import { objectKey } from "../objects.ts";
import { ConditionWriter } from "./condition_writer.ts";
import { conditionsOf, type WantedCondition, type WantedConditions } from "./conditions.ts";
import { ControllerMetrics } from "./controller_metrics.ts";
import { StatusMirror } from "./status_mirror.ts";
import { settle, SimulatedClock } from "./testing.ts";

const BOUND = { type: "istio.io/WaypointBound", status: "True", reason: "WaypointAccepted", message: "bound" } as const;
const ACCEPTED = { type: "ZtunnelAccepted", status: "True", reason: "Accepted", message: "attached" } as const;
const FOREIGN = {
  type: "example.com/Audited",
  status: "True",
  reason: "Fine",
  message: "",
  lastTransitionTime: "2020-01-01T00:00:00Z",
};

/** A graph that wants conditions, an API server, and a writer that leads when it is told to. */
class Rig {
  readonly clock = new SimulatedClock();
  readonly api = new InMemoryKubeApi();
  readonly engine = new Engine();
  readonly source = this.engine.source<WantedConditions>("wanted");
  readonly mirror = new StatusMirror();
  readonly metrics = new ControllerMetrics(new Metrics());
  readonly lines: string[] = [];
  readonly writer = new ConditionWriter({
    api: this.api,
    wanted: this.source,
    mirror: this.mirror,
    metrics: this.metrics,
    log: new Logger("status", { sink: (line) => this.lines.push(line) }),
    clock: this.clock,
  });
  #stop: AbortController | undefined;
  #led: Promise<void> = Promise.resolve();

  constructor() {
    this.engine.subscribe(this.source, (changes) => this.writer.changed(changes));
  }

  put(type: ResourceType, name: string, status?: object): void {
    this.api.put(type, { metadata: { name, namespace: "shop" }, spec: {}, ...(status && { status }) });
    this.see();
  }

  /** The watch has told of everything. */
  see(): void {
    for (const type of [SERVICES, AUTHORIZATION_POLICIES]) {
      for (const it of this.api.objects(type)) {
        this.mirror.note(type.kind, { namespace: "shop", name: it.metadata.name }, it);
      }
    }
  }

  async want(
    kind: string,
    name: string,
    conditions: readonly Partial<WantedCondition>[] | undefined,
    fieldManager = managerOf(kind),
  ): Promise<void> {
    const object = objectKey(kind, "shop", name), resource = { kind, namespace: "shop", name };
    const whole = conditions?.map((it) => ({ observedGeneration: 1, ...it }) as WantedCondition);
    this.source.write(`${fieldManager}|${object}`, whole && { object, resource, fieldManager, conditions: whole });
    this.engine.settle();
    await settle();
  }

  async lead(): Promise<void> {
    this.#stop = new AbortController();
    this.#led = this.writer.lead(this.#stop.signal);
    await settle();
  }

  async stop(): Promise<void> {
    this.#stop?.abort();
    await this.#led;
  }

  conditions(type: ResourceType, name: string): readonly Readonly<Record<string, unknown>>[] {
    return conditionsOf(this.object(type, name)["status"]);
  }

  object(type: ResourceType, name: string): KubeObject {
    const object = this.api.object(type, "shop", name);
    if (object === undefined) throw new Error(`no ${name}`);
    return object;
  }

  get writes(): number {
    return this.api.calls.filter(({ verb }) => verb === "apply").length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    assertEquals(this.clock.waiting, 0);
  }
}

function managerOf(kind: string): string {
  return kind === "Service" ? "istio-ambient-service" : "istio-ambient-ztunnel-policy";
}

Deno.test("ConditionWriter writes by server-side apply to the status, as the purpose's manager (CP-275)", async () => {
  await using rig = new Rig();
  rig.put(SERVICES, "cart");
  await rig.lead();
  await rig.want("Service", "cart", [BOUND]);
  assertEquals(rig.conditions(SERVICES, "cart"), [
    { ...BOUND, lastTransitionTime: "2023-11-14T22:13:20Z", observedGeneration: 1 },
  ]);
  assertEquals(rig.api.calls.map(({ verb, subresource }) => `${verb} ${subresource}`), ["apply status"]);
  assertEquals(rig.metrics.writes("conditions", "written"), 1);
});

Deno.test("ConditionWriter writes nothing while another leads, and looks at every object when it begins (CP-276)", async () => {
  await using rig = new Rig();
  for (const name of ["cart", "db", "web"]) rig.put(SERVICES, name);
  for (const name of ["cart", "db"]) await rig.want("Service", name, [BOUND]);
  assertEquals(rig.api.calls.length, 0);
  await rig.lead();
  assertEquals(rig.writes, 2);
  await rig.stop();
  await rig.want("Service", "web", [BOUND]);
  assertEquals(rig.writes, 2);
  rig.see();
  await rig.lead();
  assertEquals(
    [rig.writes, rig.conditions(SERVICES, "web").length],
    [3, 1],
    "what the last leader wrote is not written again",
  );
});

Deno.test("ConditionWriter leaves a condition that says the same alone, and moves its time only with its status (CP-275)", async () => {
  await using rig = new Rig();
  rig.put(SERVICES, "cart");
  await rig.lead();
  await rig.want("Service", "cart", [BOUND]);
  rig.see();
  const since = rig.conditions(SERVICES, "cart")[0]!["lastTransitionTime"];
  await rig.clock.advance(60_000);
  await rig.want("Service", "cart", [{ ...BOUND, message: "bound to another" }]);
  rig.see();
  assertEquals(rig.conditions(SERVICES, "cart")[0]!["lastTransitionTime"], since);
  await rig.want("Service", "cart", [{ ...BOUND, message: "bound to another", observedGeneration: 2 }]);
  rig.see();
  assertEquals(rig.writes, 3);
  await rig.want("Service", "cart", [{
    ...BOUND,
    status: "False",
    reason: "WaypointIsNotReady",
    message: "not ready",
  }]);
  assertEquals(rig.conditions(SERVICES, "cart")[0]!["lastTransitionTime"], "2023-11-14T22:14:20Z");
});

for (
  const { type, kind, ours } of [
    { type: SERVICES, kind: "Service", ours: BOUND },
    { type: AUTHORIZATION_POLICIES, kind: "AuthorizationPolicy", ours: ACCEPTED },
  ]
) {
  Deno.test(`ConditionWriter keeps others' conditions of a ${kind}, and takes away its own that are not wanted (CP-275)`, async () => {
    await using rig = new Rig();
    rig.put(type, "it", { conditions: [FOREIGN] });
    await rig.lead();
    await rig.want(kind, "it", [ours]);
    rig.see();
    assertEquals(rig.conditions(type, "it").map((it) => it["type"]), [FOREIGN.type, ours.type]);
    assertEquals(rig.conditions(type, "it")[0], FOREIGN);
    await rig.want(kind, "it", []);
    rig.see();
    assertEquals(rig.conditions(type, "it"), [FOREIGN]);
    await rig.want(kind, "it", [ours]);
    rig.see();
    await rig.want(kind, "it", undefined);
    assertEquals(rig.conditions(type, "it"), [FOREIGN], "an object that wants none any more is as one that wants none");
  });
}

Deno.test("ConditionWriter loses no condition that another wrote since it looked, of a kind that is written as a whole (CP-275)", async () => {
  await using rig = new Rig();
  rig.put(AUTHORIZATION_POLICIES, "it");
  await rig.lead();
  rig.api.put(AUTHORIZATION_POLICIES, {
    metadata: { name: "it", namespace: "shop" },
    spec: {},
    status: { conditions: [FOREIGN] },
  });
  await rig.want("AuthorizationPolicy", "it", [ACCEPTED]); // Its watch is behind.
  assertEquals(rig.conditions(AUTHORIZATION_POLICIES, "it").map((it) => it["type"]), [FOREIGN.type, ACCEPTED.type]);
  assertEquals(rig.metrics.writes("conditions", "conflict"), 1);
});

Deno.test("ConditionWriter writes what flips back before the watch has told of the first flip (CP-275)", async () => {
  await using rig = new Rig();
  rig.put(SERVICES, "cart");
  await rig.lead();
  await rig.want("Service", "cart", [BOUND]);
  rig.see();
  await rig.want("Service", "cart", [{ ...BOUND, status: "False" }]);
  await rig.want("Service", "cart", [BOUND]);
  assertEquals(rig.conditions(SERVICES, "cart")[0]!["status"], "True");
});

Deno.test("ConditionWriter tries five times at growing distances, says so, and again after a minute (CP-106, CP-276)", async () => {
  await using rig = new Rig();
  rig.put(SERVICES, "cart");
  await rig.lead();
  const lift = rig.api.fail(new KubeUnreachable("connection refused"), { verb: "apply", times: Infinity });
  await rig.want("Service", "cart", [BOUND]);
  const seen: number[] = [];
  for (let ms = 0; ms <= 200; ms++) {
    while (seen.length < rig.writes) seen.push(ms);
    await rig.clock.advance(1);
  }
  assertEquals(seen, [0, 5, 15, 35, 75, 155]);
  assertEquals(rig.lines.filter((line) => line.includes("cannot write")).length, 1);
  lift();
  await rig.clock.advance(60_000);
  assertEquals(rig.conditions(SERVICES, "cart").length, 1);
});

Deno.test("ConditionWriter takes an object that is gone for done (CP-276)", async () => {
  await using rig = new Rig();
  rig.put(SERVICES, "cart");
  await rig.lead();
  rig.api.remove(SERVICES, "shop", "cart");
  await rig.want("Service", "cart", [BOUND]);
  await rig.clock.advance(100_000);
  assertEquals([rig.writes, rig.metrics.writes("conditions", "gone"), rig.lines], [1, 1, []]);
});

Deno.test("ConditionWriter starts no call once it has lost the lead (CP-652)", async () => {
  await using rig = new Rig();
  for (let at = 0; at < 50; at++) {
    rig.put(SERVICES, `service-${at}`);
    await rig.want("Service", `service-${at}`, [BOUND]);
  }
  rig.api.fail(new KubeError(503, "ServiceUnavailable", "not now"), { verb: "apply", times: 7 });
  const leading = rig.lead();
  await Promise.resolve();
  await rig.stop();
  const after = rig.writes;
  await leading;
  await rig.clock.advance(100_000);
  assert(after < 50);
  assertEquals(rig.writes, after);
});
