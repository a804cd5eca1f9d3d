/** A node of a cluster: process ids, mounts, network and name of its own, and in them containerd, kubelet and kube-proxy. */
import { output } from "../kube/go_tools.ts";
import { PartProcess } from "../kube/part_process.ts";
import { makeCgroup } from "./cgroups.ts";
import { BRIDGE, CONTROL_PLANE, DNS_SERVICE, type NodeLayout, PAUSE_IMAGE, POD_RANGE } from "./layout.ts";
import type { ClusterParts } from "./parts.ts";
import { conflist, type Network, ROUTED_PLUGIN } from "./primary_network.ts";
import { runName } from "./sandbox.ts";

const SOCKET = "/run/containerd/containerd.sock";
const READY_MS = 60_000;
/** What a kubelet would set for the whole machine: it finds it set, in files of its own. */
const KERNEL_SETTINGS: Readonly<Record<string, string>> = {
  "vm/overcommit_memory": "1",
  "vm/panic_on_oom": "0",
  "kernel/panic": "10",
  "kernel/panic_on_oops": "1",
  "kernel/keys/root_maxkeys": "1000000",
  "kernel/keys/root_maxbytes": "25000000",
};

/** A node's first process: makes the file tree that programs of a node expect, and buries whoever has no parent left. */
const FIRST_PROCESS = `set -e
node=$1; name=$2; plugins=$3; routed=$4
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/netns /run/lock
mount -t bpf bpf /sys/fs/bpf
for tree in etc opt var; do
  mkdir -p "$node/$tree" "$node/work-$tree"
  mount -t overlay overlay -o "lowerdir=/$tree,upperdir=$node/$tree,workdir=$node/work-$tree" "/$tree"
done
for setting in "$node"/settings/*; do
  mount --bind "$setting" "/proc/sys/$(basename "$setting" | tr : /)"
done
rm -rf /etc/cni /opt/cni /var/lib/cni /var/log/pods /var/log/containers
mkdir -p /etc/cni/net.d /opt/cni/bin /var/lib/cni
cp "$plugins"/* /opt/cni/bin/
install "$routed" /opt/cni/bin/routed
cp "$node/pods.conflist" /etc/cni/net.d/10-pods.conflist
echo "nameserver ${CONTROL_PLANE}" >"$node/resolv.conf"
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
echo 0 >/proc/sys/net/ipv4/conf/default/rp_filter
hostname "$name"
mount --make-rshared /
touch "$node/made"
while :; do sleep infinity & wait $!; done`;

/** Where a node is, for whoever drives it. */
export interface NodePlace extends NodeLayout {
  readonly folder: string;
  /** Of its first process, as we see it. */
  readonly pid: number;
}

