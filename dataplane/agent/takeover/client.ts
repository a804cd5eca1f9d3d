/** The successor's side of a takeover: learns of the pods, and once it is ready asks for their connections. */
import { MeshError } from "../../../base/errors.ts";
import type { Logger } from "../../../base/log.ts";
import { createMemoryFile } from "../../../os/memory_file.ts";
import type { SharedNetns } from "../../../mesh/proto/zds_codec.ts";
import { Netns } from "../../../os/netns.ts";
import { type LoadedPacket, SeqpacketSocket } from "../../../os/seqpacket.ts";
import { closeFd, openDescriptorCount, reserveDescriptors, takeToken } from "../../../os/sockets.ts";
import type { Tables } from "../../tables/handles.ts";
import { TAKEOVER, TakeoverPhase } from "../../tables/layout.ts";
import { ADOPTION_CODEC, TAKEOVER_VERSION, WORKER_STATE_CODEC } from "../../tables/takeover_format.ts";
import { decodeMessage, encodeMessage, type Message, PACKET_BYTES_MAX } from "./messages.ts";
import type { WorkerPhases } from "./worker_phases.ts";

const ANSWER_TIMEOUT_MS = 5_000;
/** Pods may change between their list and the freeze: it is asked for again, so often. */
const EDITIONS_MAX = 10;
const ADOPT_TIMEOUT_MS = 1_500;
const WORKERS_MAX = 64, HANDLES_MAX = 1_000_000;

/** A pod that the predecessor serves. */
export interface OfferedPod {
  /** In the predecessor's table. */
  readonly row: number;
  readonly uid: string;
  readonly info: { readonly name: string; readonly namespace: string; readonly serviceAccount: string };
  readonly shared?: SharedNetns;
  readonly transparent: boolean;
  /** The predecessor has a certificate for it. */
  readonly certified: boolean;
  /** The receiver's. */
  readonly netns: Netns;
  /** The receiver's: sockets at which the predecessor serves the pod DNS. */
  readonly dnsSockets: readonly number[];
}

/** What is done with the pods before connections come: rows of ours by rows of the predecessor's. */
export type Prepare = (pods: readonly OfferedPod[]) => Promise<ReadonlyMap<number, number>>;

interface WrittenState {
  readonly fd: number;
  readonly expected: number;
  readonly handles: number[];
}

/** What was taken over, for the log. */
export interface Taken {
  readonly sessions: number;
  readonly connections: number;
  readonly descriptors: number;
  /** Connections that end at the predecessor. */
  readonly left: number;
  /** Since the first worker's last turn: until all descriptors had come, until all was built, until all was watched. */
  readonly receivedMs: number;
  readonly builtMs: number;
  readonly pauseMs: number;
}

export class Predecessor implements AsyncDisposable {
  readonly #socket: SeqpacketSocket;

  private constructor(socket: SeqpacketSocket) {
    this.#socket = socket;
  }

  /** @returns undefined if nobody is there. */
  static async connect(path: string, program: string): Promise<Predecessor | undefined> {
    let socket: SeqpacketSocket;
    try {
      socket = SeqpacketSocket.connect(path);
    } catch (error) {
      if (error instanceof MeshError) return undefined;
      throw error;
    }
    const predecessor = new Predecessor(socket);
    const hash = WORKER_STATE_CODEC.hash;
    await predecessor.#send({ kind: "hello", version: TAKEOVER_VERSION, hash, program });
    return predecessor;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#socket.close();
  }

  /** Takes everything over. After a failure the process must end: the predecessor serves on. @throws MeshError AMB2420, AMB2421 */
  async takeOver(phases: WorkerPhases, tables: Tables, prepare: Prepare, log: Logger): Promise<Taken> {
    for (let editions = 0; editions < EDITIONS_MAX; editions++) {
      const welcome = await this.#next("welcome");
      const pods: OfferedPod[] = [];
      for (let count = 0; count < welcome.message.pods; count++) pods.push(await this.#pod());
      log.info("taking over", { from: welcome.message.program, pods: pods.length, workers: welcome.message.workers });
      const rows = await prepare(pods);
      reserveDescriptors(Math.min(HANDLES_MAX, 2 * welcome.message.descriptors) + openDescriptorCount());
      await this.#send({ kind: "freeze", edition: welcome.message.edition });
      const first = await this.#receive();
      if (first.message.kind === "welcome") {
        this.#unread = first;
        continue;
      }
      this.#unread = first;
      return await this.#adopt(phases, tables, rows, welcome.message.workers);
    }
    throw failed("the pods of this node change without pause");
  }

  #unread: { readonly message: Message; readonly descriptors: readonly number[] } | undefined;

  async #pod(): Promise<OfferedPod> {
    const { message, descriptors: [netnsFd, ...dnsSockets] } = await this.#next("pod", "some");
    const { row, uid, name, namespace, serviceAccount, transparent, certified, shared } = message;
    const netns = new Netns(netnsFd!, `the descriptor for pod ${uid}`);
    return { row, uid, info: { name, namespace, serviceAccount }, shared, transparent, certified, netns, dnsSockets };
  }

