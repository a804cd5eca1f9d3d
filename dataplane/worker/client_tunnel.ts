/** A stream that we ask an upstream for: what its CONNECT says, where it waits for a session, and what its answer means. */
import type { Fd } from "../../os/api.ts";
import { H2Error } from "../../wire/h2/frame_rules.ts";
import { statusText } from "../../wire/status_text.ts";
import { Direction, ResponseFlag } from "../tables/layout.ts";
import type { PoolEntry, Upstream } from "./hbone_pool.ts";
import type { Pod } from "./pod.ts";
import type { SessionEnd } from "./session.ts";
import type { Shard } from "./shard.ts";
import { Tunnel } from "./tunnel.ts";

/** What a CONNECT says (ZT-054). */
export interface ConnectTexts {
  readonly authority: string;
  readonly baggage: string;
  readonly forwarded: string;
  /** Of the application's connection, where it has several levels: the same on each (ZT-058). undefined: made when it is sent. */
  readonly traceparent?: string;
}

export abstract class ClientTunnel extends Tunnel {
  readonly route: Upstream;
  readonly baggage: string;
  readonly forwarded: string;
  readonly traceparent: string | undefined;
  /** `x-forwarded-network`; undefined: not said (ZT-054). */
  readonly forwardedNetwork: string | undefined = undefined;
  /** The upstream has answered the CONNECT. */
  answered = false;
  #entry: PoolEntry | null = null;

  constructor(shard: Shard, pod: Pod, row: number, fd: Fd, route: Upstream, texts: ConnectTexts) {
    super(shard, pod, row, Direction.OUTBOUND, fd);
    this.route = route;
    this.authority = texts.authority;
    this.baggage = texts.baggage;
    this.forwarded = texts.forwarded;
    this.traceparent = texts.traceparent;
  }

  /** In line for a session. */
  awaits(entry: PoolEntry): void {
    this.#entry = entry;
  }

  /** The answer to the CONNECT (ZT-059); its head lies in the shard's `responseHead`. */
  onAnswer(status: number, endStream: boolean): void {
    this.answered = true;
    if (status !== 200) {
      this.fail(H2Error.CANCEL, this.refusal(status));
      return;
    }
    this.up = true;
    this.onUp();
    if (this.closed) return;
    if (endStream) this.onEndReceived();
    if (!this.closed) this.resumeSoon();
  }

  /** What an answer other than 200 is called. */
  protected refusal(status: number): string {
    return `http status: ${statusText(status)}`;
  }

  /** Bytes flow from now on. */
  protected abstract onUp(): void;

  /** To ask and to be left without an answer is a failure of HTTP/2, as a reset in its place is (ZT-195). */
  protected override unansweredFlag(end: SessionEnd): number {
    return end.stage === "closed" || end.stage === "timeout" ? ResponseFlag.H2_HANDSHAKE_FAILURE : this.failedFlag(end);
  }

  onDialFailed(end: SessionEnd): void {
    this.#entry = null;
    const flag = end.stage === "timeout" && end.reason.startsWith("connection timed out")
      ? ResponseFlag.NETWORK_POLICY
      : this.failedFlag(end);
    this.end(flag, end.reason);
  }

  override leaveBehind(): void {
    if (this.#entry !== null && this.session === null) this.pod.pool.forget(this, this.#entry);
    this.#entry = null;
    super.leaveBehind();
  }

  override releaseResources(flag: number): void {
    if (this.#entry !== null && this.session === null) this.pod.pool.forget(this, this.#entry);
    this.#entry = null;
    super.releaseResources(flag);
  }
}
