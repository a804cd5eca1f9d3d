/** The predecessor's side of a takeover: listens for a successor, and hands it every connection, or goes on as if nothing had been. */
import { chain, ignore, MeshError } from "../../../base/errors.ts";
import type { Logger } from "../../../base/log.ts";
import { readMemoryFile } from "../../../os/memory_file.ts";
import { effectiveUserId } from "../../../os/process.ts";
import { PACKET_DESCRIPTORS_MAX, PacketError, SeqpacketListener, SeqpacketSocket } from "../../../os/seqpacket.ts";
import { closeFd, createToken, openDescriptorCount, takeToken } from "../../../os/sockets.ts";
import type { Tables } from "../../tables/handles.ts";
import { IDENTITY, IdentityState, POD, PodFlag, TAKEOVER, TakeoverPhase } from "../../tables/layout.ts";
import { TAKEOVER_VERSION, WORKER_STATE_CODEC } from "../../tables/takeover_format.ts";
import { OWN_NETNS } from "../pods.ts";
import type { EnrolledPod } from "../zds_client.ts";
import { decodeMessage, encodeMessage, type Message, PACKET_BYTES_MAX } from "./messages.ts";
import type { WorkerPhases } from "./worker_phases.ts";

/** Until there may be a descriptor for a successor's connection; whoever comes meanwhile waits in the socket's queue. */
const ACCEPT_RETRY_MS = 100;
const HELLO_TIMEOUT_MS = 2_000, SEND_TIMEOUT_MS = 1_000;
/** For a successor to learn of the mesh and get certificates; nothing of ours waits meanwhile. */
const PREPARE_TIMEOUT_MS = 120_000;
const QUIET_TIMEOUT_MS = 1_000, FREEZE_TIMEOUT_MS = 1_500;
/** From the state's last byte to the successor's word. Together with the above below the node agent's five seconds. */
const ADOPT_TIMEOUT_MS = 2_000;

/** What is handed over besides connections: the pods, which stay as they are meanwhile. */
export interface HeldPods {
  list(): ReadonlyMap<string, { readonly row: number; readonly pod: EnrolledPod }>;
  /** The sockets at which a pod is served DNS. */
  dnsSocketsOf(uid: string): readonly number[];
  /** Adds and deletes no pod until the function that it returns is called; and afterwards deletes none that is a successor's. */
  hold(): Promise<(handedOver: boolean) => void>;
}

export interface TakeoverServerOptions {
  readonly path: string;
  readonly program: string;
  readonly tables: Tables;
  readonly phases: WorkerPhases;
  readonly pods: HeldPods;
  readonly log: Logger;
}

/** What was handed over, for the log. */
interface Handed {
  readonly sessions: number;
  readonly connections: number;
  readonly descriptors: number;
  readonly left: number;
}

function ignoreAbsent(error: unknown): void {
  if (!(error instanceof Deno.errors.NotFound)) throw error;
}

type Outcome = "handedOver" | "keeps";

export class TakeoverServer implements AsyncDisposable {
  readonly #options: TakeoverServerOptions;
  readonly #listener: SeqpacketListener;
  readonly #end = Promise.withResolvers<void>();
  readonly #sockets = new Set<SeqpacketSocket>();
  /** A successor is being served. Two at once would each be given the connections. */
  #busy = false;
  #closed = false;

  private constructor(options: TakeoverServerOptions, listener: SeqpacketListener) {
    this.#options = options;
    this.#listener = listener;
  }