  async #adopt(
    phases: WorkerPhases,
    tables: Tables,
    rows: ReadonlyMap<number, number>,
    workers: number,
  ): Promise<Taken> {
    if (workers < 1 || workers > WORKERS_MAX) throw failed(`the predecessor speaks of ${workers} workers`);
    const states: WrittenState[] = [];
    using received = new DisposableStack(); // Ours until the workers get them.
    let sessions = 0, connections = 0, left = 0, descriptors = 0, frozenAtMs = Infinity;
    for (let worker = 0; worker < workers; worker++) {
      const { message, descriptors: [fd] } = await this.#next("state", 1);
      if (message.handles > HANDLES_MAX) throw failed(`the predecessor speaks of ${message.handles} descriptors`);
      const state: WrittenState = { fd: fd!, expected: message.handles, handles: [] };
      states.push(state);
      received.defer(() => [state.fd, ...state.handles].forEach(closeFd));
      sessions += message.sessions;
      connections += message.connections;
      left += message.left;
      descriptors += message.handles;
      frozenAtMs = Math.min(frozenAtMs, message.frozenAtMs);
      while (state.handles.length < state.expected) {
        state.handles.push(...(await this.#next("handles", "some")).descriptors);
      }
      if (state.handles.length !== state.expected) throw failed("descriptors came that nobody spoke of");
    }
    const token = (await this.#next("token", 1)).descriptors[0]!;
    received.defer(() => closeFd(token));
    const sinceFrozen = () => performance.timeOrigin + performance.now() - frozenAtMs;
    const receivedMs = sinceFrozen();
    this.#deal(phases, tables, rows, states);
    received.move();
    using held = new DisposableStack();
    held.defer(() => closeFd(token));
    const why = await phases.reach(TakeoverPhase.ADOPTED, ADOPT_TIMEOUT_MS);
    if (why !== undefined) throw failed(why);
    const builtMs = sinceFrozen();
    // The one moment that decides: whoever reads the token owns every connection, and only that one may touch them.
    if (!takeToken(token)) throw failed("the predecessor took its word back");
    const late = await phases.reach(TakeoverPhase.LIVE, ADOPT_TIMEOUT_MS);
    if (late !== undefined) throw failed(late);
    const pauseMs = sinceFrozen();
    await this.#socket.sendLoaded(encodeMessage({ kind: "live", pauseMs }), [], { timeoutMs: ANSWER_TIMEOUT_MS });
    return { sessions, connections, descriptors, left, receivedMs, builtMs, pauseMs };
  }

  /** Each worker of the predecessor's goes to one of ours; those that get none share the load of newcomers. */
  #deal(
    phases: WorkerPhases,
    tables: Tables,
    rows: ReadonlyMap<number, number>,
    states: readonly WrittenState[],
  ): void {
    const pods = [...rows].map(([theirs, ours]) => ({ theirs, ours }));
    for (let worker = 0; worker < phases.count; worker++) {
      const own = states.filter((_, theirs) => theirs % phases.count === worker);
      const adoption = ADOPTION_CODEC.encode({ pods, states: own.map(({ fd, handles }) => ({ fd, handles })) });
      tables.takeover.set(worker, TAKEOVER.adoptionFd, createMemoryFile("ambit-adoption", adoption));
    }
  }

  async #send(message: Message): Promise<void> {
    const sent = await this.#socket.sendLoaded(encodeMessage(message), [], { timeoutMs: ANSWER_TIMEOUT_MS });
    if (!sent) throw failed("the predecessor has gone");
  }

  /** The next message, which must be of this kind, with so many descriptors. */
  async #next<Kind extends Message["kind"]>(
    kind: Kind,
    descriptors: number | "some" = 0,
  ): Promise<{ readonly message: Extract<Message, { kind: Kind }>; readonly descriptors: readonly number[] }> {
    const got = this.#unread ?? await this.#receive();
    this.#unread = undefined;
    const { message } = got, count = got.descriptors.length;
    const fits = descriptors === "some" ? count > 0 : count === descriptors;
    if (message.kind !== kind || !fits) {
      got.descriptors.forEach(closeFd);
      throw failed(`the predecessor said ${message.kind} in place of ${kind}`);
    }
    return { message: message as Extract<Message, { kind: Kind }>, descriptors: got.descriptors };
  }

  async #receive(): Promise<{ readonly message: Message; readonly descriptors: readonly number[] }> {
    const packet: LoadedPacket | "closed" | "timeout" = await this.#socket.receiveLoaded(PACKET_BYTES_MAX, {
      timeoutMs: ANSWER_TIMEOUT_MS,
    });
    if (typeof packet === "string") throw failed(packet === "closed" ? "it has gone" : "it does not answer");
    const message = decodeMessage(packet.bytes);
    if (message !== undefined && message.kind !== "refused") return { message, descriptors: packet.descriptors };
    packet.descriptors.forEach(closeFd);
    if (message === undefined) throw failed("it speaks another protocol");
    throw new MeshError("AMB2420", `the predecessor refused to hand over: ${message.reason}`, {
      remedy: "start without --takeover once the other ztunnel has ended; it serves on until then",
    });
  }
}

function failed(reason: string): MeshError {
  return new MeshError("AMB2421", `the takeover failed: ${reason}`, {
    remedy: "see the log of the other ztunnel, which serves on; try again, or restart it the ordinary way",
  });
}
