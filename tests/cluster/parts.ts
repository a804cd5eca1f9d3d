/**
 * The programs that a cluster is made of, besides those of tests/kube: kubelet, kube-proxy, kube-scheduler, CoreDNS and
 * what a pod runs, built by go into a cache folder; containerd, runc and the usual CNI plugins as Debian packs them.
 */
import { MeshError } from "../../base/errors.ts";
import { buildOnce, type BuiltOnce, cacheFolder, exists, go, lockedFile, versionFlags } from "../kube/go_tools.ts";
import { KUBERNETES_VERSION } from "../kube/go_tools.ts";
import { type KubeParts, kubeParts } from "../kube/parts.ts";

const SOURCE = new URL("parts/", import.meta.url).pathname;
const COREDNS = "github.com/coredns/coredns@v1.12.4";
const NODE_ROLES = ["kubelet", "kube-proxy", "kube-scheduler"] as const;

/** Programs of the machine: the Debian package of each. */
const SYSTEM_PROGRAMS: Readonly<Record<string, string>> = {
  containerd: "containerd",
  ctr: "containerd",
  runc: "runc",
  ip: "iproute2",
  ss: "iproute2",
  sysctl: "procps",
  nft: "nftables",
  "iptables-nft": "iptables",
  "iptables-legacy": "iptables",
  ipset: "ipset",
  conntrack: "conntrack",
  mount: "mount",
  nsenter: "util-linux",
  unshare: "util-linux",
  setpriv: "util-linux",
  "redis-server": "redis-server",
  psql: "postgresql",
};
const SYSTEM_FOLDERS = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/** Where the packages of distributions put the standard CNI plugins. */
const PLUGIN_FOLDERS = ["/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin"];
const NEEDED_PLUGINS = ["bridge", "host-local", "loopback", "portmap", "ptp"];

export interface ClusterParts {
  readonly kube: KubeParts;
  readonly kubelet: string;
  readonly kubeProxy: string;
  readonly scheduler: string;
  readonly coredns: string;
  /** Runs in pods: it waits, or says when its first byte came. Linked statically. */
  readonly pod: string;
  /** A folder with the standard CNI plugins. */
  readonly plugins: string;
}

/** Finds or makes all parts; minutes the first time on a machine. @throws MeshError AMB0280, AMB0281 or AMB7190. */
export async function clusterParts(): Promise<ClusterParts> {
  const plugins = await findSystemParts(), kube = await kubeParts();
  const cache = cacheFolder(`cluster-${KUBERNETES_VERSION}`);
  await Deno.mkdir(cache, { recursive: true });
  using _lock = await lockedFile(`${cache}/lock`);
  const once: BuiltOnce = {
    source: SOURCE,
    marked: ["main.go", "go.mod", "pod/main.go"],
    cache,
    what: `kubelet, kube-proxy, kube-scheduler ${KUBERNETES_VERSION} and CoreDNS`,
    build: () => build(cache),
  };
  await buildOnce(once);
  const [kubelet, kubeProxy, scheduler] = NODE_ROLES.map((name) => `${cache}/${name}`) as [string, string, string];
  return { kube, kubelet, kubeProxy, scheduler, coredns: `${cache}/coredns`, pod: `${cache}/pod`, plugins };
}

async function build(cache: string): Promise<void> {
  const flags = ["build", "-mod=readonly", "-trimpath", "-ldflags"];
  await go([...flags, versionFlags(), "-o", `${cache}/node`, "."], SOURCE);
  await go([...flags, "-s -w", "-o", `${cache}/pod`, "./pod"], SOURCE, { CGO_ENABLED: "0" });
  await go(["install", "-trimpath", "-ldflags", "-s -w", COREDNS], "/", { GOBIN: cache, CGO_ENABLED: "0" });
  for (const name of NODE_ROLES) {
    const link = `${cache}/${name}`;
    if (await exists(link)) await Deno.remove(link);
    await Deno.symlink("node", link);
  }
}

/** What must be installed, all of it in one sentence. @returns The folder of the CNI plugins. */
async function findSystemParts(): Promise<string> {
  const folders = [...(Deno.env.get("PATH") ?? "").split(":"), ...SYSTEM_FOLDERS];
  const missing = new Set<string>();
  for (const [program, debianPackage] of Object.entries(SYSTEM_PROGRAMS)) {
    const found = await Promise.all(folders.map((folder) => exists(`${folder}/${program}`)));
    if (!found.includes(true)) missing.add(debianPackage);
  }
  let plugins: string | undefined;
  for (const folder of PLUGIN_FOLDERS) {
    const found = await Promise.all(NEEDED_PLUGINS.map((name) => exists(`${folder}/${name}`)));
    if (!found.includes(false)) plugins ??= folder;
  }
  if (plugins === undefined) missing.add("containernetworking-plugins");
  if (plugins !== undefined && missing.size === 0) return plugins;
  throw new MeshError("AMB7190", `a cluster needs ${[...missing].join(", ")} on this machine`, {
    remedy: `apt-get install --no-install-recommends ${[...missing].join(" ")}`,
  });
}
