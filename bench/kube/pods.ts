/** Pods as an API server writes them: with what nobody of us reads, managed fields first among it. */

const FIELDS = Object.fromEntries(
  Array.from({ length: 24 }, (_, row) => [`f:field${row}`, { "f:name": {}, "f:value": {} }]),
);
const CONDITIONS = ["Initialized", "Ready", "ContainersReady", "PodScheduled", "PodReadyToStartContainers"].map((
  type,
) => ({
  type,
  status: "True",
  lastProbeTime: null,
  lastTransitionTime: "2026-01-01T00:00:00Z",
}));

/** One pod as JSON. */
export function podText(row: number, version: number): string {
  const ip = `10.${row >> 16}.${(row >> 8) & 255}.${row & 255}`, namespace = `ns-${row % 200}`;
  return JSON.stringify({
    kind: "Pod",
    apiVersion: "v1",
    metadata: {
      name: `web-${row % 50}-7c9d8f6b5-${row.toString(36).padStart(5, "0")}`,
      namespace,
      uid: `0f0f0f0f-0000-4000-8000-${row.toString(16).padStart(12, "0")}`,
      resourceVersion: String(1_000_000 + row + version * 1_000_000),
      creationTimestamp: "2026-01-01T00:00:00Z",
      labels: { app: `web-${row % 50}`, "pod-template-hash": "7c9d8f6b5", version: "v1" },
      annotations: { "ambient.istio.io/redirection": "enabled" },
      ownerReferences: [{
        apiVersion: "apps/v1",
        kind: "ReplicaSet",
        name: `web-${row % 50}-7c9d8f6b5`,
        uid: "u",
        controller: true,
      }],
      managedFields: ["kube-controller-manager", "kubelet"].map((manager) => ({
        manager,
        operation: "Update",
        apiVersion: "v1",
        time: "2026-01-01T00:00:00Z",
        fieldsType: "FieldsV1",
        fieldsV1: FIELDS,
      })),
    },
    spec: {
      containers: [{
        name: "app",
        image: "registry.test/app:v1",
        ports: [{ containerPort: 8080, protocol: "TCP" }],
        env: Array.from({ length: 8 }, (_, at) => ({ name: `SETTING_${at}`, value: `the value of setting ${at}` })),
        resources: { requests: { cpu: "100m", memory: "128Mi" }, limits: { memory: "256Mi" } },
        volumeMounts: [{ name: "token", readOnly: true, mountPath: "/var/run/secrets/kubernetes.io/serviceaccount" }],
      }],
      nodeName: `node-${row % 500}`,
      serviceAccountName: "web",
      tolerations: [{
        key: "node.kubernetes.io/not-ready",
        operator: "Exists",
        effect: "NoExecute",
        tolerationSeconds: 300,
      }],
      volumes: [{
        name: "token",
        projected: { sources: [{ serviceAccountToken: { expirationSeconds: 3607, path: "token" } }] },
      }],
    },
    status: {
      phase: "Running",
      conditions: CONDITIONS,
      hostIP: "192.168.0.1",
      podIP: ip,
      podIPs: [{ ip }],
      startTime: "2026-01-01T00:00:00Z",
    },
  });
}
