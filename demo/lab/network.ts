/** Two nodes, a control host and pods, as network namespaces joined by veth pairs: routed, without a bridge. */
import { MeshError } from "../../base/errors.ts";
import { netnsCookie } from "../../os/bpf/netns_cookie.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import {
  createNamedNetns,
  deleteNamedNetns,
  NAMED_NETNS_FOLDER,
  type Netns,
  openNetns,
  writeSysctl,
} from "../../os/netns.ts";

export const NODE_NAMES = ["node-a", "node-b"] as const;
export type NodeName = (typeof NODE_NAMES)[number];

/** A namespace of the lab. `name` is how `ip netns` and `enroll` know it. */
export interface Place {
  readonly name: string;
  readonly netns: Netns;
}

export interface NodePlace extends Place {
  readonly node: NodeName;
  /** What reaches istiod from here. */
  readonly controlIp: string;
  /** The node's address on the wire to the other node. */
  readonly wireIp: string;
}

export interface PodPlace extends Place {
  readonly node: NodeName;
  readonly ipv4: string;
  readonly ipv6: string;
}

/** The interface by which each node reaches the other: the place to listen on the wire. */
export const WIRE = "wire";
const CONTROL_LINK = "control";
/** What every name that a lab gives begins with; the process follows. */
export const NAME_PREFIX = "ambit-lab-";

interface NodePlan {
  readonly number: number;
  readonly wire: readonly [string, string];
  readonly control: { readonly ours: string; readonly theirs: string };
}

const PLAN: Readonly<Record<NodeName, NodePlan>> = {
  "node-a": {
    number: 1,
    wire: ["10.80.0.1", "fd80::1"],
    control: { ours: "10.80.254.2", theirs: "10.80.254.1" },
  },
  "node-b": {
    number: 2,
    wire: ["10.80.0.2", "fd80::2"],
    control: { ours: "10.80.254.6", theirs: "10.80.254.5" },
  },
};

/** Addresses of the control host, which istiod's certificate must name. */
export const CONTROL_IPS = NODE_NAMES.map((name) => PLAN[name].control.theirs);

const gatewayOf = (node: NodeName) => [`10.80.${PLAN[node].number}.1`, `fd80:${PLAN[node].number}::1`] as const;

/** The addresses of the `index`-th pod of a node, 2 to 250. */
export function podAddresses(node: NodeName, index: number): { ipv4: string; ipv6: string } {
  const { number } = PLAN[node];
  return { ipv4: `10.80.${number}.${index}`, ipv6: `fd80:${number}::${index.toString(16)}` };
}

/** A number that no other namespace ever has, as its inode may; undefined on a kernel that gives none (before 5.14). */
export function numberOf(netns: Netns): bigint | undefined {
  try {
    return netnsCookie(netns);
  } catch (error) {
    if (error instanceof MeshError && error.code === "AMB7150") return undefined;
    throw error;
  }
}

/** Whether a lab gives links names like this one. */
export function isLinkOfLab(name: string): boolean {
  return name === WIRE || name === CONTROL_LINK || NODE_NAMES.some((it) => it === name) || /^pod\d+$/.test(name);
}

/** All namespaces of one lab. Disposing deletes them, and with them links, addresses, routes and rules. */
export class Network implements Disposable {
  readonly key: string;
  readonly control: Place;
  readonly nodes: Readonly<Record<NodeName, NodePlace>>;
  readonly #places: Place[] = [];
  #linkCount = 0;

