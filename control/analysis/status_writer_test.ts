/** What analysis finds on its way into the status of objects. */
import { assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { Metrics } from "../../base/metrics.ts";
import type { Plain } from "../../base/plain.ts";
import { KubeError } from "../../kube/api.ts";
import { AUTHORIZATION_POLICIES, PEER_AUTHENTICATIONS, WORKLOAD_ENTRIES } from "../../kube/resource_types.ts";
import { InMemoryKubeApi } from "../../kube/testing.ts";
import { AmbientIndex } from "../ambient/index.ts";
import { Field } from "../decode/field.ts";
import { decodeObject } from "../decode/kinds.ts";
import { objectKey, type ObjectKind } from "../objects.ts";
import { ControllerMetrics } from "../status/controller_metrics.ts";
import { StatusMirror } from "../status/status_mirror.ts";
import { settle, SimulatedClock } from "../status/testing.ts";
import { AnalysisWriter } from "./status_writer.ts";

const TYPES = [AUTHORIZATION_POLICIES, PEER_AUTHENTICATIONS, WORKLOAD_ENTRIES];
const INTERVAL_MS = 10_000;
const NOBODY_MATCHES = {
  type: { code: "IST0127", name: "NoMatchingWorkloadsFound" },
  level: "WARNING",
  documentationUrl: "https://istio.io/latest/docs/reference/config/analysis/ist0127/",
};

class Rig implements AsyncDisposable {
  readonly clock = new SimulatedClock();
  readonly api = new InMemoryKubeApi();
  readonly index = new AmbientIndex();
  readonly mirror = new StatusMirror();
  readonly writer: AnalysisWriter;
  readonly #stop = new AbortController();
  #running = Promise.resolve();

  constructor() {
    const { graph } = this.index, { api, mirror, clock } = this;
    const metrics = new ControllerMetrics(new Metrics()), log = new Logger("analysis", { sink: () => {} });
    this.writer = new AnalysisWriter({ api, graph, mirror, intervalMs: INTERVAL_MS, metrics, log, clock });
  }

  policy(type = AUTHORIZATION_POLICIES, more: object = {}): void {
    const metadata = { name: "p", namespace: "shop", labels: {} };
    this.api.put(type, { metadata, spec: { selector: { matchLabels: { app: "cart" } } }, ...more });
  }

  /** The workload that the policies select. */
  cart(): void {
    const metadata = { name: "cart", namespace: "shop", labels: { app: "cart" } };
    this.api.put(WORKLOAD_ENTRIES, { metadata, spec: { address: "10.0.0.1" } });
  }

  /** What watches would tell. */
  see(): void {
    for (const type of TYPES) {
      for (const object of this.api.objects(type)) {
        const { name, namespace = "" } = object.metadata, kind = type.kind as ObjectKind;
        this.mirror.note(kind, { namespace, name }, object);
        const decoded = decodeObject(new Field(object as unknown as Plain), { kind, namespace, name });
        this.index.apply([{ kind, key: objectKey(kind, namespace, name), object: decoded, cluster: "Kubernetes" }]);
      }
    }
    this.writer.changed();
  }

  lead(): void {
    this.#running = this.writer.lead(this.#stop.signal);
  }

  messages(type = AUTHORIZATION_POLICIES): unknown {
    return (this.api.object(type, "shop", "p")?.status as { validationMessages?: unknown } | undefined)
      ?.validationMessages;
  }

  get writes(): number {
    return this.api.calls.filter(({ verb }) => verb === "patch").length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }
}

Deno.test("AnalysisWriter says in an object's status what is found of it, and takes it away again (CP-699)", async () => {
  await using rig = new Rig();
  rig.policy(AUTHORIZATION_POLICIES, { status: { conditions: [{ type: "ZtunnelAccepted", status: "True" }] } });
  rig.see();
  rig.lead();
  await settle();
  assertEquals(rig.messages(), [NOBODY_MATCHES]);
  const { conditions } = rig.api.object(AUTHORIZATION_POLICIES, "shop", "p")!.status as { conditions: unknown[] };
  assertEquals(conditions.length, 1, "another's part of the status stays");
  rig.see();
  await rig.clock.advance(10 * INTERVAL_MS);
  assertEquals(rig.writes, 1);
  rig.cart();
  rig.see();
  await rig.clock.advance(INTERVAL_MS);
  assertEquals([rig.messages(), rig.writes], [undefined, 2]);
});

Deno.test("AnalysisWriter takes away what an istiod before it has left, and leaves kinds alone that it may not write (CP-699)", async () => {
  await using rig = new Rig();
  rig.policy(AUTHORIZATION_POLICIES, { status: { validationMessages: [NOBODY_MATCHES] } });
  rig.policy(PEER_AUTHENTICATIONS);
  rig.cart();
  rig.see();
  rig.lead();
  await settle();
  assertEquals([rig.messages(), rig.messages(PEER_AUTHENTICATIONS), rig.writes], [undefined, undefined, 1]);
});

Deno.test("AnalysisWriter writes over nothing that it has not seen (CP-699)", async () => {
  await using rig = new Rig();
  rig.policy();
  rig.see();
  rig.policy(AUTHORIZATION_POLICIES, { status: { conditions: [{ type: "Mine", status: "True" }] } });
  rig.lead();
  await settle();
  assertEquals(rig.messages(), undefined, "a version that is gone");
  rig.see();
  rig.api.fail(new KubeError(409, "Conflict", "changed"), { verb: "patch" });
  await rig.clock.advance(INTERVAL_MS);
  assertEquals(rig.messages(), [NOBODY_MATCHES]);
});
