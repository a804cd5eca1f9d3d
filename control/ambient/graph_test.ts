import { assert, assertEquals } from "@std/assert";
import { Engine } from "../collect/engine.ts";
import { keyOf, type KubernetesObject } from "../objects.ts";
import { buildAmbientGraph } from "./graph.ts";
import { AMBIENT_DEFAULTS } from "./options.ts";
import { writeObject } from "./sources.ts";
import { objectsOf } from "./testing.ts";

const APPS = 40, PODS_PER_APP = 10;

const pod = (app: number, at: number, zone = "n") => `
apiVersion: v1
kind: Pod
metadata: { name: p-${app}-${at}, namespace: shop, labels: { app: a${app}, tier: ${zone} } }
spec: { nodeName: node-${at} }
status: { podIP: 10.0.${app}.${at} }
---`;
const service = (app: number, port: number) => `
apiVersion: v1
kind: Service
metadata: { name: s${app}, namespace: shop }
spec: { clusterIP: 10.96.0.${app}, selector: { app: a${app} }, ports: [{ port: ${port} }] }
---`;
const policy = (app: number) => `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: p, namespace: shop }
spec: { selector: { matchLabels: { tier: n, app: a${app} } } }
---`;
const slice = (app: number, ready: boolean) => `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: s${app}-x, namespace: shop, labels: { kubernetes.io/service-name: s${app} } }
addressType: IPv4
endpoints: [${
  numbers(PODS_PER_APP).map((at) =>
    `{ addresses: [10.0.${app}.${at}], conditions: { ready: ${ready} }, targetRef: { kind: Pod, name: p-${app}-${at} } }`
  ).join(", ")
}]
---`;
const numbers = (count: number) => Array.from({ length: count }, (_, at) => at);

Deno.test("buildAmbientGraph(): a change reruns what it may concern, however many workloads there are (CP-217)", () => {
  const engine = new Engine(), graph = buildAmbientGraph(engine, AMBIENT_DEFAULTS);
  const runsOf = (yaml: string | readonly KubernetesObject[]): number => {
    for (const object of typeof yaml === "string" ? objectsOf(yaml) : yaml) {
      writeObject(graph, { kind: object.kind, key: keyOf(object), object }, AMBIENT_DEFAULTS);
    }
    const before = engine.runCount;
    engine.settle();
    return engine.runCount - before;
  };
  runsOf(
    numbers(APPS).map((app) => numbers(PODS_PER_APP).map((at) => pod(app, at)).join("") + service(app, 80)).join("") +
      slice(8, true),
  );
  assertEquals(graph.workloads.size, APPS * PODS_PER_APP);
  // Candidate, claim, winner, canonical, service; or workload, its items, its problems: each step counts once.
  const stepsMax = 8;
  const bounds: [what: string, yaml: string, itemsMax: number][] = [
    ["one pod", pod(3, 3, "other"), 1],
    ["a service: it and its pods", service(4, 81), 1 + PODS_PER_APP],
    ["a policy: it and the pods of its selector", policy(5), 1 + PODS_PER_APP],
    ["a policy's selector: the pods it leaves and those it finds", policy(6), 1 + 2 * PODS_PER_APP],
    [
      "a node: the pods on it",
      "apiVersion: v1\nkind: Node\nmetadata: { name: node-7, labels: { topology.kubernetes.io/zone: z } }",
      APPS,
    ],
    ["the slice of a Service with a selector: no pod of it", slice(8, false), 1],
    ["nothing new", policy(6) + service(4, 81), 0],
  ];
  for (const [what, yaml, itemsMax] of bounds) {
    const runs = runsOf(yaml);
    assert(runs <= itemsMax * stepsMax, `${what}: ${runs} runs`);
    assert(itemsMax === 0 || runs >= itemsMax, `${what} ran at all: ${runs}`);
  }
});
