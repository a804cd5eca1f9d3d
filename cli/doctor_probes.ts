/** Trials in a scratch network namespace: what redirection and a transparent proxy ask of the kernel, done once for real. */
import { chain, MeshError } from "../base/errors.ts";
import * as libc from "../os/libc_cold.ts";
import { createAnonymousNetns, type Netns, withinNetns } from "../os/netns.ts";
import { FirewallSocket } from "../os/netlink/nftables.ts";
import type { FirewallTable } from "../os/netlink/nft_model.ts";
import { RouteSocket } from "../os/netlink/rtnetlink.ts";

const CAPTURE_PORT = 15001, MARK = 0x539;
const ELSEWHERE = "192.0.2.2", HERE = "192.0.2.1"; // TEST-NET-1, RFC 5737 §3: nobody has them
const SOL_SOCKET = 1, SO_MARK = 36, SO_SNDTIMEO = 21, SOL_IP = 0, IP_TRANSPARENT = 19, SO_ORIGINAL_DST = 80;

/** Everything a trial needs is in the model: marks, connection marks, zones, redirection. */
const TRIAL_TABLES: readonly FirewallTable[] = [{
  name: "ambit-doctor",
  chains: [
    { name: "output", base: { type: "nat", hook: "output", priority: -100 } },
    { name: "mark", base: { type: "route", hook: "output", priority: -150 } },
    { name: "zone", base: { type: "filter", hook: "output", priority: -300 } },
  ],
  rules: [
    {
      chain: "mark",
      statements: [
        { kind: "mark", of: "packet", mask: 0xfff, value: MARK },
        { kind: "counter" },
        { kind: "setConnectionMark", keep: 0xfffff000, set: 0x111 },
      ],
    },
    {
      chain: "zone",
      statements: [{ kind: "port", transport: "udp", side: "destination", port: 53 }, { kind: "setZone", zone: 1 }],
    },
    {
      chain: "output",
      statements: [
        { kind: "transport", transport: "tcp" },
        { kind: "address", family: "ipv4", side: "destination", ip: "127.0.0.1", negated: true },
        { kind: "redirect", port: CAPTURE_PORT },
      ],
    },
  ],
}];

/** What came of a trial: nothing, or why it failed. */
export interface Trials {
  readonly netns: string | undefined;
  readonly veth: string | undefined;
  readonly policyRoutes: string | undefined;
  readonly nfTables: string | undefined;
  readonly originalDestination: string | undefined;
  readonly transparent: string | undefined;
  readonly mark: string | undefined;
}

export const NOT_TRIED = "not tried, because an earlier step failed";

/** Tries all of it. Leaves nothing behind: the namespace goes with its last descriptor. */
export function runTrials(): Trials {
  let netns: Netns;
  try {
    netns = createAnonymousNetns();
  } catch (error) {
    const failed = { netns: reason(error), veth: NOT_TRIED, policyRoutes: NOT_TRIED, nfTables: NOT_TRIED };
    return { ...failed, originalDestination: NOT_TRIED, transparent: NOT_TRIED, mark: NOT_TRIED };
  }
  using _netns = netns;
  const veth = attempt(() => addVeth(netns));
  const nfTables = attempt(() => {
    using firewall = FirewallSocket.open(netns);
    firewall.replace(TRIAL_TABLES);
    const differences = firewall.differences(TRIAL_TABLES);
    if (differences.length > 0) throw new Error(`the kernel kept something else: ${differences.join("; ")}`);
  });
  return {
    netns: undefined,
    veth,
    nfTables,
    policyRoutes: attempt(() => addPolicyRoute(netns)),
    originalDestination: veth === undefined && nfTables === undefined
      ? attempt(() => findOriginalDestination(netns))
      : NOT_TRIED,
    transparent: attempt(() => setOption(netns, SOL_IP, IP_TRANSPARENT, 1)),
    mark: attempt(() => setOption(netns, SOL_SOCKET, SO_MARK, MARK)),
  };
}

function addVeth(netns: Netns): void {
  using routes = RouteSocket.open(netns);
  routes.setUp("lo");
  routes.addVeth({ name: "v0", peerName: "v1" });
  routes.addAddress("v0", `${HERE}/24`);
  routes.setUp("v0");
  routes.setUp("v1");
}

function addPolicyRoute(netns: Netns): void {
  using routes = RouteSocket.open(netns);
  const rule = { family: "ipv4", mark: 0x111, mask: 0xfff, priority: 32764, table: 100 } as const;
  routes.setUp("lo");
  routes.addRule(rule);
  routes.addRoute({ destination: "0.0.0.0/0", device: "lo", table: 100, type: "local" });
}

/** Connects to an address that nobody has, and asks the listener that gets the connection where it was to go. */
function findOriginalDestination(netns: Netns): void {
  const listener = openSocket(netns), client = openSocket(netns);
  let accepted = -1;
  try {
    must(libc.bind(listener, ipv4Address("0.0.0.0", CAPTURE_PORT)), "bind a listener");
    must(libc.listen(listener, 1), "listen");
    const timeout = new Uint8Array(BigInt64Array.of(2n, 0n).buffer); // struct timeval; loopback takes no such time
    must(libc.setSocketOption(client, SOL_SOCKET, SO_SNDTIMEO, timeout), "bound the connect");
    must(libc.connect(client, ipv4Address(ELSEWHERE, 80)), "connect through the redirection");
    accepted = must(libc.accept(listener), "accept the redirected connection");
    const address = new Uint8Array(16);
    must(libc.getSocketOption(accepted, SOL_IP, SO_ORIGINAL_DST, address), "read SO_ORIGINAL_DST");
    if (address.subarray(4, 8).join(".") !== ELSEWHERE) throw new Error("SO_ORIGINAL_DST names another address");
  } finally {
    for (const fd of [listener, client, accepted]) if (fd >= 0) libc.close(fd);
  }
}

function setOption(netns: Netns, level: number, option: number, value: number): void {
  const fd = openSocket(netns);
  const result = libc.setSocketFlag(fd, level, option, value);
  libc.close(fd);
  must(result, "set the option");
}

function openSocket(netns: Netns): number {
  return must(withinNetns(netns, () => libc.socket(libc.AF.INET, libc.SOCK.STREAM, 0)), "create a socket");
}

function ipv4Address(ip: string, port: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.of(libc.AF.INET, 0, port >>> 8, port & 255, ...ip.split(".").map(Number), 0, 0, 0, 0, 0, 0, 0, 0);
}

function must(result: number, doing: string): number {
  if (result < 0) throw new Error(`could not ${doing}: ${libc.errnoName(result)}`);
  return result;
}

function attempt(trial: () => void): string | undefined {
  try {
    trial();
    return undefined;
  } catch (error) {
    return reason(error);
  }
}

/** Our own mistakes are not findings. */
function reason(error: unknown): string {
  if (error instanceof MeshError || (error instanceof Error && error.constructor === Error)) return chain(error);
  throw error;
}
