/** One connected ztunnel: the snapshot first, then requests, each acknowledged before the next (CNI-243 to CNI-249). */
import { assert } from "../base/assert.ts";
import { chain } from "../base/errors.ts";
import {
  decodeZdsAcknowledgement,
  encodeZdsRequest,
  ZDS_PACKET_BYTES_MAX,
  ZdsFeature,
  type ZdsRequest,
} from "../mesh/proto/zds_codec.ts";
import { closeDescriptor, type LoadedPacket, type SeqpacketSocket } from "../os/seqpacket.ts";
import type { HeldSockets } from "./held_sockets.ts";
import type { AnnouncedPod } from "./zds_server.ts";

const SEND_TIMEOUT_MS = 5_000, ACKNOWLEDGE_TIMEOUT_MS = 5_000; // CNI-245
const QUEUE_MAX = 100; // CNI-249

/** What became of a request: done, refused with an error, or the connection ended before an answer. */
export type Outcome = "done" | "disconnected" | { readonly error: string };

interface Waiting {
  readonly request: ZdsRequest;
  readonly descriptor: number | undefined;
  readonly answer: (outcome: Outcome) => void;
  /** Set when whoever asked has gone: it is not sent any more. */
  abandoned: boolean;
}

export class ZdsConnection {
  readonly #socket: SeqpacketSocket;
  readonly #acknowledgeTimeoutMs: number;
  readonly #held: HeldSockets | undefined;
  readonly #queue: Waiting[] = [];
  /** Wakes the sender when a request was queued or the connection ended. */
  #wake: () => void = () => {};
  /** Takes the next acknowledgement; undefined when none is expected. */
  #expected: ((outcome: Outcome) => void) | undefined;
  /** Of the pod that is being added: its sockets may come with the acknowledgement. */
  #adding: string | undefined;
  #ended = false;
  #synchronized = false;
  #failure: Error | undefined;
  /** What this ztunnel said it can: bits of ZdsFeature. */
  features = 0;
  /** Why it is given no pods; undefined: it is. */
  refusal: string | undefined = undefined;
  /** undefined before the hello. */
  processId: number | undefined = undefined;

  /** @param held what ztunnels listen on; left out, nothing is held. */
  constructor(socket: SeqpacketSocket, options: { acknowledgeTimeoutMs?: number; held?: HeldSockets } = {}) {
    this.#socket = socket;
    this.#held = options.held;
    this.#acknowledgeTimeoutMs = options.acknowledgeTimeoutMs ?? ACKNOWLEDGE_TIMEOUT_MS;
  }

  /** Whether the snapshot was acknowledged, and the connection still stands. */
  get synchronized(): boolean {
    return this.#synchronized && !this.#ended;
  }

