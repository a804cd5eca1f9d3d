import { assertEquals, assertNotStrictEquals, assertStrictEquals } from "@std/assert";
import type { PodObject } from "./objects.ts";
import { SharedValues } from "./shared_values.ts";
import { objectsOf } from "./ambient/testing.ts";

const pods = (count: number, template = "t", annotations = "") =>
  Array.from({ length: count }, (_, at) =>
    objectsOf(`
apiVersion: v1
kind: Pod
metadata:
  name: p${at}
  namespace: shop
  generateName: p
  labels: { app: cart, pod-template-hash: ${template} }
  annotations: { ${annotations} }
  ownerReferences: [{ controller: true, kind: ReplicaSet, name: cart-${template} }]
spec: { nodeName: n1, containers: [{ ports: [{ name: http, containerPort: 80 }] }] }
status: { podIP: 10.0.0.1 }`)[0] as PodObject);

Deno.test("SharedValues.of() says what the object said, but for annotations that mean nothing here", () => {
  const shared = new SharedValues();
  for (const template of ["a", "b", "a"]) {
    for (const pod of pods(2, template, "ambient.istio.io/redirection: enabled")) assertEquals(shared.of(pod), pod);
  }
  const [noisy] = pods(1, "a", "kubectl.kubernetes.io/last-applied-configuration: '{}', istio.io/dry-run: 'true'");
  assertEquals((shared.of(noisy!) as PodObject).meta.annotations, new Map([["istio.io/dry-run", "true"]]));
});

Deno.test("SharedValues.of() gives pods of one template the same labels, ports and controller, and others their own", () => {
  const shared = new SharedValues();
  const [first, second] = pods(2).map((pod) => shared.of(pod) as PodObject);
  assertStrictEquals(first!.meta.labels, second!.meta.labels);
  assertStrictEquals(first!.meta.annotations, second!.meta.annotations);
  assertStrictEquals(first!.meta.controller, second!.meta.controller);
  assertStrictEquals(first!.containerPorts, second!.containerPorts);
  assertStrictEquals(shared.of(second!), second, "what is shared already stays as it is");
  const another = new SharedValues();
  for (const pod of [first!, second!]) assertStrictEquals(another.of(pod), pod, "also for the next who shares");
  const [other] = pods(1, "u").map((pod) => shared.of(pod) as PodObject);
  assertNotStrictEquals(first!.meta.labels, other!.meta.labels);
  assertEquals(other!.meta.labels.get("pod-template-hash"), "u");
});
