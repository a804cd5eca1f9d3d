/** Where a series runs: a client pod and a server pod, joined by a veth pair, and for each the node it stands on. */
import { MeshError } from "../../base/errors.ts";
import { createNamedNetns, deleteNamedNetns, NAMED_NETNS_FOLDER, type Netns, writeSysctl } from "../../os/netns.ts";
import { runWithin } from "../../os/process.ts";
import type { Cleanup } from "./cleanup.ts";

/** Addresses are the same in every topology: each has namespaces of its own. */
export const CLIENT_IP = "10.86.0.1", SERVER_IP = "10.86.0.2";
export const CLIENT_NODE_IP = "10.86.1.1", SERVER_NODE_IP = "10.86.1.2";
export const NAME_PREFIX = "ambit-bench-";

export interface Place {
  /** The namespace's name under /run/netns. */
  readonly name: string;
  readonly netns: Netns;
  readonly ip: string;
}

export interface Topology {
  readonly client: Place;
  readonly server: Place;
  readonly clientNode: Place;
  readonly serverNode: Place;
  /** A folder for this series' configuration, keys and logs; goes with the run. */
  readonly folder: string;
}

// More local ports than the default 28,000, and NAT entries of closed connections dropped at once: a run opens
// 20,000 connections a second.
const SYSCTLS = [
  ["net/ipv4/ip_local_port_range", "10000 65000"],
  ["net/ipv4/tcp_tw_reuse", "1"],
  ["net/ipv4/tcp_max_syn_backlog", "8192"],
  ["net/core/somaxconn", "8192"],
  ["net/ipv4/conf/all/rp_filter", "0"],
  ["net/ipv4/conf/lo/rp_filter", "0"],
] as const;

/**
 * Makes the four namespaces. `key` tells series apart; everything is taken down by `cleanup`.
 * @param congestion TCP congestion control of all of them; undefined: the host's.
 */
export function createTopology(
  key: string,
  runFolder: string,
  cleanup: Cleanup,
  congestion: string | undefined,
): Topology {
  const base = `${NAME_PREFIX}${Deno.pid}-${key}`;
  const folder = `${runFolder}/${key}`;
  Deno.mkdirSync(folder, { recursive: true });
  const client = createPlace(`${base}-c`, CLIENT_IP, cleanup);
  const server = createPlace(`${base}-s`, SERVER_IP, cleanup);
  const clientNode = createPlace(`${base}-cn`, CLIENT_NODE_IP, cleanup);
  const serverNode = createPlace(`${base}-sn`, SERVER_NODE_IP, cleanup);
  if (congestion !== undefined) {
    for (const { netns } of [client, server, clientNode, serverNode]) {
      writeSysctl(netns, "net/ipv4/tcp_congestion_control", congestion);
    }
  }
  link(client, server);
  link(clientNode, serverNode);
  return { client, server, clientNode, serverNode, folder };
}

function createPlace(name: string, ip: string, cleanup: Cleanup): Place {
  const netns = createNamedNetns(name);
  cleanup.add(`delete namespace ${name}`, () => {
    netns[Symbol.dispose]();
    deleteNamedNetns(name);
  });
  for (const [path, value] of SYSCTLS) writeSysctl(netns, path, value);
  runIp("-n", name, "link", "set", "lo", "up");
  return { name, netns, ip };
}

function link(left: Place, right: Place): void {
  runIp("-n", left.name, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", right.name);
  for (const place of [left, right]) {
    runIp("-n", place.name, "address", "add", `${place.ip}/24`, "dev", "eth0");
    runIp("-n", place.name, "link", "set", "eth0", "up");
    runIp("-n", place.name, "route", "add", "default", "dev", "eth0"); // Pods have one: redirected sockets need a route first.
  }
}

function runIp(...args: string[]): void {
  runTool("ip", args);
}

/** Runs a short administrative command, inside `netns` if given. Throws AMB9002 with what it said. */
export function runTool(command: string, args: readonly string[], netns?: Netns): void {
  const options: Deno.CommandOptions = { args: [...args], stdin: "null", stdout: "piped", stderr: "piped" };
  const output = netns === undefined
    ? new Deno.Command(command, options).outputSync()
    : runWithin(netns, command, options);
  if (output.success) return;
  throw new MeshError("AMB9002", `${command} ${args.join(" ")}: ${new TextDecoder().decode(output.stderr).trim()}`, {
    remedy: "Run as root on a machine with iproute2 and nftables.",
  });
}

/** Deletes namespaces of runs that were killed before they could: those whose process is gone. @returns Their names. */
export function sweepLeftovers(): string[] {
  const swept: string[] = [];
  let entries: string[];
  try {
    entries = [...Deno.readDirSync(NAMED_NETNS_FOLDER)].map((entry) => entry.name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return swept;
    throw error;
  }
  for (const name of entries) {
    const pid = name.startsWith(NAME_PREFIX) ? parseInt(name.slice(NAME_PREFIX.length), 10) : NaN;
    if (!Number.isNaN(pid) && !isAlive(pid) && deleteNamedNetns(name)) swept.push(name);
  }
  return swept;
}

function isAlive(pid: number): boolean {
  try {
    Deno.statSync(`/proc/${pid}`);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
