import { assertEquals } from "@std/assert";
import { objectsOf, TestMesh } from "./testing.ts";
import { podWorkloadName } from "./workload_pod.ts";

Deno.test("podWorkloadName() names what made the pod (CP-204)", () => {
  const nameOf = (owner: string, metadata: string) => {
    const references = owner === "" ? "" : `, ownerReferences: [{ ${owner} }]`;
    const [pod] = objectsOf(`
apiVersion: v1
kind: Pod
metadata: { name: pod-x, namespace: n ${metadata} ${references} }
spec: {}`);
    return pod?.kind === "Pod" ? podWorkloadName(pod) : undefined;
  };
  const made = ", generateName: g-", controls = "controller: true, ";
  const cases: [owner: string, metadata: string, expected: string][] = [
    ["", "", "pod-x"],
    ["", made, "pod-x"],
    [`${controls}kind: ReplicaSet, name: web-6f7`, "", "pod-x"],
    ["kind: ReplicaSet, name: web-6f7", made, "pod-x"],
    [`${controls}kind: ReplicaSet, name: web-6f7`, `${made}, labels: { pod-template-hash: 6f7 }`, "web"],
    [`${controls}kind: ReplicaSet, name: web-6f7`, `${made}, labels: { pod-template-hash: zzz }`, "web-6f7"],
    [`${controls}kind: ReplicaSet, name: web-6f7`, made, "web-6f7"],
    [`${controls}kind: ReplicaSet, name: roll-9a`, `${made}, labels: { rollouts-pod-template-hash: 9a }`, "roll"],
    [`${controls}kind: ReplicationController, name: rc-1`, `${made}, labels: { deploymentconfig: dc }`, "dc"],
    [`${controls}kind: ReplicationController, name: rc-1`, made, "rc-1"],
    [`${controls}kind: Job, name: nightly-28012345`, made, "nightly"],
    [`${controls}kind: Job, name: once`, made, "once"],
    [`${controls}kind: StatefulSet, name: db`, made, "db"],
    [`${controls}kind: StatefulSet, name: db`, `${made}, labels: { service.istio.io/workload-name: stated }`, "stated"],
  ];
  for (const [owner, metadata, expected] of cases) {
    assertEquals(nameOf(owner, metadata), expected, `${owner} ${metadata}`);
  }
});

Deno.test("workloadOfPod(): which pods are workloads, and which of those are healthy (CP-202)", () => {
  const statusOf = (status: string, metadata = "") =>
    new TestMesh(`
apiVersion: v1
kind: Pod
metadata: { name: p, namespace: n ${metadata} }
spec: {}
status: { ${status} }`).address("c1//Pod/n/p")?.status;
  const ready = (status: string) =>
    `conditions: [{ type: Initialized, status: "True" }, { type: Ready, status: "${status}" }]`;
  const cases: [status: string, metadata: string, expected: string | undefined][] = [
    ["phase: Pending", "", undefined],
    [`phase: Pending, podIP: 10.0.0.1, ${ready("False")}`, "", "UNHEALTHY"],
    [`phase: Running, podIP: 10.0.0.1, ${ready("True")}`, "", "HEALTHY"],
    [`phase: Running, podIP: 10.0.0.1, ${ready("False")}`, "", "UNHEALTHY"],
    [`phase: Running, podIP: 10.0.0.1, ${ready("Unknown")}`, "", "UNHEALTHY"],
    [`podIP: 10.0.0.1, conditions: [{ type: Initialized, status: "True" }]`, "", "UNHEALTHY"],
    [`phase: Running, podIP: 10.0.0.1, ${ready("True")}`, ", deletionTimestamp: 2026-01-01T00:00:00Z", "UNHEALTHY"],
    [`phase: Succeeded, podIP: 10.0.0.1, ${ready("True")}`, "", undefined],
    [`phase: Failed, podIP: 10.0.0.1, ${ready("True")}`, "", undefined],
    ["podIP: 10.0.0.1", "", "HEALTHY"],
    ["podIP: 10.0.0.1", ", deletionTimestamp: 2026-01-01T00:00:00Z", "UNHEALTHY"],
    ["podIPs: [{ ip: 10.0.0.1 }]", "", "HEALTHY"],
  ];
  for (const [status, metadata, expected] of cases) {
    assertEquals(statusOf(status, metadata), expected, `${status}${metadata}`);
  }
});

Deno.test("tunnelOf(): annotation, then label; nothing else counts (CP-206)", () => {
  const tunnelOf = (metadata: string) => {
    const workload = new TestMesh(`
apiVersion: v1
kind: Pod
metadata: { name: p, namespace: n ${metadata} }
spec: {}
status: { podIP: 10.0.0.1 }`).address("c1//Pod/n/p");
    return [workload?.tunnelProtocol, workload?.nativeTunnel];
  };
  assertEquals(tunnelOf(""), ["NONE", undefined]);
  assertEquals(tunnelOf(", annotations: { ambient.istio.io/redirection: enabled }"), ["HBONE", undefined]);
  assertEquals(tunnelOf(", annotations: { ambient.istio.io/redirection: pending }"), ["NONE", undefined]);
  assertEquals(tunnelOf(", labels: { ambient.istio.io/redirection: enabled, istio.io/dataplane-mode: ambient }"), [
    "NONE",
    undefined,
  ]);
  assertEquals(tunnelOf(", labels: { networking.istio.io/tunnel: 'a,http' }"), ["HBONE", true]);
  assertEquals(tunnelOf(", labels: { networking.istio.io/tunnel: https }"), ["NONE", undefined]);
});
