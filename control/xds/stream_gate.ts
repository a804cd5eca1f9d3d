/** Lets streams in: the first three steps of opening one, and how one is refused (CP-400). */
import type { StatusName } from "../../wire/grpc/status.ts";
import type { Logger } from "../../base/log.ts";
import type { AuthenticationWay, Caller } from "../ca/caller.ts";
import type { Counter, Metrics } from "../../base/metrics.ts";
import { credentialsOf } from "../ca/call_credentials.ts";
import type { GrpcCall } from "../grpc/call.ts";
import { StreamLimit } from "./stream_limit.ts";

/** How a listener is reached. */
export type Transport = "tls" | "plaintext";

export interface StreamGateOptions {
  readonly authenticator: AuthenticationWay;
  readonly newStreamsPerSecond: number;
  readonly metrics: Metrics;
  readonly log: Logger;
  readonly now: () => number;
}

const STREAMS_MAX = 20_000; // CP-658's storm, twice over
const NEW_STREAM_WAIT_MS_MAX = 1_000; // CP-400
/** Over plaintext nobody says who he is, and nobody is asked (CP-430). */
const ANONYMOUS: Caller = { identities: [], token: undefined };

export class StreamGate {
  readonly #options: StreamGateOptions;
  /** Apart, since over plaintext anybody may call. */
  readonly #limits: Readonly<Record<Transport, StreamLimit>>;
  readonly #refused: Counter;
  readonly #calls = new Set<GrpcCall>();
  #ready = false;

  constructor(options: StreamGateOptions) {
    this.#options = options;
    const { newStreamsPerSecond: perSecond, now, metrics } = options;
    const limit = () => new StreamLimit({ perSecond, waitMsMax: NEW_STREAM_WAIT_MS_MAX, now });
    this.#limits = { tls: limit(), plaintext: limit() };
    this.#refused = metrics.counter("pilot_xds_refused_streams", "Streams refused, by status.", { labelled: true });
  }

  /** Lets streams in from here on. */
  open(): void {
    this.#ready = true;
  }

  /** Lets no more streams in, and ends those there are; their clients go to another replica, or come back. */
  close(): void {
    this.#ready = false;
    for (const call of [...this.#calls]) {
      this.leave(call);
      call.finish("OK");
    }
  }

  /**
   * Upstream takes a turn before it asks who calls: there, whoever reaches the port and has no token can spend the rate that
   * all share, and no proxy gets in. Here turns are for callers that are known; how many are asked about at once the
   * authenticator bounds.
   * @returns The caller, or undefined if the stream was refused.
   */
  async admit(call: GrpcCall, transport: Transport): Promise<Caller | undefined> {
    if (!this.#ready) return this.refuse(call, "UNAVAILABLE", "the server is not ready"); // CP-013
    if (this.#calls.size >= STREAMS_MAX) return this.refuse(call, "RESOURCE_EXHAUSTED", "too many streams");
    this.#calls.add(call);
    call.whenOver(() => this.leave(call));
    const caller = transport === "plaintext" ? ANONYMOUS : await this.#authenticate(call);
    if (caller === undefined || call.over) return undefined;
    const waitMs = this.#limits[transport].take();
    if (waitMs === undefined) return this.refuse(call, "RESOURCE_EXHAUSTED", "too many new streams");
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    return caller;
  }

  async #authenticate(call: GrpcCall): Promise<Caller | undefined> {
    const caller = await this.#options.authenticator.authenticate(credentialsOf(call));
    if (!("refused" in caller)) return caller;
    this.#options.log.warn("xds stream refused", { address: call.peer.host, reason: caller.refused });
    return this.refuse(call, caller.unavailable ? "UNAVAILABLE" : "UNAUTHENTICATED", "authentication failure");
  }

  /** A stream that ends otherwise than by its client or a refusal counts no longer. */
  leave(call: GrpcCall): void {
    this.#calls.delete(call);
  }

  /** Ends a stream with a status other than OK. */
  refuse(call: GrpcCall, status: StatusName, details: string): undefined {
    this.leave(call);
    this.#refused.increment({ status });
    call.finish(status, details);
  }
}
