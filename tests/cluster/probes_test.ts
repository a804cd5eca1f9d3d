import { assert, assertEquals } from "@std/assert";
import { output } from "../kube/go_tools.ts";
import { Wiretap } from "../../demo/lab/wiretap.ts";
import { ownNetns } from "../../os/netns.ts";
import { until } from "../kube/until.ts";
import { APPS_IMAGE } from "./apps_image.ts";
import { PAUSE_IMAGE } from "./layout.ts";
import { clusterTest, isEnrolled, isReady, type PodStatus, report } from "./rig.ts";
import { app, ask, stage } from "./stage.ts";

const NAMESPACE = "probes", OPTIONS = { namespaces: [NAMESPACE] };
const PODS_MS = 120_000;
const AMBIENT = { "istio.io/dataplane-mode": "ambient" };
const LIVE = 4;
const NODE_PORT = 30080, HOST_PORT = 30088, SETTLE_MS = 30_000;

const strict = {
  apiVersion: "security.istio.io/v1",
  kind: "PeerAuthentication",
  metadata: { name: "strict", namespace: NAMESPACE },
  spec: { mtls: { mode: "STRICT" } },
};

/** A pod that one sort of probe decides about: it is not ready without, and is started again when it fails once. */
function probed(name: string, node: string, probe: object, ports: readonly object[] = []): object[] {
  const often = { ...probe, periodSeconds: 1, timeoutSeconds: 3 };
  const container = {
    args: ["/apps/server.ts"],
    readinessProbe: often,
    livenessProbe: { ...often, initialDelaySeconds: 5, failureThreshold: 3 },
    ports,
  };
  return app(NAMESPACE, name, { node, container, ports: [8080] });
}

const service = (name: string, spec: object) => ({
  apiVersion: "v1",
  kind: "Service",
  metadata: { name, namespace: NAMESPACE },
  spec: { selector: { app: "http" }, ports: [{ name: "http", port: 80, targetPort: 8080 }], ...spec },
});

/** A job that asks a Service from its init container and from its container, and ends at once. */
const job = {
  apiVersion: "batch/v1",
  kind: "Job",
  metadata: { name: "job", namespace: NAMESPACE },
  spec: {
    backoffLimit: 0,
    template: {
      metadata: { labels: { app: "job" } },
      spec: {
        restartPolicy: "Never",
        nodeSelector: { "kubernetes.io/hostname": "node1" },
        initContainers: [asking("init", "http://cluster-ip/early")],
        containers: [asking("main", "http://headless:8080/late")],
      },
    },
  },
};

function asking(name: string, url: string): object {
  const code =
    `const r = await fetch("${url}"); const t = await r.text(); console.log(t); Deno.exit(t.includes(" http") ? 0 : 1)`;
  return { name, image: APPS_IMAGE, imagePullPolicy: "Never", command: ["/usr/bin/deno", "eval", code] };
}

clusterTest(
  "probes: the kubelet's reach pods under STRICT; Services of every type, node ports, host ports, jobs and host-network pods work (CNI-020, CNI-070, CNI-180)",
  OPTIONS,
  async (cluster) => {
    await cluster.apply(
      { apiVersion: "v1", kind: "Namespace", metadata: { name: NAMESPACE, labels: AMBIENT } },
      ...probed("http", "node2", { httpGet: { path: "/", port: 8080 } }),
      ...probed("tcp", "node1", { tcpSocket: { port: 7000 } }, [{ containerPort: 8080, hostPort: HOST_PORT }]),
      ...probed("grpc", "node2", { grpc: { port: 9090 } }),
      ...app(NAMESPACE, "exec", {
        node: "node1",
        container: {
          command: ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no"],
          readinessProbe: { exec: { command: ["redis-cli", "ping"] }, periodSeconds: 1, timeoutSeconds: 3 },
        },
      }),
      ...app(NAMESPACE, "host", { node: "node1", container: { image: PAUSE_IMAGE }, pod: { hostNetwork: true } }),
      service("cluster-ip", {}),
      service("node-port", {
        type: "NodePort",
        ports: [{ name: "http", port: 80, targetPort: 8080, nodePort: NODE_PORT }],
      }),
      service("balancer", { type: "LoadBalancer" }),
      service("headless", { clusterIP: "None" }),
      {
        ...service("external", {}),
        spec: { type: "ExternalName", externalName: `cluster-ip.${NAMESPACE}.svc.cluster.local` },
      },
    );
    await cluster.untilPods(NAMESPACE, "", 5, isReady, PODS_MS);
    const pods = await cluster.pods(NAMESPACE), named = (name: string) => pods.find((it) => it.metadata.name === name)!;
    for (const pod of pods) assertEquals(isEnrolled(pod), pod.metadata.name !== "host", pod.metadata.name);
    const [near, far] = [cluster.node("node1").ip, cluster.node("node2").ip];
    // A Service's port at each node, with the pod on the second one, and a pod's port at its own node.
    const doors = [`http://${near}:${NODE_PORT}/x`, `http://${far}:${NODE_PORT}/x`, `http://${near}:${HOST_PORT}/x`];
    const outside = async (address: string) => {
      const { success } = await new Deno.Command("curl", { args: ["--silent", "--max-time", "3", address] }).output();
      return success;
    };
    for (const door of doors) {
      await until(() => outside(door), `PERMISSIVE: ${door} is served to whom is outside of the mesh`, SETTLE_MS);
      const inside = async () => (await ask(cluster, named("grpc"), door))?.startsWith("x ") ?? false;
      await until(inside, `PERMISSIVE: ${door} is served to a pod of the mesh`, SETTLE_MS);
    }
    await cluster.apply(strict);
    for (const door of doors) {
      await until(async () => !await outside(door), `STRICT: ${door} lets no plain text in`, SETTLE_MS);
    }
    // The job's containers ask Services through the mesh, the first of them before the pod's own container runs.
    await cluster.apply(job);
    const finished = async () => (await cluster.pods(NAMESPACE, "app=job"))[0]?.status.phase ?? "none";
    await until(async () => /Succeeded|Failed/.test(await finished()), "the job ends", PODS_MS);
    assertEquals(await finished(), "Succeeded");
    // From a pod of the mesh every type of Service leads to the server.
    const within = ["--net", "--target", `${cluster.pidOf(named("tcp"))}`, "curl", "--silent", "--max-time", "5"];
    const addresses = await cluster.get<{ items: { metadata: { name: string }; spec: { clusterIP?: string } }[] }>(
      ["services", "-n", NAMESPACE],
    );
    for (const name of ["cluster-ip", "node-port", "balancer"]) {
      const { spec: { clusterIP } } = addresses.items.find(({ metadata }) => metadata.name === name)!;
      assertEquals(await output("nsenter", [...within, `http://${clusterIP}/${name}`]), `${name} http`);
    }
    for (const name of ["headless:8080", "external"]) {
      const code = `console.log((await (await fetch("http://${name}/x")).text()).trim())`;
      const said = await cluster.kubectl(["exec", "-n", NAMESPACE, "tcp", "--", "/usr/bin/deno", "eval", code]);
      assertEquals(said.trim(), "x http", name);
    }
    for (const door of doors) assert(!await outside(door), `STRICT: ${door} let plain text in`);
    const probes = async () => Number(await ask(cluster, named("http"), "http://127.0.0.1:8080/probes"));
    const before = await probes(); // Of readiness and of life, one a second each; the other pods' are as many.
    await until(async () => await probes() >= before + 2 * LIVE, "probes of life pass STRICT", SETTLE_MS);
    for (const { metadata: { name }, status } of await cluster.pods(NAMESPACE)) {
      assertEquals(status.containerStatuses?.map((it) => it.restartCount) ?? [], [0], `${name} was started again`);
    }
  },
);

