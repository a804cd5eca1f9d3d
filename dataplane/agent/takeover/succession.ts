/** A ztunnel's two moments of succession: after its start, where it may take over, and later, when somebody takes over from it. */
import { chain, MeshError } from "../../../base/errors.ts";
import type { Logger } from "../../../base/log.ts";
import type { Tables } from "../../tables/handles.ts";
import type { Pods } from "../pods.ts";
import type { Publisher } from "../publisher.ts";
import type { WorkerPool } from "../worker_pool.ts";
import type { ZdsClient } from "../zds_client.ts";
import { Predecessor, type Taken } from "./client.ts";
import { Inheritance } from "./inheritance.ts";
import { TakeoverServer } from "./server.ts";
import { WorkerPhases } from "./worker_phases.ts";

const REFUSED = "AMB2420";
/** The predecessor gives up its ports and its socket as soon as it has heard that we serve. */
const RETRY_MS = 10, RETRIES_MAX = 1_000;

export interface SuccessionOptions {
  /** Where a predecessor listens, and we after it; empty: nobody can take over from us. */
  readonly path: string;
  readonly program: string;
  readonly tables: Tables;
  readonly workers: WorkerPool;
  readonly pods: Pods;
  readonly zds: ZdsClient;
  readonly publisher: Publisher;
  /** Whether it may serve beside a predecessor that refuses, each with ports of its own, instead of ending. */
  readonly goesOnBeside?: boolean;
  readonly log: Logger;
}

export class Succession implements AsyncDisposable {
  readonly #options: SuccessionOptions;
  readonly #phases: WorkerPhases;
  readonly #handedOver = Promise.withResolvers<void>();
  #server: TakeoverServer | undefined;

  constructor(options: SuccessionOptions) {
    this.#options = options;
    this.#phases = new WorkerPhases(options.tables, options.workers);
  }

  /** Resolves once a successor has every connection. */
  get handedOver(): Promise<void> {
    return this.#handedOver.promise;
  }

  /**
   * Takes everything over from the ztunnel that runs. The mesh is known by now. @returns false if there is none.
   * @throws MeshError AMB2420, AMB2421: the process must end then, and the other serves on.
   */
  async takeOver(): Promise<boolean> {
    const { path, program, tables, log } = this.#options;
    await using predecessor = await Predecessor.connect(path, program);
    if (predecessor === undefined) {
      log.info("nobody to take over from: an ordinary start", { path });
      return false;
    }
    const inheritance = new Inheritance(this.#options);
    let taken: Taken;
    try {
      taken = await predecessor.takeOver(this.#phases, tables, inheritance.prepare, log);
    } catch (error) {
      const refused = error instanceof MeshError && error.code === REFUSED; // It has told us of no pod yet.
      if (!refused || this.#options.goesOnBeside !== true) throw error;
      log.warn("starting beside the other ztunnel, which keeps its connections", { reason: chain(error) });
      return false;
    }
    this.#options.pods.listensOn(this.#phases.listening());
    const { receivedMs, builtMs, pauseMs, ...counts } = taken;
    log.info("taken over", {
      ...counts,
      receivedMs: Math.round(receivedMs),
      builtMs: Math.round(builtMs),
      pauseMs: Math.round(pauseMs * 10) / 10,
    });
    return true;
  }

  /** Listens for a successor from now on. Without a place to listen at the ztunnel serves all the same. */
  async awaitSuccessor(afterTakeover: boolean): Promise<void> {
    const { path, log } = this.#options;
    if (path === "") return;
    try {
      for (let tries = 0; this.#server === undefined && tries < (afterTakeover ? RETRIES_MAX : 1); tries++) {
        if (tries > 0) await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
        this.#server = TakeoverServer.listen({ ...this.#options, phases: this.#phases });
      }
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      log.warn("nobody will be able to take over", { error: chain(error), remedy: error.remedy });
      return;
    }
    if (this.#server === undefined) {
      log.warn("another ztunnel awaits a successor there: none can take over from us", { path });
    } else this.#server.handedOver.then(this.#handedOver.resolve);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server?.[Symbol.asyncDispose]();
  }
}

/** Calls what takes ports until the predecessor has given them up. */
export async function onceFree<T>(take: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
  for (let tries = 0;; tries++) {
    const attempt = new AbortController();
    try {
      return await take(AbortSignal.any([signal, attempt.signal]));
    } catch (error) {
      attempt.abort(); // Some of the ports may have been free.
      if (!isTaken(error) || tries >= RETRIES_MAX || signal.aborted) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

function isTaken(error: unknown): boolean {
  const cause = error instanceof MeshError ? error.cause : undefined;
  return cause instanceof Error && "code" in cause && cause.code === "EADDRINUSE";
}
