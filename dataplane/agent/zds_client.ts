/** The ztunnel side of ZDS: learns of the node's pods and their network namespaces from the node agent (ZT-161 to ZT-171). */
import { chain, ignore, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { pause } from "../../base/waiting.ts";
import {
  decodeZdsRequest,
  encodeZdsAcknowledgement,
  encodeZdsHello,
  type SharedNetns,
  ZDS_PACKET_BYTES_MAX,
  ZdsFeature,
  type ZdsRequest,
  ZdsVersion,
  type ZdsWorkload,
} from "../../mesh/proto/zds_codec.ts";
import { Netns } from "../../os/netns.ts";
import {
  closeDescriptor,
  type LoadedPacket,
  PACKET_DESCRIPTORS_MAX,
  PacketError,
  SeqpacketSocket,
} from "../../os/seqpacket.ts";
import { KeptSockets } from "./kept_sockets.ts";

/** ZT-161, whose longest pause is 15 s: at a socket of this machine a try costs nothing, and new pods wait for it. */
const CONNECT_RETRY_MIN_MS = 20, CONNECT_RETRY_MAX_MS = 1_000;
const HELLO_RETRY_MIN_MS = 500, HELLO_RETRY_READY_MS = 5; // ZT-170
const RETRY_MAX_MS = 15_000;
const PENDING_RETRY_MS = 5_000; // ZT-166
const SEND_TIMEOUT_MS = 5_000; // as long as the node agent waits for an acknowledgement (ZT-162)

const FEATURES = ZdsFeature.SHARED_NETNS | ZdsFeature.KEPT_SOCKETS;

export interface EnrolledPod {
  readonly uid: string;
  /** Open until `deletePod` of the same uid has returned; the client closes it. */
  readonly netnsFd: number;
  readonly info: ZdsWorkload;
  /** The namespace is the host's and others', too (CNI-275). */
  readonly shared?: SharedNetns;
}

/** What the agent does for a pod. Calls never overlap. */
export interface PodStarter {
  /**
   * Starts the pod's listeners; throws when it cannot, and has then left nothing behind. Must take less than five seconds.
   * @param kept sockets that a ztunnel before us listened on; the client closes those that are not taken.
   */
  addPod(pod: EnrolledPod, kept: KeptSockets): Promise<void>;
  /** The sockets of a pod that runs, for the node agent to keep; undefined: those that it keeps are right. */
  socketsOf?(uid: string): readonly number[] | undefined;
  /** A pod that runs was named again. */
  refreshPod?(uid: string): Promise<void>;
  /** Closes listeners and cuts connections at once, without drain (ZT-169). Only called for a pod that was started. */
  deletePod(uid: string): Promise<void>;
}

export interface ZdsClientOptions {
  /** INPOD_UDS. */
  readonly path: string;
  readonly pods: PodStarter;
  /** Whether pods are served DNS. */
  readonly servesDns?: boolean;
  readonly log: Logger;
  /** From 0 to 1, for the spread of retries. */
  readonly random?: () => number;
  readonly pendingRetryMs?: number;
  /** Called whenever readiness changes (ZT-171). */
  readonly onReady?: (ready: boolean) => void;
}

interface Pod {
  readonly netns: Netns;
  readonly info: ZdsWorkload;
  readonly shared?: SharedNetns;
}

/** A rule of the protocol that the node agent broke: the process must end with status 1 (ZT-167). */
class ProtocolViolation extends Error {
  override readonly name = "ProtocolViolation";
}

/** Keeps pods running over reconnects; only the node agent's word starts or stops them. */
export class ZdsClient implements Disposable {
  readonly #options: ZdsClientOptions;
  readonly #running = new Map<string, Pod>();
  /** Pods whose start failed; tried again until they start or are deleted. */
  readonly #pending = new Map<string, Pod>();
  /** Uids named since the connection began; undefined once its snapshot is complete. */
  #named: Set<string> | undefined = new Set();
  #ready = false;
  #wasReady = false;
  #retryAtMs = 0;
  #started = 0;
  #stopped = 0;

  constructor(options: ZdsClientOptions) {
    this.#options = options;
  }

  /** Snapshot received and nothing pending (ZT-171). */
  get ready(): boolean {
    return this.#ready;
  }

  /** Pods that could not be started yet, for the config dump (ZT-213). */
  *pending(): Iterable<{ readonly uid: string; readonly info: ZdsWorkload }> {
    for (const [uid, { info }] of this.#pending) yield { uid, info };
  }

  /** For the gauges and counters of ZT-175. */
  get counts(): {
    readonly active: number;
    readonly pending: number;
    readonly started: number;
    readonly stopped: number;
  } {
    const active = this.#running.size, pending = this.#pending.size;
    return { active, pending, started: this.#started, stopped: this.#stopped };
  }

  /** Counts a pod as running that came from a predecessor, before {@link run}; takes the namespace over. */
  adopt(uid: string, pod: { readonly netns: Netns; readonly info: ZdsWorkload; readonly shared?: SharedNetns }): void {
    this.#running.set(uid, pod);
    this.#started++;
  }

  /** A pod that was adopted has gone, or has another namespace now. */
  async disown(uid: string): Promise<void> {
    await this.#stop(uid);
  }

  /** Stays connected until `signal` aborts. Rejects with AMB7200 when the node agent breaks the protocol (ZT-167). Pods stay as they are. */
  async run(signal: AbortSignal): Promise<void> {
    let connectDelayMs = CONNECT_RETRY_MIN_MS, sessionDelayMs = HELLO_RETRY_MIN_MS;
    while (!signal.aborted) {
      const socket = this.#connect();
      if (socket === undefined) {
        await pause(connectDelayMs, signal);
        connectDelayMs = Math.min(connectDelayMs * 2, CONNECT_RETRY_MAX_MS);
        continue;
      }
      connectDelayMs = CONNECT_RETRY_MIN_MS;
      this.#wasReady = false;
      await this.#session(socket, signal);
      if (signal.aborted) return;
      if (this.#wasReady) sessionDelayMs = HELLO_RETRY_READY_MS;
      const spread = 0.8 + 0.4 * (this.#options.random ?? Math.random)();
      await pause(sessionDelayMs * spread, signal);
      sessionDelayMs = Math.min(sessionDelayMs * 2, RETRY_MAX_MS);
    }
  }

  /** Closes the namespaces' descriptors. For the end of the process: pods are not stopped. */
  [Symbol.dispose](): void {
    for (const pods of [this.#running, this.#pending]) {
      for (const pod of pods.values()) pod.netns[Symbol.dispose]();
      pods.clear();
    }
  }

  #connect(): SeqpacketSocket | undefined {
    try {
      return SeqpacketSocket.connect(this.#options.path);
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      this.#options.log.debug("node agent not reached", { error: chain(error) });
      return undefined;
    }
  }

  async #session(socket: SeqpacketSocket, signal: AbortSignal): Promise<void> {
    const close = () => ignore(socket.close(), "awaited below, as the same promise");
    signal.addEventListener("abort", close, { once: true });
    if (signal.aborted) close();
    try {
      this.#named = new Set();
      await this.#converse(socket);
      if (!signal.aborted) this.#options.log.info("node agent disconnected");
    } catch (error) {
      if (error instanceof ProtocolViolation) {
        throw new MeshError("AMB7200", "the node agent broke the ZDS protocol", {
          remedy: "Run a node agent of a matching version; this process ends so that it starts over in a known state.",
          cause: error,
        });
      }
      if (!(error instanceof PacketError || error instanceof MeshError)) throw error;
      this.#options.log.warn("connection to node agent failed", { error: chain(error) });
    } finally {
      signal.removeEventListener("abort", close);
      await socket.close();
      this.#forgetPending();
      this.#named = new Set();
      this.#updateReady();
    }
  }

  /** From hello to the end of the connection (ZT-162). */
  async #converse(socket: SeqpacketSocket): Promise<void> {
    const features = FEATURES | (this.#options.servesDns === true ? ZdsFeature.SHARED_DNS : 0);
    const hello = encodeZdsHello({ version: ZdsVersion.V1, features });
    if (!await socket.send(hello, { timeoutMs: SEND_TIMEOUT_MS })) return;
    while (true) {
      const timeoutMs = this.#pending.size === 0 ? undefined : Math.max(0, this.#retryAtMs - performance.now());
      const packet = await this.#receive(socket, timeoutMs);
      if (packet === "closed") return;
      if (packet === "timeout") {
        await this.#retryPending();
        continue;
      }
      const request = await this.#read(socket, packet), [descriptor, ...kept] = packet.descriptors;
      let violation: unknown, error = "";
      try {
        error = await this.#process(request, descriptor, kept);
      } catch (failure) {
        if (!(failure instanceof ProtocolViolation)) throw failure;
        violation = failure;
        error = `failure to process message: ${failure.message}`;
      }
      this.#updateReady();
      const sent = await acknowledge(socket, error, error === "" ? this.#toKeep(request) : undefined);
      if (violation !== undefined) throw violation;
      if (!sent) return;
    }
  }

  /** What the node agent is to keep of a pod that it has named; undefined: it does not ask, or has it. */
  #toKeep(request: ZdsRequest): readonly number[] | undefined {
    if (request.kind !== "add" || request.keepsSockets !== true) return undefined;
    const sockets = this.#options.pods.socketsOf?.(request.uid);
    return sockets !== undefined && sockets.length <= PACKET_DESCRIPTORS_MAX ? sockets : undefined;
  }

  async #receive(socket: SeqpacketSocket, timeoutMs?: number): Promise<LoadedPacket | "closed" | "timeout"> {
    try {
      return await socket.receiveLoaded(ZDS_PACKET_BYTES_MAX, { timeoutMs });
    } catch (error) {
      if (error instanceof PacketError) await acknowledge(socket, `failure to read message: ${error.message}`);
      throw error;
    }
  }

  /** Decodes a packet, and holds it to the rules on descriptors (ZT-164). What is thrown was answered already. */
  async #read(socket: SeqpacketSocket, packet: LoadedPacket): Promise<ZdsRequest> {
    let wrong: string;
    const { bytes, descriptors } = packet;
    try {
      if (bytes.length === 0) throw new PacketError("the packet is empty");
      const request = decodeZdsRequest(bytes), withSockets = request.kind === "add" && request.keepsSockets === true;
      if (descriptors.length > 1 && !withSockets) {
        throw new PacketError(`the packet has ${descriptors.length} descriptors, not at most one`);
      }
      if ((request.kind === "add") === (descriptors.length > 0)) return request;
      wrong = request.kind === "add" ? "add came without a namespace" : `${request.kind} came with a descriptor`;
    } catch (error) {
      wrong = chain(error);
    }
    descriptors.forEach(closeDescriptor);
    await acknowledge(socket, `failure to read message: ${wrong}`);
    throw new PacketError(wrong);
  }

  /** @returns The acknowledgement's error text, empty when all is well. */
  async #process(request: ZdsRequest, descriptor: number | undefined, kept: readonly number[]): Promise<string> {
    switch (request.kind) {
      case "add":
        if (request.workload === undefined) {
          [descriptor, ...kept].forEach(closeDescriptor);
          throw new ProtocolViolation("add came without workload_info");
        }
        return await this.#add(request, request.workload, descriptor!, kept);
      case "keep":
        if (this.#named === undefined) throw new ProtocolViolation("keep came after the snapshot");
        this.#named.add(request.uid);
        return "";
      case "delete":
        await this.#delete(request.uid);
        return "";
      case "snapshotSent":
        if (this.#named === undefined) throw new ProtocolViolation("the snapshot came twice");
        for (const uid of [...this.#running.keys()]) if (!this.#named.has(uid)) await this.#stop(uid);
        this.#named = undefined;
        return "";
    }
  }

  async #add(
    { uid, shared }: { readonly uid: string; readonly shared?: SharedNetns },
    info: ZdsWorkload,
    descriptor: number,
    keptFds: readonly number[],
  ): Promise<string> {
    let netns: Netns;
    try {
      netns = new Netns(descriptor, `the descriptor for pod ${uid}`);
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      keptFds.forEach(closeDescriptor);
      return `failure to start proxy: ${chain(error)}`;
    }
    this.#named?.add(uid);
    const running = this.#running.get(uid);
    // The same target may be somebody else by now: of a bare node's, the uid is the target's, and we may have missed its end.
    if (running !== undefined && running.netns.equals(netns) && isSame(running, { info, shared })) {
      netns[Symbol.dispose](); // The node agent replays what it knows: nothing to start (ZT-165).
      keptFds.forEach(closeDescriptor); // They are those that we listen on.
      return await this.#refresh(uid);
    }
    if (running !== undefined) await this.#stop(uid);
    this.#dropPending(uid);
    using kept = new KeptSockets(keptFds, { shared: false });
    return await this.#start(uid, { netns, info, shared }, kept);
  }

  async #refresh(uid: string): Promise<string> {
    try {
      await this.#options.pods.refreshPod?.(uid);
      return "";
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      return `failure to refresh proxy: ${chain(error)}`;
    }
  }

  async #start(uid: string, pod: Pod, kept: KeptSockets): Promise<string> {
    try {
      await this.#options.pods.addPod({ uid, netnsFd: pod.netns.fd, info: pod.info, shared: pod.shared }, kept);
    } catch (error) {
      if (this.#pending.size === 0) this.#retryAtMs = performance.now() + this.#retryMs();
      this.#pending.set(uid, pod);
      this.#options.log.warn("pod not started", { uid, name: pod.info.name, error: chain(error) });
      return `failure to start proxy: ${chain(error)}`;
    }
    this.#pending.delete(uid);
    this.#running.set(uid, pod);
    this.#started++;
    return "";
  }

  async #delete(uid: string): Promise<void> {
    this.#dropPending(uid);
    // Before the snapshot is complete it only says that the pod is not in it; what is left out is stopped at its end (ZT-168).
    if (this.#named !== undefined) this.#named.delete(uid);
    else if (this.#running.has(uid)) await this.#stop(uid);
  }

  async #stop(uid: string): Promise<void> {
    const pod = this.#running.get(uid)!;
    this.#running.delete(uid);
    try {
      await this.#options.pods.deletePod(uid);
    } finally {
      pod.netns[Symbol.dispose]();
    }
    this.#stopped++;
  }

  async #retryPending(): Promise<void> {
    for (const [uid, pod] of [...this.#pending]) {
      using none = new KeptSockets([], { shared: false });
      await this.#start(uid, pod, none);
    }
    this.#retryAtMs = performance.now() + this.#retryMs();
    this.#updateReady();
  }

  #retryMs(): number {
    return this.#options.pendingRetryMs ?? PENDING_RETRY_MS;
  }

  #dropPending(uid: string): void {
    this.#pending.get(uid)?.netns[Symbol.dispose]();
    this.#pending.delete(uid);
  }

  /** The node agent sends them again when we are back (ZT-170). */
  #forgetPending(): void {
    for (const uid of [...this.#pending.keys()]) this.#dropPending(uid);
  }

  #updateReady(): void {
    const ready = this.#named === undefined && this.#pending.size === 0;
    this.#wasReady ||= ready;
    if (ready === this.#ready) return;
    this.#ready = ready;
    this.#options.onReady?.(ready);
  }
}

/** Whether it is the same workload, served at the same places. */
function isSame(one: Pick<Pod, "info" | "shared">, other: Pick<Pod, "info" | "shared">): boolean {
  const facts = ({ info, shared }: typeof one) => [
    [info.name, info.namespace, info.serviceAccount],
    shared && [shared.outboundPort, shared.plaintextPort, shared.inboundPorts, shared.address, shared.dnsPort],
  ];
  return JSON.stringify(facts(one)) === JSON.stringify(facts(other));
}

function acknowledge(socket: SeqpacketSocket, error: string, sockets?: readonly number[]): Promise<boolean> {
  const message = encodeZdsAcknowledgement({ error, sockets: sockets !== undefined });
  return socket.sendLoaded(message, sockets ?? [], { timeoutMs: SEND_TIMEOUT_MS });
}