const HELD = "held";

clusterTest(
  "held: a pod that starts while the agent or ztunnel is away waits, sends nothing, and starts once it is back (CNI-019, CNI-021, CNI-051)",
  { namespaces: [HELD] },
  async (cluster) => {
    const nodes = { spec: { template: { spec: { nodeSelector: { nowhere: "true" } } } } };
    const usual = { spec: { template: { spec: { nodeSelector: { nowhere: null } } } } };
    await cluster.apply({ apiVersion: "v1", kind: "Namespace", metadata: { name: HELD, labels: AMBIENT } });
    using netns = ownNetns();
    await using wire = new Wiretap(netns, "wire1", "ambit-plain-", /^10\.244\./);
    const server = stage(HELD).filter((it) => (it as PodStatus).metadata.name === "server");
    await cluster.apply(...server);
    await cluster.readyPod(HELD, "server");
    for (
      const [part, selector] of [["ztunnel", "app=ztunnel"], ["istio-cni-node", "k8s-app=istio-cni-node"]] as const
    ) {
      const patch = (value: object) =>
        cluster.kubectl([
          "patch",
          "daemonset",
          part,
          "-n",
          "istio-system",
          "--type=strategic",
          "-p",
          JSON.stringify(value),
        ]);
      const name = `beside-${part}`;
      try {
        await patch(nodes);
        await until(
          async () => (await cluster.pods("istio-system", selector)).length === 0,
          `${part} is away`,
          PODS_MS,
        );
        const address = (await cluster.pods(HELD, "app=server"))[0]!.status.podIP!;
        const first = { image: PAUSE_IMAGE, args: ["first", `${address}:7000`] };
        await cluster.apply(...app(HELD, name, { node: "node1", container: first }));
        const refused = async () => {
          const events = await cluster.kubectl([
            "get",
            "events",
            "-n",
            HELD,
            "--field-selector",
            `involvedObject.name=${name}`,
          ]);
          return events.split("\n").find((line) => line.includes("FailedCreatePodSandBox"));
        };
        await until(async () => await refused() !== undefined, `${name} is held back`, PODS_MS);
        report(`without ${part}: ${(await refused())!.replace(/\s+/g, " ").slice(0, 260)}`);
        const [held] = await cluster.pods(HELD, `app=${name}`);
        assertEquals(held!.status.phase, "Pending");
      } finally {
        await patch(usual); // Else everything after this would fail, too.
      }
      await cluster.untilPods("istio-system", selector, cluster.nodes.length, isReady, PODS_MS);
      const pod = await cluster.readyPod(HELD, name, PODS_MS);
      assert(isEnrolled(pod));
      const log = () => cluster.kubectl(["logs", "-n", HELD, name]);
      await until(async () => (await log()).includes("byteAtMs"), `${name} is served`, PODS_MS);
      assertEquals(
        (await wire.seen()).filter((it) => it.destinationPort === 7000),
        [],
        `${name} was plain on the wire`,
      );
    }
  },
);