  /** `key` tells labs of one process apart. Throws MeshError, with nothing left behind. */
  constructor(key: string) {
    this.key = `${NAME_PREFIX}${Deno.pid}-${key}`;
    try {
      this.control = this.#place("control");
      this.nodes = { "node-a": this.#node("node-a"), "node-b": this.#node("node-b") };
      this.#joinNodes();
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Inodes of the namespaces that there are, each with its {@link numberOf}. */
  get numbers(): ReadonlyMap<number, bigint | undefined> {
    return new Map(this.#places.map(({ netns }) => [netns.inode, numberOf(netns)]));
  }

  /** A pod's namespace, reached through its node: `eth0` with both addresses, everything else by the node. */
  addPod(name: string, at: { node: NodeName; ipv4: string; ipv6: string }): PodPlace {
    const pod = this.#place(`pod-${name}`);
    const link = `pod${++this.#linkCount}`;
    const { netns } = this.nodes[at.node];
    const [gateway4, gateway6] = gatewayOf(at.node);
    using node = RouteSocket.open(netns);
    using inside = RouteSocket.open(pod.netns);
    node.addVeth({ name: link, peerName: "eth0", peerNetns: pod.netns });
    node.addAddress(link, `${gateway4}/32`);
    node.addAddress(link, `${gateway6}/128`);
    node.setUp(link);
    inside.addAddress("eth0", `${at.ipv4}/32`);
    inside.addAddress("eth0", `${at.ipv6}/128`);
    inside.setUp("eth0");
    node.addRoute({ destination: `${at.ipv4}/32`, device: link });
    node.addRoute({ destination: `${at.ipv6}/128`, device: link });
    inside.addRoute({ destination: `${gateway4}/32`, device: "eth0" });
    inside.addRoute({ destination: `${gateway6}/128`, device: "eth0" });
    inside.addRoute({ destination: "0.0.0.0/0", via: gateway4 });
    inside.addRoute({ destination: "::/0", via: gateway6 });
    return { ...pod, ...at };
  }

  /** Takes a pod's namespace away; it vanishes with its last process. */
  removePod(pod: PodPlace): void {
    const at = this.#places.findIndex((place) => place.name === pod.name);
    if (at >= 0) this.#places.splice(at, 1);
    pod.netns[Symbol.dispose]();
    deleteNamedNetns(pod.name);
  }

  [Symbol.dispose](): void {
    for (const { name, netns } of this.#places.splice(0)) {
      netns[Symbol.dispose]();
      deleteNamedNetns(name);
    }
  }

  #place(role: string): Place {
    const name = `${this.key}-${role}`;
    const netns = createNamedNetns(name);
    this.#places.push({ name, netns });
    // More local ports than the default 28,000: tests open many short connections from one address. None is one that
    // ztunnel listens on: a connection that has it would keep the next ztunnel from it.
    writeSysctl(netns, "net/ipv4/ip_local_port_range", "17000 65000");
    writeSysctl(netns, "net/ipv4/tcp_tw_reuse", "1");
    writeSysctl(netns, "net/ipv4/conf/all/rp_filter", "0");
    // Duplicate address detection would hold back the first packets of every new link.
    writeSysctl(netns, "net/ipv6/conf/default/accept_dad", "0");
    using routes = RouteSocket.open(netns);
    routes.setUp("lo");
    return { name, netns };
  }

  #node(node: NodeName): NodePlace {
    const { wire, control } = PLAN[node];
    const place = this.#place(node);
    writeSysctl(place.netns, "net/ipv4/ip_forward", "1");
    writeSysctl(place.netns, "net/ipv6/conf/all/forwarding", "1");
    using here = RouteSocket.open(place.netns);
    using there = RouteSocket.open(this.control.netns);
    there.addVeth({ name: node, peerName: CONTROL_LINK, peerNetns: place.netns });
    there.addAddress(node, `${control.theirs}/30`);
    there.setUp(node);
    here.addAddress(CONTROL_LINK, `${control.ours}/30`);
    here.setUp(CONTROL_LINK);
    // The way back to pods that talk to something outside the mesh.
    there.addRoute({ destination: `10.80.${PLAN[node].number}.0/24`, via: control.ours });
    return { ...place, node, controlIp: control.theirs, wireIp: wire[0] };
  }

  #joinNodes(): void {
    using here = RouteSocket.open(this.nodes["node-a"].netns);
    using there = RouteSocket.open(this.nodes["node-b"].netns);
    here.addVeth({ name: WIRE, peerName: WIRE, peerNetns: this.nodes["node-b"].netns });
    for (const [routes, own] of [[here, "node-a"], [there, "node-b"]] as const) {
      routes.addAddress(WIRE, `${PLAN[own].wire[0]}/30`);
      routes.addAddress(WIRE, `${PLAN[own].wire[1]}/64`);
      routes.setUp(WIRE);
    }
    for (const [routes, other] of [[here, "node-b"], [there, "node-a"]] as const) {
      const { number, wire } = PLAN[other];
      routes.addRoute({ destination: `10.80.${number}.0/24`, via: wire[0] });
      routes.addRoute({ destination: `fd80:${number}::/64`, via: wire[1] });
    }
  }
}

/** Namespaces of labs that there are now, of every process or of one. */
export function labNamespaces(pid?: number): string[] {
  const prefix = pid === undefined ? NAME_PREFIX : `${NAME_PREFIX}${pid}-`;
  try {
    return [...Deno.readDirSync(NAMED_NETNS_FOLDER)].map((entry) => entry.name).filter((it) => it.startsWith(prefix));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/** Ends and deletes what labs left that were killed before they could: those whose process is gone. @returns Their names. */
export function sweepLeftovers(): string[] {
  const abandoned = labNamespaces().filter((name) => !isAlive(parseInt(name.slice(NAME_PREFIX.length), 10)));
  const paths = abandoned.map((name) => `${NAMED_NETNS_FOLDER}/${name}`);
  // Until none is found: one that is being ended may have started another.
  for (let left = processesIn(...paths); left.length > 0; left = processesIn(...paths)) left.forEach(kill);
  abandoned.forEach(deleteNamedNetns);
  for (const { name } of Deno.readDirSync(TEMPORARY)) {
    const pid = name.startsWith(NAME_PREFIX) ? parseInt(name.slice(NAME_PREFIX.length), 10) : NaN;
    if (!Number.isNaN(pid) && !isAlive(pid)) removeOwnFolder(`${TEMPORARY}/${name}`);
  }
  return abandoned;
}

/** Another run may sweep at the same time: what it has taken away is gone as well. */
function removeOwnFolder(path: string): void {
  try {
    if (Deno.statSync(path).uid === Deno.uid()) Deno.removeSync(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

const TEMPORARY = Deno.env.get("TMPDIR") ?? "/tmp";

/**
 * Live processes whose network namespace is one of those at `paths`. Each process is asked once for all of them: a node
 * agent visits its pods' namespaces, and whoever looks at one after the other may miss it in each.
 */
export function processesIn(...paths: string[]): number[] {
  const inodes = new Set(paths.map(inodeOf));
  return [...Deno.readDirSync("/proc")].map((entry) => Number(entry.name)).filter((pid) => {
    const inode = pid > 0 ? netnsInodeOf(pid) : undefined;
    return inode !== undefined && inodes.has(inode) && isAlive(pid);
  });
}

function inodeOf(path: string): number | undefined {
  try {
    using netns = openNetns(path);
    return netns.inode;
  } catch (error) {
    if (error instanceof MeshError) return undefined; // A name whose namespace was never mounted.
    throw error;
  }
}

function kill(pid: number): void {
  try {
    Deno.kill(pid, "SIGKILL");
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error; // It has ended by itself.
  }
}

function netnsInodeOf(pid: number): number | undefined {
  try {
    return Number(/\[(\d+)\]/.exec(Deno.readLinkSync(`/proc/${pid}/ns/net`))?.[1]);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.PermissionDenied) return undefined;
    throw error;
  }
}

/** Whether a process of that id exists. */
export function isAlive(pid: number): boolean {
  try {
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    return stat[stat.lastIndexOf(")") + 2] !== "Z"; // It has ended, and nobody has asked how.
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || /ESRCH|No such process/.test(String(error))) return false;
    throw error;
  }
}
