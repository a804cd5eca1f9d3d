/** Starts and stops the proxy of a pod: listeners in its namespace, its row, its identity (ZT-165, ZT-169). */
import { assert } from "../../base/assert.ts";
import { chain, ignore, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { formatIdentity } from "../../mesh/identity.ts";
import type { SharedNetns } from "../../mesh/proto/zds_codec.ts";
import { netnsCookie } from "../../os/bpf/netns_cookie.ts";
import type { RedirectedPods } from "../../os/bpf/redirected_pods.ts";
import { type Netns, openNetns, ownNetns } from "../../os/netns.ts";
import { closeFd, type Listening, listenWildcard } from "../../os/sockets.ts";
import type { Tables } from "../tables/handles.ts";
import { Command, POD, PodFlag, PodState, SHARED_PORTS_MAX } from "../tables/layout.ts";
import type { Identities } from "./identities.ts";
import type { KeptSockets } from "./kept_sockets.ts";
import { addressOf, type ListenerSettings, openListeners, POD_PORTS } from "./pod_listeners.ts";
import type { MeshState, PodFacts } from "./state.ts";
import type { WorkerPool } from "./worker_pool.ts";
import type { EnrolledPod, PodStarter } from "./zds_client.ts";

/** In place of a namespace's descriptor: the namespace that the process is in (dedicated mode). */
export const OWN_NETNS = -1;

/** Of the proxy itself, beside the CNI's UUIDs. */
const OWN_UID = "ztunnel";

export interface PodDnsOptions {
  /** Sockets of the pod from before, which are taken where they fit. */
  readonly kept?: KeptSockets;
  /** Where it is asked, on loopback, in a namespace that several workloads share; undefined: where all pods ask. */
  readonly port?: number;
}

/** The DNS proxy, as far as pods come and go. */
export interface PodDns {
  /** Serves DNS in the pod; takes the namespace over. Throws MeshError when it cannot, with nothing left behind. */
  addPod(uid: string, facts: PodFacts, netns: Netns, options: PodDnsOptions): void;
  deletePod(uid: string): void;
  /** The sockets that it is asked on in a pod. */
  socketsOf(uid: string): readonly number[];
}

export interface PodsOptions extends ListenerSettings {
  readonly tables: Tables;
  readonly workers: WorkerPool;
  readonly identities: Identities;
  readonly state: MeshState;
  /** undefined: DNS is not served. */
  readonly dns: PodDns | undefined;
  /** Pods that the node agent redirects by eBPF; undefined where there are none. */
  readonly redirected: () => RedirectedPods | undefined;
  readonly log: Logger;
  /** A pod is being enrolled. */
  readonly onAdded: (pod: PodFacts) => void;
  /** The mesh state changed: publish soon. */
  readonly onChange: () => void;
}

interface RunningPod {
  readonly row: number;
  /** The proxy itself (ZT-005): nobody enrolled it, and no successor takes it over. */
  readonly own: boolean;
  /** Listeners that came with a predecessor's connections: workers have them, the table has not. */
  adopted: readonly number[];
  /** Whose certificates it bears; undefined until its workload is known. */
  uri: string | undefined;
  readonly pod: EnrolledPod;
}

interface AddOptions {
  /** Listeners by worker; undefined: they are opened. */
  readonly opened?: readonly (readonly Listening[])[];
  readonly kept?: KeptSockets;
  /** Whether source addresses may be kept, as far as the listeners say. */
  readonly allowed: boolean;
  /** Of the proxy itself. */
  readonly ownUri?: string;
}

export class Pods implements PodStarter {
  readonly #options: PodsOptions;
  readonly #running = new Map<string, RunningPod>();
  /** Settles with the call under way. */
  #busy: Promise<void> = Promise.resolve();
  /** Set while calls must wait. */
  #held: Promise<void> | undefined = undefined;
  /** Maps of eBPF redirection, the newest last; descriptors stay open, for workers may have them in use. */
  readonly #maps: RedirectedPods[] = [];
  /** It was said that pins cannot be looked at. */
  #pinsUnseen = false;
  /** A successor has the connections of all pods. */
  #handedOver = false;

  constructor(options: PodsOptions) {
    this.#options = options;
  }

  /** Pods by uid, for the config dump. */
  list(): ReadonlyMap<string, RunningPod> {
    return this.#running;
  }

  /** The uid of the pod in a row, if one is there. */
  uidOf(row: number): string | undefined {
    for (const [uid, running] of this.#running) if (running.row === row) return uid;
    return undefined;
  }

  /** What the CNI said of the pod in a row, if one is there. */
  factsOf(row: number): PodFacts | undefined {
    return this.#running.get(this.uidOf(row) ?? "")?.pod.info;
  }

  /** Lets a call under way end and the next one wait. @returns What ends the wait, and says whether the pods are a successor's. */
  async hold(): Promise<(handedOver: boolean) => void> {
    const held = Promise.withResolvers<void>();
    this.#held = held.promise;
    await this.#busy;
    return (handedOver) => {
      this.#handedOver = handedOver;
      this.#held = undefined;
      held.resolve();
    };
  }

  /** Runs once nobody holds the pods. */
  async #inTurn(work: () => Promise<void> | void): Promise<void> {
    while (this.#held !== undefined) await this.#held;
    const done = (async () => await work())();
    this.#busy = done.catch((error) => ignore(error, "whoever asked for it is told"));
    return await done;
  }

  /**
   * @param kept sockets of the pod that outlived the ztunnel before us; the caller closes those that are not taken.
   * @param opened what {@link listen} gave, where it was called before; it is taken over.
   */
  addPod(pod: EnrolledPod, kept?: KeptSockets, opened?: readonly (readonly Listening[])[]): Promise<void> {
    return this.#inTurn(() => this.#add(pod, { opened, kept, allowed: true }));
  }

  /** A pod whose listeners come with a predecessor's connections. @param kept its DNS sockets. @returns Its row. */
  async adoptPod(pod: EnrolledPod, transparent: boolean, kept?: KeptSockets): Promise<number> {
    const opened = Array.from({ length: this.#options.workers.count }, () => []);
    await this.#inTurn(() => this.#add(pod, { opened, kept, allowed: transparent }));
    return this.#running.get(pod.uid)!.row;
  }

  /** Workers have taken a predecessor's connections over: with which listeners, by the rows of their pods. */
  listensOn(adopted: ReadonlyMap<number, readonly number[]>): void {
    for (const running of this.#running.values()) running.adopted = adopted.get(running.row) ?? [];
  }

  /**
   * Serves the proxy's own workload in its own namespace: HBONE alone, for its own ports (ZT-005).
   * @param trustDomain its identity's: it has one before istiod tells of its workload.
   */
  addOwn(info: PodFacts, trustDomain: string): Promise<void> {
    const uri = formatIdentity({ trustDomain, namespace: info.namespace, serviceAccount: info.serviceAccount });
    const pod = { uid: OWN_UID, netnsFd: OWN_NETNS, info };
    return this.#inTurn(() => this.#add(pod, { opened: this.#listenOwn(), allowed: false, ownUri: uri }));
  }

  #listenOwn(): readonly (readonly Listening[])[] {
    const { ipv6, workers, congestionControl } = this.#options, opened: Listening[] = [];
    try {
      for (let worker = 0; worker < workers.count; worker++) {
        const port = POD_PORTS.hbone; // REUSEPORT: also beside a predecessor that still drains.
        opened.push(listenWildcard({ port, ipv6, mark: 0, reusePort: true, keepalive: false, congestionControl }));
      }
    } catch (error) {
      for (const { fd } of opened) closeFd(fd);
      throw error;
    }
    return opened.map((it) => [it]);
  }

  #add(pod: EnrolledPod, { opened, kept: back, allowed, ownUri }: AddOptions): void {
    const isOwn = ownUri !== undefined;
    // DNS: on a host its resolver answers whoever is not sent here.
    const serves = !isOwn && pod.shared?.dnsPort !== 0, port = pod.shared?.dnsPort;
    const { tables, identities, state, workers, dns, log, onChange } = this.#options;
    const { name, namespace, serviceAccount } = pod.info;
    const row = this.#freeRow();
    const listeners = opened ?? this.#listen(pod, back);
    const uri = ownUri ?? this.#uriOf(pod.info);
    let identityRow: number;
    try {
      if (serves) dns?.addPod(pod.uid, pod.info, handleOf(pod.netnsFd), { kept: back, port });
      identityRow = uri === undefined ? -1 : identities.acquire(uri);
    } catch (error) {
      if (serves) dns?.deletePod(pod.uid);
      for (const { fd } of listeners.flat()) closeFd(fd);
      throw error;
    }
    const kept = allowed && listeners.flat().every((it) => it.transparent);
    const transparent = this.#options.originalSource !== false && kept;
    const rows = tables.pods, epoch = rows.get(row, POD.epoch) + 1;
    rows.set(row, POD.epoch, epoch);
    rows.set(row, POD.netnsFd, pod.netnsFd);
    rows.set(row, POD.identityRow, identityRow);
    const who = new TextEncoder().encode(`${serviceAccount}.${namespace} (${name})`).subarray(0, 256);
    rows.set(row, POD.whoBytes, who.length);
    rows.writeBytes(row, POD.who, who);
    const { ipv6, socks } = this.#options;
    rows.set(
      row,
      POD.flags,
      (transparent ? PodFlag.TRANSPARENT : 0) | (ipv6 ? PodFlag.IPV6 : 0) | (socks && !isOwn ? PodFlag.SOCKS : 0) |
        (isOwn ? PodFlag.OWN : 0) | (pod.shared === undefined ? 0 : PodFlag.SHARED),
    );
    this.#writeShare(row, pod.shared);
    for (const [worker, own] of listeners.entries()) {
      const [outbound, hbone, plaintext, socksListener] = isOwn ? [undefined, own[0]] : own;
      rows.setAt(row, POD.outboundFd, worker, outbound?.fd ?? -1);
      rows.setAt(row, POD.hboneFd, worker, hbone?.fd ?? -1);
      rows.setAt(row, POD.plaintextFd, worker, plaintext?.fd ?? -1);
      rows.setAt(row, POD.socksFd, worker, socksListener?.fd ?? -1);
    }
    if (!isOwn) this.#redirect(pod.netnsFd, row);
    rows.store(row, POD.state, PodState.ACTIVE);
    this.#running.set(pod.uid, { row, own: isOwn, adopted: [], uri, pod });
    state.setPod(row, { name, namespace, serviceAccount });
    workers.tellAll(Command.POD_ADDED, row, epoch);
    if (uri !== undefined) identities.announce(uri);
    this.#options.onAdded({ name, namespace, serviceAccount });
    onChange();
    log.info("pod added", { uid: pod.uid, name, namespace, serviceAccount, sourceAddressKept: transparent });
  }

  #writeShare(row: number, shared: SharedNetns | undefined): void {
    const { pods } = this.#options.tables, ports = shared?.inboundPorts.slice(0, SHARED_PORTS_MAX) ?? [];
    const ip = addressOf(shared) ?? [0, 0, 0, 0];
    pods.set(row, POD.sharedPortCount, ports.length);
    ports.forEach((port, at) => pods.setAt(row, POD.sharedPorts, at, port));
    ip.forEach((word, at) => pods.setAt(row, POD.sharedIp, at, word));
  }

  /** The node agent named a pod that runs: by now it may be redirected by other means. Throws AMB7150. */
  refreshPod(uid: string): Promise<void> {
    return this.#inTurn(() => {
      const running = this.#running.get(uid);
      if (running !== undefined) this.#redirect(running.pod.netnsFd, running.row);
    });
  }

  /** Tells workers how the pod's connections come to them, and the kernel where its inbound ones are to go. */
  #redirect(netnsFd: number, row: number): void {
    const rows = this.#options.tables.pods, redirected = this.#redirected();
    if (redirected === undefined) return rows.store(row, POD.byTuple, 0);
    using netns = handleOf(netnsFd);
    const cookie = netnsCookie(netns);
    if (!redirected.has(cookie)) return rows.store(row, POD.byTuple, 0);
    rows.set(row, POD.cookieLow, Number(cookie & 0xffffffffn));
    rows.set(row, POD.cookieHigh, Number(cookie >> 32n));
    rows.store(row, POD.byTuple, redirected.byTupleFd + 1);
    const listener = rows.getI32At(row, POD.plaintextFd, 0); // Those of other workers share its port.
    if (listener >= 0) redirected.serve(cookie, { ipv4: listener, ipv6: this.#options.ipv6 ? listener : undefined });
  }

  /** Who may not look there serves pods that rules redirect; connections of others are refused, for where to is not known. */
  #pinned(): RedirectedPods | undefined {
    try {
      return this.#options.redirected();
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      if (!this.#pinsUnseen) this.#options.log.warn("pins of BPF cannot be looked at", { error: chain(error) });
      this.#pinsUnseen = true;
      return undefined;
    }
  }

  /** As pinned now: a node agent of another version may have made its maps anew. Rows keep naming the maps before. */
  #redirected(): RedirectedPods | undefined {
    const now = this.#pinned(), before = this.#maps.at(-1);
    if (now === undefined || before?.equals(now)) {
      now?.[Symbol.dispose]();
      return now === undefined ? undefined : before;
    }
    this.#maps.push(now);
    return now;
  }

  /** @throws MeshError AMB2424, by rejection, for a pod whose connections a successor has: only there can they be ended. */
  deletePod(uid: string): Promise<void> {
    return this.#inTurn(() => {
      if (!this.#handedOver) return this.#delete(uid);
      throw new MeshError("AMB2424", `the connections of pod ${uid} are a successor's`, {
        remedy: "none is needed: the node agent asks the successor, and keeps the pod's rules until then",
      });
    });
  }

  async #delete(uid: string): Promise<void> {
    const { tables, workers, identities, state, dns, log, onChange } = this.#options;
    const running = this.#running.get(uid);
    assert(running !== undefined, "only a pod that was started is deleted");
    this.#running.delete(uid);
    const { row } = running;
    dns?.deletePod(uid);
    tables.pods.store(row, POD.state, PodState.CLOSING);
    await workers.tellAllAndWait(Command.POD_REMOVED, row, tables.pods.get(row, POD.epoch));
    if (running.uri !== undefined) identities.release(running.uri);
    state.removePod(row);
    tables.pods.store(row, POD.state, PodState.FREE);
    onChange();
    log.info("pod removed", { uid, name: running.pod.info.name, namespace: running.pod.info.namespace });
  }

  /** The mesh state changed: pods whose workload is known by now, or of another trust domain, get their identity. */
  refreshIdentities(): void {
    const { tables, identities, workers, log } = this.#options;
    for (const [uid, running] of this.#running) {
      const uri = running.own ? undefined : this.#uriOf(running.pod.info), before = running.uri;
      if (uri === undefined || uri === before) continue;
      try {
        const identityRow = identities.acquire(uri);
        running.uri = uri;
        tables.pods.set(running.row, POD.identityRow, identityRow);
      } catch (error) {
        if (!(error instanceof MeshError)) throw error;
        log.error("pod without identity", { uid, error: chain(error), remedy: error.remedy });
        continue;
      }
      workers.tellAll(Command.POD_IDENTITY, running.row, tables.pods.get(running.row, POD.epoch));
      identities.announce(uri);
      if (before !== undefined) identities.release(before); // Workers hear of it in this order.
    }
  }

  /** The identity is what the control plane says, its trust domain above all; before that it is nobody's (ZT-043). */
  #uriOf(facts: PodFacts): string | undefined {
    const workload = this.#options.state.findLocal(facts);
    return workload && formatIdentity(workload);
  }

  /** Takes the ports of a pod before it is added. @throws MeshError AMB7304, AMB2404 */
  listen(netnsFd: number): readonly (readonly Listening[])[] {
    return this.#listen({ netnsFd, shared: undefined }, undefined);
  }

  #listen({ netnsFd, shared }: Pick<EnrolledPod, "netnsFd" | "shared">, kept: KeptSockets | undefined) {
    if (netnsFd === OWN_NETNS) return openListeners(this.#options, undefined, { shared });
    using netns = handleOf(netnsFd);
    return openListeners(this.#options, netns, { shared, kept });
  }

  /** The sockets of a pod as it was added, for whoever keeps them; undefined where they are not all ours to name. */
  socketsOf(uid: string): readonly number[] | undefined {
    const running = this.#running.get(uid), { tables: { pods }, workers } = this.#options;
    if (running === undefined || running.own || this.#handedOver) return undefined;
    const opened = [POD.outboundFd, POD.hboneFd, POD.plaintextFd, POD.socksFd].flatMap((field) =>
      Array.from({ length: workers.count }, (_, worker) => pods.getI32At(running.row, field, worker))
    );
    const fds = [...opened, ...running.adopted].filter((fd) => fd >= 0);
    return fds.length === 0 && this.#options.proxy ? undefined : [...fds, ...this.dnsSocketsOf(uid)];
  }

  /** Where the pod is served DNS. */
  dnsSocketsOf(uid: string): readonly number[] {
    return this.#options.dns?.socketsOf(uid) ?? [];
  }

  #freeRow(): number {
    const rows = this.#options.tables.pods;
    for (let row = 0; row < rows.rowCount; row++) if (rows.load(row, POD.state) === PodState.FREE) return row;
    throw new MeshError("AMB2403", `this node has ${rows.rowCount} enrolled pods already`, {
      remedy: "run fewer pods on this node",
    });
  }
}

/** A handle of our own; the descriptor is the client's. */
function handleOf(netnsFd: number): Netns {
  return netnsFd === OWN_NETNS ? ownNetns() : openNetns(`/proc/thread-self/fd/${netnsFd}`);
}
