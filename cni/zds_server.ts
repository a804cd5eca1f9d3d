/** The node agent's side of ZDS: tells every connected ztunnel of the node's pods, one acknowledged message at a time (CNI-240 to CNI-257). */
import { AssertionError } from "../base/assert.ts";
import { chain, ignore, MeshError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { pause } from "../base/waiting.ts";
import {
  decodeZdsHello,
  type SharedNetns,
  ZDS_PACKET_BYTES_MAX,
  ZdsVersion,
  type ZdsWorkload,
} from "../mesh/proto/zds_codec.ts";
import type { Netns } from "../os/netns.ts";
import { raiseOpenFileLimit } from "../os/limits.ts";
import { effectiveUserId } from "../os/process.ts";
import { closeDescriptor, SeqpacketListener, type SeqpacketSocket } from "../os/seqpacket.ts";
import { HeldSockets } from "./held_sockets.ts";
import { type Outcome, ZdsConnection } from "./zds_connection.ts";

const ACCEPT_INTERVAL_MS = 200; // five a second (CNI-245)
const HELLO_TIMEOUT_MS = 5_000;
const SYNC_WAIT_MS = 4_000; // under the five seconds after which whoever asked gives up (CNI-257)
/** How long a pod that leaves waits for the ztunnel behind one that has gone: a start, or the end of a takeover, takes less. */
const SUCCESSOR_WAIT_MS = 5_000;

/** Of all descriptors that we may have: sockets that are held for ztunnel. */
const HELD_SHARE = 0.5;

/** A pod that ztunnel is to serve. Without a namespace at hand it is announced as one to keep. */
export interface AnnouncedPod {
  readonly uid: string;
  readonly workload: ZdsWorkload;
  /** The caller's, who keeps it open until the pod was deleted here. */
  readonly netns?: Netns;
  /** The namespace is others', too. */
  readonly shared?: SharedNetns;
}

export interface ZdsServerOptions {
  readonly path: string;
  readonly log: Logger;
  readonly acceptIntervalMs?: number;
  /** How long an acknowledgement may take, five seconds unless a test says otherwise. */
  readonly acknowledgeTimeoutMs?: number;
  readonly syncWaitMs?: number;
  readonly successorWaitMs?: number;
  /** How long ztunnel's sockets are held after it. */
  readonly holdMs?: number;
  /** Why pods cannot be given to a ztunnel of this kind, of that process; undefined: they can. */
  readonly refuses?: (features: number, processId: number | undefined) => string | undefined;
  /** Called, once the snapshot is through, with each pod that was refused in it: ztunnel goes on without those (CNI-243). */
  readonly onRefused?: (uid: string) => void;
}

/** Owns the socket and the list of pods that every new connection is sent. */
export class ZdsServer implements AsyncDisposable {
  readonly #options: ZdsServerOptions;
  readonly #listener: SeqpacketListener;
  readonly #held: HeldSockets;
  readonly #pods = new Map<string, AnnouncedPod>();
  /** Oldest first. */
  readonly #connections: ZdsConnection[] = [];
  readonly #sessions = new Set<Promise<void>>();
  readonly #changed = new Set<() => void>();
  readonly #stop = new AbortController();
  readonly #accepting: Promise<void>;
  /** When a ztunnel was last known to run; at the start it counts as running, since it may have outlived the agent before us. */
  #lastSeenMs = performance.now();

  private constructor(options: ZdsServerOptions) {
    this.#options = options;
    const socketsMax = Math.floor(raiseOpenFileLimit() * HELD_SHARE); // Without descriptors left no packet is received whole.
    this.#held = new HeldSockets({ log: options.log, holdMs: options.holdMs, socketsMax });
    this.#listener = SeqpacketListener.listen(options.path, { mode: 0o600 });
    this.#accepting = this.#accept();
  }

  /** Listens at once; `pods` are those known from before. Throws AMB7032. */
  static listen(options: ZdsServerOptions, pods: Iterable<AnnouncedPod> = []): ZdsServer {
    const server = new ZdsServer(options);
    for (const pod of pods) server.#pods.set(pod.uid, pod);
    return server;
  }

  /** For the gauge `ztunnel_connected` (CNI-254). */
  get connectionCount(): number {
    return this.#connections.length;
  }

  /** The connected ztunnels' processes, as they were when they connected. */
  get processIds(): number[] {
    return this.#standing().flatMap(({ processId }) => processId ?? []);
  }

  /** Whether some ztunnel has acknowledged the whole snapshot. */
  get synchronized(): boolean {
    return this.#connections.some((connection) => connection.synchronized);
  }

  /**
   * Announces the pod to the newest ztunnel and waits until it listens there. Throws AMB7210 when none is connected and
   * in sync within four seconds, AMB7211 when ztunnel refuses; the pod then stays on the list until it is deleted.
   */
  async addPod(pod: AnnouncedPod, options: { signal?: AbortSignal } = {}): Promise<void> {
    const before = this.#pods.get(pod.uid)?.netns;
    if (before === undefined || pod.netns === undefined || !before.equals(pod.netns)) this.#held.drop(pod.uid);
    this.#pods.set(pod.uid, pod);
    const deadlineMs = performance.now() + (this.#options.syncWaitMs ?? SYNC_WAIT_MS);
    while (true) {
      const connection = await this.#newestInSync(deadlineMs, options.signal);
      const outcome = await connection.request({
        kind: "add",
        uid: pod.uid,
        workload: pod.workload,
        shared: pod.shared,
      }, {
        descriptor: pod.netns?.fd,
        signal: options.signal,
      });
      if (outcome === "done") return;
      if (outcome !== "disconnected") throw refused(`ztunnel refused pod ${pod.workload.name}`, outcome.error);
      // It is gone: the next newest takes over (CNI-248).
    }
  }

  /**
   * Takes the pod off the list and tells all ztunnels; with none connected that is all (CNI-248). One that has only just
   * gone is given five seconds to come back or be replaced, so that its successor ends what it took over of the pod before
   * this returns. Throws AMB7211 with all their errors.
   */
  async deletePod(uid: string, options: { signal?: AbortSignal } = {}): Promise<void> {
    this.#pods.delete(uid);
    this.#held.drop(uid);
    const seenMs = this.#standing().length > 0 ? performance.now() : this.#lastSeenMs;
    const deadlineMs = seenMs + (this.#options.successorWaitMs ?? SUCCESSOR_WAIT_MS);
    let outcomes: Outcome[];
    do { // Again when all of them go before they answer.
      outcomes = await Promise.all(
        (await this.#anyStanding(deadlineMs, options.signal)).map((it) => it.request({ kind: "delete", uid }, options)),
      );
    } while (outcomes.length > 0 && outcomes.every((outcome) => outcome === "disconnected"));
    const errors = outcomes.flatMap((outcome) => typeof outcome === "string" ? [] : [outcome.error]);
    if (errors.length > 0) throw refused(`ztunnel did not delete pod ${uid}`, errors.join("; "));
  }

  /** Stops listening and closes all connections; pods keep running. */
  async close(): Promise<void> {
    if (this.#stop.signal.aborted) return;
    this.#stop.abort();
    await this.#listener.close();
    await Promise.all(this.#connections.map((connection) => connection.close()));
    await this.#accepting;
    await Promise.all(this.#sessions);
    this.#held[Symbol.dispose]();
    try {
      Deno.removeSync(this.#options.path);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error; // A successor may have replaced or removed it.
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #accept(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      let socket: SeqpacketSocket | undefined;
      try {
        socket = await this.#listener.accept();
      } catch (error) {
        this.#options.log.warn("ztunnel connection not accepted", { error: chain(error) });
      }
      if (this.#listener.closed) {
        await socket?.close();
        return;
      }
      if (socket !== undefined) {
        const session = this.#serve(socket);
        this.#sessions.add(session);
        ignore(session.finally(() => this.#sessions.delete(session)), "a session reports its own failure");
      }
      await pause(this.#options.acceptIntervalMs ?? ACCEPT_INTERVAL_MS, this.#stop.signal);
    }
  }

  /** One connection from its first packet to its end. Rejects only for our own mistakes. */
  async #serve(socket: SeqpacketSocket): Promise<void> {
    const { log } = this.#options;
    const { acknowledgeTimeoutMs } = this.#options;
    const connection = new ZdsConnection(socket, { acknowledgeTimeoutMs, held: this.#held });
    let greeted = false;
    this.#connections.push(connection); // Before the hello, so that adds wait for it and not for an older one (CNI-248).
    try {
      checkPeer(socket);
      connection.features = await this.#receiveHello(socket);
      connection.processId = socket.peerProcessId();
      connection.refusal = this.#options.refuses?.(connection.features, connection.processId);
      if (connection.refusal !== undefined) log.error("this ztunnel is given no pods", { reason: connection.refusal });
      greeted = true;
      this.#held.stopClock();
      this.#notify();
      log.info("ztunnel connected", { connections: this.#connections.length });
      const refusedUids: string[] = [];
      await connection.run(() => [...this.#pods.values()], {
        isCurrent: (pod) => this.#pods.get(pod.uid) === pod,
        onRefused: (pod, error) => {
          log.warn("ztunnel refused a pod of the snapshot", { uid: pod.uid, error });
          refusedUids.push(pod.uid);
        },
        onSynchronized: () => {
          log.info("ztunnel has all pods", { pods: this.#pods.size });
          this.#notify();
          for (const uid of refusedUids) this.#options.onRefused?.(uid);
        },
      });
      log.info("ztunnel disconnected");
    } catch (error) {
      if (error instanceof AssertionError) throw error;
      log.warn("ztunnel connection dropped", { error: chain(error) });
    } finally {
      this.#connections.splice(this.#connections.indexOf(connection), 1);
      if (greeted) this.#lastSeenMs = performance.now();
      if (this.#connections.length === 0 && !this.#stop.signal.aborted) this.#held.startClock();
      await connection.close();
      this.#notify();
    }
  }

  /** @returns What this ztunnel can beyond Istio's protocol. */
  async #receiveHello(socket: SeqpacketSocket): Promise<number> {
    const packet = await socket.receive(ZDS_PACKET_BYTES_MAX, { timeoutMs: HELLO_TIMEOUT_MS });
    if (typeof packet === "string") throw new Error(`no hello: ${packet}`);
    closeDescriptor(packet.descriptor);
    if (packet.descriptor !== undefined) throw new Error("the hello came with a descriptor");
    const { version, features = 0 } = decodeZdsHello(packet.bytes);
    if (version !== ZdsVersion.V1) throw new Error(`ZDS version ${version} is not known`);
    return features;
  }

  async #newestInSync(deadlineMs: number, signal?: AbortSignal): Promise<ZdsConnection> {
    while (true) {
      const newest = this.#connections.at(-1);
      if (newest?.synchronized) return newest;
      const leftMs = deadlineMs - performance.now();
      if (leftMs > 0 && signal?.aborted !== true && !this.#stop.signal.aborted) {
        await this.#nextChange(leftMs, signal);
        continue;
      }
      throw new MeshError(
        "AMB7210",
        newest === undefined ? "no ztunnel is connected" : "ztunnel has not taken over the node's pods yet",
        { remedy: `Start ztunnel on this node with the socket ${this.#options.path}, then enrol again.` },
      );
    }
  }

  #standing(): ZdsConnection[] {
    return this.#connections.filter((connection) => !connection.ended);
  }

  /** Waits until a ztunnel is connected. @returns All that are; none when none came before the deadline. */
  async #anyStanding(deadlineMs: number, signal?: AbortSignal): Promise<ZdsConnection[]> {
    while (this.#standing().length === 0 && signal?.aborted !== true && !this.#stop.signal.aborted) {
      const leftMs = deadlineMs - performance.now();
      if (leftMs <= 0) break;
      await this.#nextChange(leftMs, signal);
    }
    return this.#standing();
  }

  #nextChange(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#changed.delete(end);
        signal?.removeEventListener("abort", end);
        this.#stop.signal.removeEventListener("abort", end);
        resolve();
      };
      const timer = setTimeout(end, timeoutMs);
      this.#changed.add(end);
      signal?.addEventListener("abort", end);
      this.#stop.signal.addEventListener("abort", end);
    });
  }

  #notify(): void {
    for (const wake of [...this.#changed]) wake();
  }
}

/** A namespace's descriptor is power over it: it goes to root and to our own user only (CNI-255). */
function checkPeer(socket: SeqpacketSocket): void {
  const userId = socket.peerUserId();
  if (userId !== 0 && userId !== effectiveUserId()) throw new Error(`user ${userId} is not one that ztunnel runs as`);
}

function refused(message: string, error: string): MeshError {
  return new MeshError("AMB7211", message, {
    remedy: "See ztunnel's log; it retries a failed start by itself, and enrolling again is safe.",
    cause: new Error(error),
  });
}
