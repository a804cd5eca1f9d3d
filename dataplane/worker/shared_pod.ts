/** Workloads that share the host's network namespace: what of an arriving connection is theirs, and which of them it is for (CNI-275). */
import { isLoopback } from "../../base/address.ts";
import { type InboundAuthority, portOfHostname } from "../../mesh/inbound.ts";
import type { Pod } from "./pod.ts";
import type { ServerSession } from "./inbound_hbone.ts";
import type { Shard } from "./shard.ts";

/** What a workload of the host's namespace has for itself. */
export interface PodShare {
  /** What it serves; nothing else of the host is reached through it. */
  readonly ports: readonly number[];
  /** The host's address that it serves at; all zero: every one. */
  readonly word0: number;
  readonly word1: number;
  readonly word2: number;
  readonly word3: number;
}

/**
 * Whether a connection at the listener for what a workload sends was redirected there. That is on loopback, where only this
 * host connects, and was for another host: any other came to our port itself, from whoever found it.
 */
export function isRedirected(
  shard: Shard,
  fd: number,
  word0: number,
  word1: number,
  word2: number,
  word3: number,
): boolean {
  if (isLoopback(word0, word1, word2, word3)) return false;
  const { os } = shard, words = os.addressWords;
  return os.localAddress(fd) >= 0 && isLoopback(words[0]!, words[1]!, words[2]!, words[3]!);
}

/** Whether a workload serves this port at this address of the host. */
export function serves(share: PodShare, port: number, ip: readonly [number, number, number, number]): boolean {
  const { word0, word1, word2, word3 } = share;
  const anywhere = (word0 | word1 | word2 | word3) === 0;
  return share.ports.includes(port) &&
    (anywhere || (word0 === ip[0] && word1 === ip[1] && word2 === ip[2] && word3 === ip[3]));
}

/**
 * The workload that a request in a session of the shared port 15008 is for. Any of those with the session's identity may have
 * accepted it: the client believes the certificate, and says in the request what it is for.
 * @returns undefined when none of them serves that.
 */
export function podOfRequest(session: ServerSession, authority: InboundAuthority): Pod | undefined {
  const { shard, pod } = session;
  if (isFor(session, pod, authority)) return pod;
  for (const other of shard.pods.values()) {
    if (other.share !== null && other.identity === pod.identity && isFor(session, other, authority)) return other;
  }
  return undefined;
}

function isFor({ shard, localIp }: ServerSession, { share, row }: Pod, authority: InboundAuthority): boolean {
  if (share === null) return false;
  if (authority.kind === "address") return serves(share, authority.port, localIp);
  const workload = shard.view.localWorkload(row);
  const { hostname, port: servicePort } = authority;
  const port = workload === undefined ? 0 : portOfHostname(shard.view, workload, hostname, servicePort);
  return port !== 0 && serves(share, port, localIp);
}
