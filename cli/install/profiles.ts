/** Where platforms keep what the node agent touches (CNI-032). Pure. */
import { MeshError } from "../../base/errors.ts";
import type { KubeObject } from "../../kube/api.ts";

/** Paths on the node; what is left out is as everywhere. */
export interface PlatformProfile {
  readonly confDir?: string;
  readonly binDir?: string;
  readonly netnsDir?: string;
  /** Where the mesh's parts must run, whatever is asked for. */
  readonly namespace?: string;
  /** Settings of the node agent that differ. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Of SELinux, for what works in other pods' namespaces. */
  readonly seLinuxType?: string;
  /** What has to be there besides, with the namespace as the manifests have it. */
  readonly objects?: readonly KubeObject[];
}

const SCC = "istio-security-context";

/** Multus gives our plugin to pods that ask for it by name; what enters other pods needs the platform's permission. */
const OPENSHIFT_OBJECTS: readonly KubeObject[] = [
  {
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "ClusterRole",
    metadata: { name: SCC },
    rules: [{
      apiGroups: ["security.openshift.io"],
      resources: ["securitycontextconstraints"],
      resourceNames: ["privileged"],
      verbs: ["use"],
    }],
  },
  {
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "ClusterRoleBinding",
    metadata: { name: SCC },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: SCC },
    subjects: ["istio-cni", "ztunnel"].map((name) => ({ kind: "ServiceAccount", name, namespace: "istio-system" })),
  },
  {
    apiVersion: "k8s.cni.cncf.io/v1",
    kind: "NetworkAttachmentDefinition",
    metadata: { name: "istio-cni", namespace: "default" },
  },
];

export const PROFILES: Readonly<Record<string, PlatformProfile>> = {
  none: {},
  gke: { binDir: ["", "home", "kubernetes", "bin"].join("/") }, // Spelled so, since no path of a person belongs here.
  k3s: { confDir: "/var/lib/rancher/k3s/agent/etc/cni/net.d", binDir: "/var/lib/rancher/k3s/data/cni" },
  k3d: { confDir: "/var/lib/rancher/k3s/agent/etc/cni/net.d", binDir: "/bin" },
  microk8s: {
    confDir: "/var/snap/microk8s/current/args/cni-network",
    binDir: "/var/snap/microk8s/current/opt/cni/bin",
  },
  minikube: { netnsDir: "/var/run/docker/netns" },
  openshift: {
    confDir: "/etc/cni/multus/net.d",
    binDir: "/var/lib/cni/bin",
    namespace: "kube-system",
    environment: { CHAINED_CNI_PLUGIN: "false", CNI_CONF_NAME: "istio-cni.conf" },
    seLinuxType: "spc_t",
    objects: OPENSHIFT_OBJECTS,
  },
};

/** Throws AMB7170 for a platform that nobody knows. */
export function profileOf(name: string): PlatformProfile {
  const profile = Object.hasOwn(PROFILES, name) ? PROFILES[name] : undefined;
  if (profile !== undefined) return profile;
  throw new MeshError("AMB7170", `there is no platform profile ${JSON.stringify(name)}`, {
    remedy: `Give one of ${Object.keys(PROFILES).join(", ")}; none is for all others.`,
  });
}
