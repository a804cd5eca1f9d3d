/** The manifests of deploy/: that they fit together, and the settings and ports of the roles that they start. */
import { assertEquals } from "@std/assert";
import { parseAll } from "@std/yaml";
import type { Table } from "../../base/config.ts";
import { VERSION } from "../../base/version.ts";
import { CNI_CONFIG } from "../../cni/config.ts";
import { ISTIOD_CONFIG } from "../../control/config.ts";
import { ZTUNNEL_CONFIG } from "../../dataplane/config.ts";
import { trackedFiles } from "./tree.ts";

const FOLDER = "deploy/kubernetes/", NAMESPACE = "istio-system";
const CLUSTER_WIDE = ["Namespace", "ClusterRole", "ClusterRoleBinding", "ValidatingWebhookConfiguration"];

type Labels = Readonly<Record<string, string>>;
interface Container {
  readonly image: string;
  readonly args: readonly string[];
  readonly env: readonly { readonly name: string }[];
  readonly ports: readonly { readonly name: string; readonly containerPort: number }[];
}
interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly spec: {
    readonly selector: Labels & { readonly matchLabels: Labels };
    readonly ports: readonly { readonly name: string; readonly port: number; readonly targetPort: string }[];
    readonly template: { readonly metadata: { readonly labels: Labels }; readonly spec: { containers: [Container] } };
  };
}

const all = (await trackedFiles()).filter(({ path }) => path.startsWith(FOLDER) && path.endsWith(".yaml"));
const COMPONENTS = `${FOLDER}components/`;
const FIRST = "/spec/template/spec/containers/0/";
const ROLES = [
  ["Deployment", "istiod", ISTIOD_CONFIG],
  ["DaemonSet", "ztunnel", ZTUNNEL_CONFIG],
  ["DaemonSet", "istio-cni-node", CNI_CONFIG],
] as const;
const files = all.filter(({ path }) => !path.startsWith(COMPONENTS));
const listed = files.find(({ path }) => path.endsWith("/kustomization.yaml"))!;
const others = files.filter((file) => file !== listed);
const manifests = others.flatMap(({ text }) => parseAll(text) as Manifest[]);
const the = (kind: string, name = "istiod") => manifests.find((it) => it.kind === kind && it.metadata.name === name)!;
const [container] = the("Deployment").spec.template.spec.containers;

const settings = Object.values<Table[string]>(ISTIOD_CONFIG.table);
/** Where istiod listens in a pod, from its table of settings: `…, in a pod of a cluster :15012`. */
const ports = settings.flatMap(({ defaultText = "" }) => /in a pod of a cluster :(\d+)$/.exec(defaultText)?.[1] ?? [])
  .map(Number);

Deno.test("deploy/kubernetes: every file is applied, and every object says where it belongs", () => {
  const [kustomization] = parseAll(listed.text) as [{ resources: string[] }];
  assertEquals(kustomization.resources.toSorted(), others.map(({ path }) => path.slice(FOLDER.length)).toSorted());
  for (const { kind, metadata } of manifests) {
    const wanted = CLUSTER_WIDE.includes(kind) ? undefined : NAMESPACE;
    assertEquals(metadata.namespace, wanted, `${kind}/${metadata.name}`);
  }
});

Deno.test("deploy/kubernetes: a component applies its files alone, sets what the roles know, and mounts the volumes that it brings", () => {
  const parts = all.filter(({ path }) => path.startsWith(COMPONENTS));
  const folders = Map.groupBy(parts, ({ path }) => path.slice(0, path.lastIndexOf("/")));
  assertEquals(folders.size > 0, true);
  for (const [folder, inside] of folders) {
    const own = inside.find(({ path }) => path.endsWith("/kustomization.yaml"))!;
    const [{ kind, resources = [], patches = [] }] = parseAll(own.text) as [
      { kind: string; resources?: string[]; patches?: { target: { kind: string; name: string }; patch: string }[] },
    ];
    const listed = inside.filter((it) => it !== own).map(({ path }) => path.slice(folder.length + 1));
    assertEquals([kind, resources], ["Component", listed], folder);
    const objects = inside.filter((it) => it !== own).flatMap(({ text }) => parseAll(text) as Manifest[]);
    for (const { kind, metadata } of objects) {
      assertEquals(metadata.namespace, CLUSTER_WIDE.includes(kind) ? undefined : NAMESPACE, `${folder}: ${kind}`);
    }
    for (const { target, patch } of patches) {
      const role = ROLES.find(([kind, name]) => kind === target.kind && name === target.name);
      if (role === undefined) throw new Error(`${folder}: ${target.kind} ${target.name} is nothing of ours`);
      const known = Object.values<Table[string]>(role[2].table);
      const operations = parseAll(patch)[0] as { path: string; value: { name: string } }[];
      const added = (path: string) => operations.filter((it) => it.path === path).map(({ value }) => value.name);
      const [env, mounts, volumes] = [`${FIRST}env/-`, `${FIRST}volumeMounts/-`, "/spec/template/spec/volumes/-"].map(
        added,
      );
      assertEquals(operations.length, env!.length + mounts!.length + volumes!.length, `${folder}: other changes`);
      assertEquals(
        env!.filter((name) => !known.some((it) => it.env === name)),
        [],
      );
      assertEquals(mounts, volumes, folder);
    }
  }
});

/** The engine's words: what the image has, and a manifest may give others of. */
const OF_THE_RUNTIME = "DENO_V8_FLAGS";

