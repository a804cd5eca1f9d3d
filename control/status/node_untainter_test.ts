/** Nodes that are tainted until their agent is ready. */
import { assertEquals, equal } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { NODES, PODS } from "../../kube/resource_types.ts";
import { InMemoryKubeApi } from "../../kube/testing.ts";
import { Metrics } from "../../base/metrics.ts";
import { ControllerMetrics } from "./controller_metrics.ts";
import { NodeUntainter } from "./node_untainter.ts";
import { until } from "../cluster/testing.ts";

const TAINT = "cni.istio.io/not-ready";
const OURS = { key: TAINT, effect: "NoSchedule" }, OTHER = { key: "example.com/gpu", effect: "NoSchedule" };

function node(api: InMemoryKubeApi, name: string, taints: readonly object[]): void {
  api.put(NODES, { metadata: { name }, spec: { taints } });
}

function agent(
  api: InMemoryKubeApi,
  name: string,
  { on = "n1", ready = true, namespace = "istio-system", app = "istio-cni-node" } = {},
): void {
  const conditions = [{ type: "Ready", status: ready ? "True" : "False" }];
  api.put(PODS, {
    metadata: { name, namespace, labels: { "k8s-app": app } },
    spec: { nodeName: on },
    status: { conditions },
  });
}

function taintsOf(api: InMemoryKubeApi, name: string): unknown {
  return (api.object(NODES, "", name)!["spec"] as { taints: unknown }).taints;
}

Deno.test("NodeUntainter takes its taint alone, once the node's agent is ready (CNI-053, CP-664)", async () => {
  const api = new InMemoryKubeApi(), stop = new AbortController();
  const metrics = new ControllerMetrics(new Metrics()), log = new Logger("untaint", { sink: () => {} });
  const led = new NodeUntainter({ api, namespace: "istio-system", taint: TAINT, metrics, log }).lead(stop.signal);
  for (const name of ["n1", "n2", "n3", "n4"]) node(api, name, [OTHER, OURS]);
  agent(api, "a1");
  agent(api, "a2", { on: "n2", ready: false });
  agent(api, "a3", { on: "n3", namespace: "shop" });
  agent(api, "a4", { on: "n4", app: "other" });
  await until("n1 is untainted", () => equal(taintsOf(api, "n1"), [OTHER]));
  for (const name of ["n2", "n3", "n4"]) assertEquals(taintsOf(api, name), [OTHER, OURS], name);
  agent(api, "a2", { on: "n2" });
  await until("n2 is untainted", () => equal(taintsOf(api, "n2"), [OTHER]));
  node(api, "n1", [OURS]); // It was rebooted, say, while its agent still counts as ready.
  await until("n1 is untainted again", () => equal(taintsOf(api, "n1"), []));
  stop.abort();
  await led;
  assertEquals([api.watching(NODES), api.watching(PODS)], [0, 0], "who does not lead watches none of it");
});

Deno.test("NodeUntainter loses no taint that another added meanwhile (CP-664)", async () => {
  const api = new InMemoryKubeApi(), stop = new AbortController();
  const metrics = new ControllerMetrics(new Metrics()), log = new Logger("untaint", { sink: () => {} });
  node(api, "n1", [OURS]);
  const led = new NodeUntainter({ api, namespace: "istio-system", taint: TAINT, metrics, log }).lead(stop.signal);
  await until("both are watched", () => api.watching(NODES) + api.watching(PODS) === 2);
  node(api, "n1", [OURS, OTHER]);
  agent(api, "a1");
  await until("n1 is untainted", () => equal(taintsOf(api, "n1"), [OTHER]));
  stop.abort();
  await led;
});
