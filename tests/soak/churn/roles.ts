/** Roles that die and come back, and workloads that only the control plane knows. */
import { NODE_NAMES } from "../../../demo/lab/network.ts";
import type { Stage } from "../stage.ts";

/** istiod is killed and, after a while without it, started again on the same folders. */
export async function istiodKills(stage: Stage): Promise<void> {
  while (await stage.calm(15_000, 40_000)) {
    await stage.mesh.crashIstiod();
    await stage.calm(0, 6_000);
    await stage.mesh.restartIstiod();
    stage.did("istiod killed");
  }
}

/** Node agents end, in order or by a crash, and come back; what is enrolled stays enrolled. */
export async function cniRestarts(stage: Stage): Promise<void> {
  while (await stage.calm(10_000, 30_000)) {
    await stage.mesh.nodes[stage.chance.pick(NODE_NAMES)].restartCni(stage.chance.pick(["SIGTERM", "SIGKILL"]));
    stage.did("node agents restarted");
  }
}

/** Hundreds of workloads and some services appear, change and vanish. */
export async function workloadCrowds(stage: Stage): Promise<void> {
  while (await stage.calm(1_000, 6_000)) {
    const count = stage.chance.between(50, 400), file = "crowd.yaml";
    stage.mesh.writeConfig(file, crowd(count, stage.chance.bits()));
    stage.did("crowds of workloads");
    await stage.calm(500, 4_000);
    if (stage.chance.often(50)) stage.mesh.writeConfig(file, crowd(count, stage.chance.bits()));
    await stage.calm(500, 2_000);
    stage.mesh.removeConfig(file);
  }
}

function crowd(count: number, salt: number): string {
  const documents = Array.from({ length: count }, (_, number) =>
    `apiVersion: v1
kind: Pod
metadata:
  name: crowd-${number}
  namespace: crowd
  labels: { app: crowd-${number % 20}, salt: "${salt}" }
  annotations: { ambient.istio.io/redirection: enabled }
spec: { nodeName: node-${number % 2 === 0 ? "a" : "c"}, serviceAccountName: crowd-${
      salt % 7
    }, containers: [{ name: app }] }
status:
  phase: Running
  podIPs: [{ ip: 10.81.${number >> 8}.${number & 255} }]
  conditions: [{ type: Ready, status: "True" }]
`);
  for (let number = 0; number < 20; number++) {
    documents.push(`apiVersion: v1
kind: Service
metadata: { name: crowd-${number}, namespace: crowd }
spec:
  clusterIPs: ["10.97.0.${number + 1}"]
  selector: { app: crowd-${number} }
  ports: [{ name: tcp, port: 80, targetPort: 8080 }]
`);
  }
  return documents.join("---\n");
}