/** Makes a node and plugs it in. @returns Before its programs run. */
export async function makeNode(
  run: string,
  layout: NodeLayout,
  { plugins }: ClusterParts,
  network: Network,
): Promise<NodePlace> {
  const folder = `${run}/${layout.name}`;
  await Deno.mkdir(`${folder}/settings`, { recursive: true });
  await Deno.writeTextFile(`${folder}/pods.conflist`, JSON.stringify(conflist(network, layout), undefined, 1));
  for (const [name, value] of Object.entries(KERNEL_SETTINGS)) {
    await Deno.writeTextFile(`${folder}/settings/${name.replaceAll("/", ":")}`, `${value}\n`);
  }
  const spaces = ["--net", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--uts"];
  const first = new PartProcess(layout.name, {
    command: "unshare",
    args: [...spaces, "bash", "-c", FIRST_PROCESS, "node", folder, layout.name, plugins, ROUTED_PLUGIN],
    logPath: `${run}/log/${layout.name}.log`,
    isReady: async () => await Deno.stat(`${folder}/made`).then(() => true, () => false),
    readyMs: READY_MS,
  });
  await first.start();
  const children = await Deno.readTextFile(`/proc/${first.pid}/task/${first.pid}/children`);
  const place = { ...layout, folder, pid: Number(children.trim()) };
  await plugIn(place);
  return place;
}

async function plugIn({ pid, port, ip }: NodePlace): Promise<void> {
  const inside = ["--net", "--target", `${pid}`, "ip"];
  await output("ip", ["link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", `${pid}`]);
  await output("ip", ["link", "set", port, "master", BRIDGE, "up"]);
  await output("nsenter", [...inside, "link", "set", "lo", "up"]);
  await output("nsenter", [...inside, "addr", "add", `${ip}/24`, "dev", "eth0"]);
  await output("nsenter", [...inside, "link", "set", "eth0", "up"]);
  // Service addresses need a route before kube-proxy translates them; this one leads nowhere else.
  await output("nsenter", [...inside, "route", "add", "default", "via", CONTROL_PLANE]);
}

/** Starts the runtime, loads what every pod needs, then the rest. */
export async function startNode(run: string, place: NodePlace, parts: ClusterParts, pause: string): Promise<void> {
  const { name, ip, folder } = place,
    configs = { containerd: `${folder}/containerd.toml`, kubelet: `${folder}/kubelet` };
  await Deno.writeTextFile(configs.containerd, containerdConfig(folder));
  await Deno.writeTextFile(configs.kubelet, JSON.stringify(kubeletConfig(run, place)));
  const start = async (program: string, args: readonly string[], isReady = () => Promise.resolve(true)) =>
    await new PartProcess(`${program} of ${name}`, {
      command: "nsenter",
      args: [...enter(place), ...args],
      logPath: `${run}/log/${name}-${program}.log`,
      isReady,
    }).start();
  const ask = ["ctr", "--address", SOCKET, "version"];
  await start("containerd", ["containerd", "--config", configs.containerd], async () => {
    const { success } = await new Deno.Command("nsenter", { args: [...enter(place), ...ask], stdout: "null" }).output();
    return success;
  });
  const proxy = { kubeconfig: `${run}/proxy.kubeconfig`, "hostname-override": name, "proxy-mode": "nftables" };
  const noTuning = { "conntrack-max-per-core": "0", "conntrack-tcp-timeout-established": "0s" };
  await start("kube-proxy", [
    parts.kubeProxy,
    ...flags({ ...proxy, ...noTuning, "conntrack-tcp-timeout-close-wait": "0s", "cluster-cidr": POD_RANGE }),
  ]);
  await loadImage(place, pause);
  await start("kubelet", [
    parts.kubelet,
    ...flags({
      config: configs.kubelet,
      kubeconfig: `${run}/${name}.kubeconfig`,
      "hostname-override": name,
      "node-ip": ip,
      "root-dir": `${folder}/kubelet-root`,
      "cert-dir": `${folder}/kubelet-pki`,
    }),
  ]);
}

/** Makes an image known to the node's runtime. */
export async function loadImage(place: NodePlace, archive: string): Promise<void> {
  await output("nsenter", [...enter(place), "ctr", "--address", SOCKET, "-n", "k8s.io", "images", "import", archive]);
}

/** Makes another node's pods reachable. */
export async function addRoute(place: NodePlace, other: NodeLayout): Promise<void> {
  await output("nsenter", [...enter(place), "ip", "route", "add", other.podRange, "via", other.ip]);
}

/** What `nsenter` needs to be told to run a program on the node. */
export function enter({ pid }: NodePlace): string[] {
  return ["--target", `${pid}`, "--mount", "--net", "--pid", "--uts", "--"];
}

const flags = (values: Readonly<Record<string, string>>) => Object.entries(values).map(([key, it]) => `--${key}=${it}`);

function containerdConfig(folder: string): string {
  return `version = 2
root = "${folder}/containerd"
state = "/run/containerd"
[grpc]
  address = "${SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
`;
}

function kubeletConfig(run: string, { name, folder }: NodePlace): object {
  return {
    apiVersion: "kubelet.config.k8s.io/v1beta1",
    kind: "KubeletConfiguration",
    authentication: {
      anonymous: { enabled: false },
      webhook: { enabled: true },
      x509: { clientCAFile: `${run}/pki/ca.crt` },
    },
    authorization: { mode: "Webhook" },
    cgroupDriver: "cgroupfs",
    cgroupRoot: makeCgroup(runName(run), name),
    failSwapOn: false,
    enforceNodeAllocatable: [],
    containerRuntimeEndpoint: `unix://${SOCKET}`,
    evictionHard: { "memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
    imageGCHighThresholdPercent: 100,
    clusterDNS: [DNS_SERVICE],
    clusterDomain: "cluster.local",
    resolvConf: `${folder}/resolv.conf`,
    maxPods: 250,
    // The suite kills programs again and again: what is measured is theirs, not the kubelet's patience.
    featureGates: { KubeletCrashLoopBackOffMax: true },
    crashLoopBackOff: { maxContainerRestartPeriod: "1s" },
    syncFrequency: "10s",
    registerNode: true,
  };
}