  /** @returns undefined when another ztunnel listens there. Throws AMB7032. */
  static listen(options: TakeoverServerOptions): TakeoverServer | undefined {
    try { // Whoever answers there serves pods of his own: his place is not taken.
      ignore(SeqpacketSocket.connect(options.path).close(), "only asked whether somebody is there");
      return undefined;
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
    }
    const server = new TakeoverServer(options, SeqpacketListener.listen(options.path, { mode: 0o600 }));
    ignore(server.#accept(), "it ends with the listener");
    return server;
  }

  /** Resolves once every connection is a successor's. */
  get handedOver(): Promise<void> {
    return this.#end.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // While we listen the place is ours; after a hand-over it is the successor's.
    if (!this.#closed) await Deno.remove(this.#options.path).catch(ignoreAbsent);
    this.#closed = true;
    await Promise.all([this.#listener.close(), ...[...this.#sockets].map((socket) => socket.close())]);
  }

  async #accept(): Promise<void> {
    for (;;) {
      try {
        const socket = await this.#listener.accept();
        if (socket === undefined) return;
        ignore(this.#serve(socket), "it logs its failures");
      } catch (error) {
        if (!(error instanceof MeshError)) throw error;
        this.#options.log.warn("a successor cannot be let in now", { error: chain(error) });
        await new Promise((resolve) => setTimeout(resolve, ACCEPT_RETRY_MS));
      }
    }
  }

  async #serve(socket: SeqpacketSocket): Promise<void> {
    const { log } = this.#options;
    this.#sockets.add(socket);
    try {
      const refusal = await this.#refusalOf(socket);
      if (refusal === "gone") return;
      if (refusal !== undefined) {
        log.warn("a takeover was refused", { reason: refusal });
        await send(socket, { kind: "refused", reason: refusal });
        return;
      }
      try {
        if (await this.#handOver(socket) === "handedOver") {
          this.#closed = true;
          await this.#listener.close();
          this.#end.resolve();
        }
      } finally {
        this.#busy = false;
      }
    } catch (error) {
      if (!(error instanceof MeshError || error instanceof PacketError)) throw error;
      log.warn("a takeover came to nothing", { error: chain(error) });
    } finally {
      this.#sockets.delete(socket);
      await socket.close();
    }
  }

  /** @returns undefined for a successor that is let in: {@link TakeoverServer.#busy} is set then. */
  async #refusalOf(socket: SeqpacketSocket): Promise<string | undefined> {
    if (socket.peerUserId() !== effectiveUserId()) return "the successor runs as another user";
    const hello = await receive(socket, HELLO_TIMEOUT_MS);
    if (hello === undefined) return "gone";
    if (hello.kind !== "hello") return "the successor does not say which format it reads";
    const { version, hash, program } = hello;
    if (version !== TAKEOVER_VERSION || hash !== WORKER_STATE_CODEC.hash) {
      return `the successor (${program}) reads another format (${version}, ${hash.toString(16)}) than ` +
        `${this.#options.program} writes (${TAKEOVER_VERSION}, ${WORKER_STATE_CODEC.hash.toString(16)})`;
    }
    if (this.#busy) return "another successor came first";
    if (this.#closed) return "this ztunnel is about to end";
    this.#busy = true; // In the same breath: a hello that came together with this one is looked at next.
    return undefined;
  }

  async #handOver(socket: SeqpacketSocket): Promise<Outcome> {
    const { pods, log } = this.#options;
    log.info("a successor prepares to take over");
    for (;;) {
      const edition = this.#edition();
      if (!await this.#offer(socket, edition)) return "keeps";
      const wish = await receive(socket, PREPARE_TIMEOUT_MS);
      if (wish === undefined || wish.kind !== "freeze") {
        log.warn("the successor has gone before it took anything");
        return "keeps";
      }
      const release = await pods.hold();
      let outcome: Outcome = "keeps";
      try {
        if (this.#closed) return outcome;
        if (wish.edition === this.#edition()) return outcome = await this.#freeze(socket);
      } finally {
        release(outcome === "handedOver");
      }
    }
  }

  /** All but the proxy itself, which each process serves on its own. */
  #enrolled() {
    return [...this.#options.pods.list().values()].filter(({ pod }) => pod.netnsFd !== OWN_NETNS);
  }

  /** A name for the set of pods as it is. */
  #edition(): string {
    const rows = this.#options.tables.pods;
    return this.#enrolled().map(({ row }) => `${row}.${rows.get(row, POD.epoch)}`).sort().join();
  }

  async #offer(socket: SeqpacketSocket, edition: string): Promise<boolean> {
    const { tables, phases, program } = this.#options, all = this.#enrolled();
    const amounts = { workers: phases.count, pods: all.length, descriptors: openDescriptorCount() };
    if (!await send(socket, { kind: "welcome", ...amounts, edition, program })) return false;
    for (const { row, pod } of all) {
      const { name, namespace, serviceAccount } = pod.info;
      const transparent = (tables.pods.get(row, POD.flags) & PodFlag.TRANSPARENT) !== 0;
      const identity = tables.pods.getI32(row, POD.identityRow);
      const certified = identity >= 0 && tables.identities.load(identity, IDENTITY.state) === IdentityState.READY;
      const { uid, shared } = pod;
      const told: Message = { kind: "pod", row, uid, name, namespace, serviceAccount, transparent, certified, shared };
      if (!await send(socket, told, [pod.netnsFd, ...this.#options.pods.dnsSocketsOf(uid)])) return false;
    }
    return true;
  }

  /** Nothing is lost on any way out of this: either the successor has read the token, or our workers go on. */
  async #freeze(socket: SeqpacketSocket): Promise<Outcome> {
    const { phases, log } = this.#options, token = createToken();
    let handed: Handed | undefined, why: string | undefined;
    try {
      why = await phases.reach(TakeoverPhase.QUIET, QUIET_TIMEOUT_MS) ??
        await phases.reach(TakeoverPhase.FROZEN, FREEZE_TIMEOUT_MS);
      if (why === undefined) {
        handed = await this.#sendStates(socket, token);
        const answer = handed && await receive(socket, ADOPT_TIMEOUT_MS);
        if (answer?.kind === "live") {
          log.info("the successor serves", { pauseMs: Math.round(answer.pauseMs * 10) / 10 });
        } else why = "the successor gave no word in time";
      }
    } catch (error) {
      if (!(error instanceof MeshError || error instanceof PacketError)) throw error;
      why = chain(error);
    }
    // From here on no successor of ours can become the owner, unless it is already.
    const ours = takeToken(token);
    closeFd(token);
    const missed = await phases.reach(ours ? TakeoverPhase.RUN : TakeoverPhase.RELEASED, QUIET_TIMEOUT_MS);
    if (missed !== undefined) log.error("a worker is late", { reason: missed });
    if (ours) {
      log.warn("the takeover was called off; connections go on here", { reason: why });
      return "keeps";
    }
    log.info("handed over", { ...handed });
    return "handedOver";
  }

  /** @returns undefined if the successor has gone. */
  async #sendStates(socket: SeqpacketSocket, token: number): Promise<Handed | undefined> {
    const { tables: { takeover }, phases } = this.#options;
    let sessions = 0, connections = 0, left = 0, descriptors = 0;
    for (let worker = 0; worker < phases.count; worker++) {
      const named = readMemoryFile(takeover.getI32(worker, TAKEOVER.handlesFd));
      if (named === undefined) return undefined;
      const handles = [...new Int32Array(named.buffer)];
      const count = {
        sessions: takeover.get(worker, TAKEOVER.sessions),
        connections: takeover.get(worker, TAKEOVER.connections),
        left: takeover.get(worker, TAKEOVER.left),
      };
      sessions += count.sessions;
      connections += count.connections;
      left += count.left;
      descriptors += handles.length;
      const frozenAtMs = takeover.getF64(worker, TAKEOVER.frozenAtMs);
      const state: Message = { kind: "state", handles: handles.length, ...count, frozenAtMs };
      if (!await send(socket, state, [takeover.getI32(worker, TAKEOVER.stateFd)])) return undefined;
      for (let from = 0; from < handles.length; from += PACKET_DESCRIPTORS_MAX) {
        const some = handles.slice(from, from + PACKET_DESCRIPTORS_MAX);
        if (!await send(socket, { kind: "handles", count: some.length }, some)) return undefined;
      }
    }
    if (!await send(socket, { kind: "token", workers: phases.count }, [token])) return undefined;
    return { sessions, connections, descriptors, left };
  }
}

function send(socket: SeqpacketSocket, message: Message, descriptors: readonly number[] = []): Promise<boolean> {
  return socket.sendLoaded(encodeMessage(message), descriptors, { timeoutMs: SEND_TIMEOUT_MS });
}

/** @returns undefined if nothing came, or nothing that is a message. Descriptors are not expected. */
async function receive(socket: SeqpacketSocket, timeoutMs: number): Promise<Message | undefined> {
  const packet = await socket.receiveLoaded(PACKET_BYTES_MAX, { timeoutMs });
  if (typeof packet === "string") return undefined;
  for (const fd of packet.descriptors) closeFd(fd);
  return decodeMessage(packet.bytes);
}