  /** Whether every further request is answered `disconnected`. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Queues a request behind the snapshot and those before it. Always comes back: answered, cancelled, or disconnected. Never rejects. */
  request(request: ZdsRequest, options: { descriptor?: number; signal?: AbortSignal } = {}): Promise<Outcome> {
    const { descriptor, signal } = options;
    if (this.#ended) return Promise.resolve("disconnected");
    if (signal?.aborted) return Promise.resolve({ error: "cancelled" });
    if (this.#queue.length >= QUEUE_MAX) return Promise.resolve({ error: "too many requests wait for ztunnel" });
    return new Promise((resolve) => {
      const cancel = () => {
        waiting.abandoned = true;
        resolve({ error: "cancelled" });
      };
      const answer = (outcome: Outcome) => {
        signal?.removeEventListener("abort", cancel);
        resolve(outcome);
      };
      const waiting: Waiting = { request, descriptor, answer, abandoned: false };
      signal?.addEventListener("abort", cancel, { once: true });
      this.#queue.push(waiting);
      this.#wake();
    });
  }

  /** Sends the snapshot, then what is queued, until the connection ends. Throws what ended it, unless ztunnel just closed. */
  async run(
    snapshot: () => readonly AnnouncedPod[],
    on: {
      isCurrent: (pod: AnnouncedPod) => boolean;
      onRefused: (pod: AnnouncedPod, error: string) => void;
      onSynchronized: () => void;
    },
  ): Promise<void> {
    const reading = this.#read();
    try {
      await this.#sendSnapshot(snapshot(), on);
      while (!this.#ended) {
        const next = this.#queue.shift();
        if (next === undefined) await new Promise<void>((resolve) => this.#wake = resolve);
        else if (!next.abandoned) next.answer(await this.#exchange(next.request, next.descriptor));
      }
    } finally {
      await this.close();
      await reading;
    }
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Ends the connection: all who wait are answered `disconnected`. */
  async close(): Promise<void> {
    this.#end();
    await this.#socket.close();
  }

  async #sendSnapshot(
    pods: readonly AnnouncedPod[],
    on: {
      isCurrent: (pod: AnnouncedPod) => boolean;
      onRefused: (pod: AnnouncedPod, error: string) => void;
      onSynchronized: () => void;
    },
  ): Promise<void> {
    for (const pod of pods) {
      if (!on.isCurrent(pod)) continue; // Deleted meanwhile, and its descriptor perhaps closed.
      const { uid, workload, netns, shared } = pod;
      const outcome = netns === undefined
        ? await this.#exchange({ kind: "keep", uid })
        : await this.#exchange({ kind: "add", uid, workload, shared }, netns.fd);
      if (outcome === "disconnected") return;
      if (outcome !== "done") on.onRefused(pod, outcome.error); // The snapshot goes on (CNI-243).
    }
    const outcome = await this.#exchange({ kind: "snapshotSent" });
    if (outcome === "disconnected") return;
    if (outcome !== "done") return this.#end(new Error(`the snapshot was refused: ${outcome.error}`));
    this.#synchronized = true;
    on.onSynchronized();
  }

  /** Sends one request and waits for its acknowledgement. */
  async #exchange(request: ZdsRequest, descriptor?: number): Promise<Outcome> {
    if (this.#ended) return "disconnected";
    if (request.kind === "add" && this.refusal !== undefined) return { error: this.refusal };
    if (request.kind === "add" && request.shared !== undefined && (this.features & ZdsFeature.SHARED_NETNS) === 0) {
      return { error: "this ztunnel serves no workloads in the host's network namespace" };
    }
    const asksDns = request.kind === "add" && (request.shared?.dnsPort ?? 0) !== 0;
    if (asksDns && (this.features & ZdsFeature.SHARED_DNS) === 0) {
      return { error: "this ztunnel serves no DNS to units: it is older, or runs with ISTIO_META_DNS_CAPTURE=false" };
    }
    assert(this.#expected === undefined, "one request is outstanding at a time");
    const acknowledged = new Promise<Outcome>((resolve) => this.#expected = resolve);
    const { message, descriptors } = this.#withSockets(request, descriptor);
    try {
      if (!await this.#socket.sendLoaded(encodeZdsRequest(message), descriptors, { timeoutMs: SEND_TIMEOUT_MS })) {
        this.#end(); // Broken pipe (CNI-247).
      }
    } catch (error) {
      this.#end(error as Error);
    }
    const timer = setTimeout(() => {
      const error = `no acknowledgement within ${this.#acknowledgeTimeoutMs} ms`;
      this.#expected?.({ error });
      this.#expected = undefined;
      this.#end(new Error(error)); // Kept open, a late answer would pass for the next one's (CNI-247).
    }, this.#acknowledgeTimeoutMs);
    try {
      return await acknowledged;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Gives a pod's held sockets back with it, if ztunnel knows what to do with them. */
  #withSockets(
    request: ZdsRequest,
    descriptor: number | undefined,
  ): { readonly message: ZdsRequest; readonly descriptors: readonly number[] } {
    const own = descriptor === undefined ? [] : [descriptor], held = this.#held;
    this.#adding = undefined;
    if (request.kind !== "add" || descriptor === undefined || held === undefined) {
      return { message: request, descriptors: own };
    }
    if ((this.features & ZdsFeature.KEPT_SOCKETS) === 0) held.drop(request.uid); // It opens its own, beside which these would wait.
    else if (held.of(request.uid).length > 0 || held.hasRoom) {
      this.#adding = request.uid;
      return { message: { ...request, keepsSockets: true }, descriptors: [...own, ...held.of(request.uid)] };
    }
    return { message: request, descriptors: own };
  }

  /** Reads acknowledgements as they come. Between requests there is nothing to say, so anything then ends the connection (CNI-246). */
  async #read(): Promise<void> {
    try {
      while (!this.#ended) {
        const packet = await this.#socket.receiveLoaded(ZDS_PACKET_BYTES_MAX);
        if (typeof packet === "string") break;
        const answer = this.#expected, error = this.#take(packet);
        if (answer === undefined) throw new Error("ztunnel sent an acknowledgement of nothing");
        this.#expected = undefined;
        answer(error === "" ? "done" : { error });
      }
      this.#end();
    } catch (error) {
      this.#end(new Error("ztunnel's answer could not be read: " + chain(error)));
    }
  }

  /** Reads an acknowledgement, and holds the sockets that came with it if they were asked for. @returns Its error. */
  #take({ bytes, descriptors }: LoadedPacket): string {
    using unwanted = new DisposableStack();
    unwanted.defer(() => descriptors.forEach(closeDescriptor));
    const { error, sockets } = decodeZdsAcknowledgement(bytes), uid = this.#adding;
    this.#adding = undefined;
    if (uid === undefined) return error;
    if (error !== "") this.#held?.drop(uid); // ztunnel has closed them, or opens others later.
    else if (sockets === true && this.#held !== undefined) {
      unwanted.move();
      this.#held.replace(uid, descriptors);
    }
    return error;
  }

  #end(failure?: Error): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#failure = failure;
    this.#expected?.("disconnected");
    this.#expected = undefined;
    for (const waiting of this.#queue.splice(0)) waiting.answer("disconnected");
    this.#wake();
  }
}