Deno.test("deploy/kubernetes: flags, variables and image are those that the roles have", () => {
  for (const [kind, name, { table }] of ROLES) {
    const [{ args, env, image }] = the(kind, name).spec.template.spec.containers;
    const rows = Object.values<Table[string]>(table),
      flags = args.filter((it) => it.startsWith("--")).map((it) => it.slice(2));
    assertEquals(flags.filter((given) => !rows.some(({ flag }) => flag === given)), [], name);
    const known = (given: string) => given === OF_THE_RUNTIME || rows.some((row) => row.env === given);
    assertEquals(env.filter((given) => !known(given.name)), [], name);
    const withoutDefault = rows.filter((it) => !("default" in it));
    assertEquals(withoutDefault.filter((it) => !flags.includes(it.flag)).map(({ flag }) => flag), [], name);
    assertEquals(image, `localhost/ambit:${VERSION}`);
  }
});

Deno.test("deploy/kubernetes: the pod shows the ports that istiod opens, and the Service those that CP-001 names", () => {
  assertEquals(container.ports.map(({ containerPort }) => containerPort).toSorted(), ports.toSorted());
  const served: Readonly<Record<number, readonly [string, number]>> = {
    15010: ["grpc-xds", 15010],
    15012: ["https-dns", 15012],
    15014: ["http-monitoring", 15014],
    15017: ["https-webhook", 443],
  };
  const wanted = ports.flatMap((port) => served[port] === undefined ? [] : [[...served[port], port]]);
  const shown = the("Service").spec.ports.map(({ name, port, targetPort }) => {
    return [name, port, container.ports.find((it) => it.name === targetPort)?.containerPort];
  });
  const byPort = (one: readonly unknown[], other: readonly unknown[]) => Number(one[2]) - Number(other[2]);
  assertEquals(shown.toSorted(byPort), wanted.toSorted(byPort));
});

Deno.test("deploy/kubernetes: every selector finds istiod's pods", () => {
  const { labels } = the("Deployment").spec.template.metadata;
  const selectors = [
    the("Service").spec.selector,
    the("Deployment").spec.selector.matchLabels,
    the("PodDisruptionBudget").spec.selector.matchLabels,
  ];
  for (const selector of selectors) {
    for (const [name, value] of Object.entries(selector)) assertEquals(labels[name], value);
  }
});

Deno.test("deploy/kubernetes: istiods are several, one stays while a node is drained, and more come under load (CP-657)", () => {
  const spec = (kind: string) => the(kind).spec as unknown as Readonly<Record<string, unknown>>;
  assertEquals(spec("PodDisruptionBudget").minAvailable, 1);
  const { minReplicas, maxReplicas } = spec("HorizontalPodAutoscaler");
  assertEquals([minReplicas, maxReplicas], [2, 5]);
  assertEquals(spec("Deployment").strategy, { rollingUpdate: { maxSurge: "100%", maxUnavailable: "25%" } });
  assertEquals(ISTIOD_CONFIG.table.connectionAgeMsMax.default, 30 * 60_000);
});

Deno.test("deploy/kubernetes: the node agent has the rights of CNI-031 and CNI-055, the mounts of CNI-030, and no others", () => {
  const agent = the("DaemonSet", "istio-cni-node").spec as unknown as {
    updateStrategy: unknown;
    template: {
      spec: {
        priorityClassName: string;
        terminationGracePeriodSeconds: number;
        tolerations: unknown;
        containers: [{
          securityContext: { privileged: boolean; runAsUser: number; capabilities: unknown; appArmorProfile: unknown };
          volumeMounts: { mountPath: string; readOnly?: boolean; mountPropagation?: string }[];
        }];
      };
    };
  };
  const { priorityClassName, terminationGracePeriodSeconds, tolerations, containers } = agent.template.spec;
  assertEquals(agent.updateStrategy, { rollingUpdate: { maxUnavailable: 1 } });
  assertEquals([priorityClassName, terminationGracePeriodSeconds], ["system-node-critical", 30]);
  assertEquals(tolerations, [{ operator: "Exists" }]);
  const { privileged, runAsUser, capabilities, appArmorProfile } = containers[0].securityContext;
  assertEquals(appArmorProfile, { type: "Unconfined" });
  assertEquals([privileged, runAsUser], [false, 0]);
  const add = ["NET_ADMIN", "NET_RAW", "SYS_PTRACE", "SYS_ADMIN", "DAC_OVERRIDE"];
  assertEquals(capabilities, { drop: ["ALL"], add });
  const mounts = new Map(containers[0].volumeMounts.map((it) => [it.mountPath, it]));
  for (const path of ["/host/opt/cni/bin", "/host/etc/cni/net.d", "/var/run/istio-cni", "/var/run/ztunnel"]) {
    assertEquals(mounts.has(path), true, path);
  }
  assertEquals(mounts.get("/host/proc")?.readOnly, true);
  assertEquals(mounts.get("/host/var/run/netns")?.mountPropagation, "HostToContainer");
  const rules = (kind: string, name: string) =>
    (the(kind, name) as unknown as { rules: { resources: string[]; verbs: string[] }[] }).rules
      .flatMap(({ resources, verbs }) => resources.map((resource) => `${resource}: ${verbs.join()}`));
  assertEquals(rules("ClusterRole", "istio-cni-istio-system").toSorted(), [
    "events: create",
    "namespaces: get,list,watch",
    "nodes: get",
    "pods/status: patch",
    "pods: get,list,watch",
  ]);
  assertEquals(rules("Role", "istio-cni"), ["daemonsets: get"]);
});
