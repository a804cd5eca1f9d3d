/** The sockets that a pod's connections arrive on, by worker: taken back where they outlived a crash, opened where not. */
import { type IpWords, parseIp } from "../../base/address.ts";
import { MeshError } from "../../base/errors.ts";
import type { SharedNetns } from "../../mesh/proto/zds_codec.ts";
import type { KeepaliveTimes } from "../../os/api.ts";
import { netnsCookie } from "../../os/bpf/netns_cookie.ts";
import { type Netns, withinNetns } from "../../os/netns.ts";
import { retireSocket, type SocketFacts } from "../../os/socket_facts.ts";
import { closeFd, listenAgain, type Listening, type ListenOptions, listenWildcard } from "../../os/sockets.ts";
import { LOCAL_CONGESTION_CONTROL } from "../tables/congestion.ts";
import type { KeptSockets } from "./kept_sockets.ts";

/** Ports of the data listeners in every pod's namespace (ZT section 1). */
export const POD_PORTS = { outbound: 15001, plaintext: 15006, hbone: 15008, socks: 15080 } as const;

export interface ListenerSettings {
  readonly workers: { readonly count: number };
  readonly packetMark: number;
  readonly ipv6: boolean;
  readonly reusePort: boolean;
  readonly keepalive: boolean;
  readonly keepaliveTimes: KeepaliveTimes;
  /** Of HBONE sessions; empty: the kernel's own choice. */
  readonly congestionControl: string;
  /** ENABLE_PROXY: without it nothing listens for TCP, and only DNS is served. */
  readonly proxy: boolean;
  /** UNSTABLE_ENABLE_SOCKS5: a SOCKS listener on loopback (ZT-189). */
  readonly socks: boolean;
  /** undefined: keep source addresses if the kernel lets us; true: insist; false: do not try (ZT-050). */
  readonly originalSource: boolean | undefined;
}

/** Where a worker has no socket of a kind: others have one, and give it connections. */
const NONE: Listening = { fd: -1, transparent: true };

/**
 * Listeners by worker: outbound, HBONE, plaintext, and SOCKS if asked for; all or none.
 * @param netns undefined: the namespace that the process is in. @throws MeshError AMB7304, AMB2404
 */
export function openListeners(
  settings: ListenerSettings,
  netns: Netns | undefined,
  { shared, kept }: { readonly shared?: SharedNetns; readonly kept?: KeptSockets } = {},
): readonly (readonly Listening[])[] {
  const { workers, originalSource } = settings, kinds = settings.proxy ? wantedOf(settings, shared) : [];
  const opened: Listening[] = [], tookBack: number[] = [];
  const cookie = kept === undefined || kept.isEmpty || netns === undefined ? undefined : netnsCookie(netns);
  const byKind = () =>
    kinds.map((wanted) => {
      const back = cookie === undefined ? [] : kept!.take(cookie, (facts) => fits(facts, wanted), workers.count);
      const own = back.map(({ fd, facts: { transparent } }) => ({ fd, transparent }));
      tookBack.push(...own.map(({ fd }) => fd));
      opened.push(...own);
      for (const { fd } of own) listenAgain(fd, wanted);
      // Those that came back serve alone: one more would get its share of newcomers while theirs wait.
      while (own.length < (back.length > 0 ? back.length : workers.count)) {
        own.push(listenWildcard(wanted));
        opened.push(own.at(-1)!);
      }
      return own;
    });
  try {
    const listeners = netns === undefined ? byKind() : withinNetns(netns, byKind);
    if (originalSource === true && !opened.every((it) => it.transparent)) {
      throw new MeshError("AMB2404", "IP_TRANSPARENT was refused, and ENABLE_ORIG_SRC=true insists on it", {
        remedy: "give ztunnel CAP_NET_ADMIN, or unset ENABLE_ORIG_SRC",
      });
    }
    return Array.from({ length: workers.count }, (_, worker) => listeners.map((own) => own[worker] ?? NONE));
  } catch (error) {
    for (const { fd } of opened) {
      if (tookBack.includes(fd)) retireSocket(fd); // Nobody must wait in a queue that nobody serves.
      else closeFd(fd);
    }
    throw error;
  }
}

/** What is listened on, in the order of a worker's listeners. */
function wantedOf(settings: ListenerSettings, shared: SharedNetns | undefined): ListenOptions[] {
  const { workers, ipv6, packetMark: mark, keepalive, keepaliveTimes, congestionControl, originalSource } = settings;
  const transparent = originalSource !== false;
  // Several workers listen on one port only by SO_REUSEPORT, whatever INPOD_PORT_REUSE says.
  const reusePort = settings.reusePort || workers.count > 1;
  const common = { ipv6, mark, reusePort, transparent, keepaliveTimes };
  const local = { ...common, keepalive, congestionControl: LOCAL_CONGESTION_CONTROL };
  const hbone = { ...common, port: POD_PORTS.hbone, keepalive: false, congestionControl };
  const plaintext = { ...common, keepalive, congestionControl: "" };
  if (shared !== undefined) {
    // The outbound one is dual-stack, since redirection leads to either loopback; the worker takes no other connection.
    const outbound = { ...local, port: shared.outboundPort };
    if (shared.inboundPorts.length === 0) return [outbound]; // What serves nothing must not answer for others' identities.
    const own = { ...hbone, reusePort: true, ip: addressOf(shared) };
    return [outbound, own, { ...plaintext, port: shared.plaintextPort }];
  }
  return [
    { ...local, port: POD_PORTS.outbound },
    hbone,
    { ...plaintext, port: POD_PORTS.plaintext },
    ...(settings.socks ? [{ ...local, port: POD_PORTS.socks, loopback: true }] : []),
  ];
}

/** Whether a socket is what we would open. What is not is closed, and opened as it should be. */
function fits(facts: SocketFacts, wanted: ListenOptions): boolean {
  const loopback = wanted.loopback === true, ip = loopback ? LOOPBACK : wanted.ip ?? EVERYWHERE;
  return facts.transport === "tcp" && facts.port === wanted.port && facts.mark === wanted.mark &&
    facts.ip.every((word, at) => word === ip[at]) && facts.transparent === (wanted.transparent !== false) &&
    (loopback || wanted.ip !== undefined || facts.ipv6 === wanted.ipv6);
}

const LOOPBACK: IpWords = [0, 0, 0xffff, 0x7f000001], EVERYWHERE: IpWords = [0, 0, 0, 0];

/** Where a workload of the host's namespace serves; undefined: everywhere. Throws AMB7167 for what is no address. */
export function addressOf(shared: SharedNetns | undefined): IpWords | undefined {
  if (shared === undefined || shared.address === "") return undefined;
  const ip = parseIp(shared.address);
  if (ip !== undefined) return ip;
  throw new MeshError("AMB7167", `the node agent names an address that is none: ${shared.address}`, {
    remedy: "run a node agent of this version",
  });
}
