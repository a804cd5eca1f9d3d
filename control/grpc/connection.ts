/** One client's connection from its first byte to its last: greeting, keepalive, age, leave-taking (CP-008, CP-009). */
import { FRAME_HEADER_BYTES, H2Error, Setting } from "../../wire/h2/frame_rules.ts";
import * as frames from "../../wire/h2/frame_writers.ts";
import type { RequestFields } from "../../wire/h2/request_fields.ts";
import { WINDOW_BYTES_DEFAULT } from "../../wire/h2/settings.ts";
import type { Carrier, Peer } from "./carrier.ts";
import { ConnectionInput, HEADER_LIST_BYTES_MAX } from "./connection_input.ts";
import { CONNECTION_WINDOW_BYTES } from "./connection_output.ts";
import { type ServerStream, STREAM_WINDOW_BYTES } from "./server_stream.ts";

export interface ConnectionLimits {
  /** Calls that a client may have open. */
  readonly streamsMax: number;
  /** A client of which nothing was heard for so long is pinged; it may ping half as often as that. */
  readonly keepaliveIntervalMs: number;
  /** How long the answer may take. */
  readonly keepaliveTimeoutMs: number;
  /** After this long the client is asked to come anew; Infinity for never. */
  readonly ageMsMax: number;
  /** How long its calls may go on then. */
  readonly ageGraceMs: number;
  /** A response of which nothing could be sent for so long is given up. */
  readonly stallMsMax: number;
}

/** What a connection is part of. */
export interface ConnectionOwner {
  readonly limits: ConnectionLimits;
  onRequest(connection: Connection, stream: ServerStream, fields: RequestFields | undefined): void;
  /** A call was given up because its client took nothing of it. */
  onStalled(): void;
  /** It is over. Called once. @param byClient otherwise we ended it, for one of few reasons. */
  onClosed(connection: Connection, reason: string, byClient: boolean): void;
}

const GREETING_MS_MAX = 10_000; // from TLS to the client's SETTINGS: one round trip
const LEAVE_MS_MAX = 5_000; // for a client that does not answer the ping of a farewell
const LAST_WORDS_MS_MAX = 1_000; // for what was written to leave, and the client's own end, before the connection is cut
const KEEPALIVE_WORD = 1, FAREWELL_WORD = 2;
const PING_STRIKES_MAX = 2; // gRPC's own servers forgive two
const TOO_MANY_PINGS = "too_many_pings"; // what clients look for, to ping less often
const STREAM_ID_MAX = 0x7fffffff;

export class Connection extends ConnectionInput {
  readonly peer: Peer;
  readonly #owner: ConnectionOwner;
  readonly #openedAtMs: number;
  readonly #ageMsMax: number;
  #heardAtMs: number;
  /** When it was asked whether it lives, if it has said nothing since; otherwise 0. */
  #pingedAtMs = 0;
  #clientPingedAtMs = -Infinity;
  #clientPingProgress = 0;
  #pingStrikes = 0;
  /** When it was asked to leave; 0 if it was not. */
  #leavingSinceMs = 0;
  #leaveGraceMs = 0;
  #finalGoaway = false;
  #over = false;
  /** Why we have ended it, once we have. */
  #lastWords: string | undefined;
  /** When it said its last. */
  #endingSinceMs = 0;

  /** @param random from [0, 1): connections that came together do not all end together. */
  constructor(carrier: Carrier, peer: Peer, owner: ConnectionOwner, now: () => number, random: () => number) {
    super(carrier, now, owner.limits.streamsMax);
    this.peer = peer;
    this.#owner = owner;
    this.#openedAtMs = this.#heardAtMs = now();
    this.#ageMsMax = owner.limits.ageMsMax * (0.9 + 0.2 * random());
    this.#greet();
  }

  override receive(bytes: Uint8Array): void {
    if (this.ending) return;
    this.#heardAtMs = this.now();
    this.#pingedAtMs = 0; // Whatever it says, it lives.
    super.receive(bytes);
  }

  /** Asks the client to come anew: no call is refused that is on its way, and those there are may end within `graceMs`. */
  leave(graceMs: number): void {
    if (this.closed || this.#leavingSinceMs !== 0) return;
    this.#leavingSinceMs = this.now();
    this.#leaveGraceMs = graceMs;
    this.#sendGoaway(STREAM_ID_MAX, H2Error.NO_ERROR);
    this.sendControl(17, (target, at) => frames.writePing(target, at, 0, FAREWELL_WORD, false));
  }

  /** Looks at what is due. Called several times a second. */
  tick(): void {
    const nowMs = this.now(), { keepaliveIntervalMs, keepaliveTimeoutMs, stallMsMax, ageGraceMs } = this.#owner.limits;
    if (this.#over) return;
    if (this.ending) {
      if (nowMs - this.#endingSinceMs > LAST_WORDS_MS_MAX) this.die("it does not close");
      return;
    }
    if (!this.greeted && nowMs - this.#openedAtMs > GREETING_MS_MAX) return this.die("it says nothing");
    if (this.writingSinceMs !== 0 && nowMs - this.writingSinceMs > stallMsMax) return this.die("it does not read");
    if (this.#pingedAtMs === 0) {
      if (nowMs - this.#heardAtMs >= keepaliveIntervalMs) this.#ping(nowMs);
    } else if (nowMs - this.#pingedAtMs >= keepaliveTimeoutMs) return this.die("it answers no ping");
    if (this.#leavingSinceMs === 0 && nowMs - this.#openedAtMs >= this.#ageMsMax) this.leave(ageGraceMs);
    this.#giveUpStalled(nowMs, stallMsMax);
    if (this.#leavingSinceMs === 0) return;
    const leavingMs = nowMs - this.#leavingSinceMs;
    if (leavingMs >= this.#leaveGraceMs) this.fail(H2Error.NO_ERROR, "its time is up");
    else if (leavingMs > LEAVE_MS_MAX) this.#sayFarewell();
  }

  /** The carrier has ended, whoever ended it. */
  carrierClosed(reason: string): void {
    this.closed = true;
    this.#finish(this.#lastWords ?? reason, this.#lastWords === undefined);
  }

  override die(reason: string): void {
    if (this.#over) return;
    this.closed = true;
    this.carrier.destroy();
    this.#finish(this.#lastWords ?? reason, false);
  }

  protected override fail(error: number, reason: string): void {
    if (this.closed || this.ending) return;
    this.#sendGoaway(this.lastStreamId, error, reason === TOO_MANY_PINGS ? reason : "");
    this.#endWithLastWords(reason);
  }

  protected override onRequest(stream: ServerStream, fields: RequestFields): void {
    this.#owner.onRequest(this, stream, fields);
  }

  protected override onHeadTooLarge(stream: ServerStream): void {
    this.#owner.onRequest(this, stream, undefined);
  }

  protected override onPing(): void {
    const nowMs = this.now(), sent = this.framesSent;
    // What we sent lets a client measure its bandwidth by a ping, as gRPC's clients do.
    const early = nowMs - this.#clientPingedAtMs < this.#owner.limits.keepaliveIntervalMs / 2;
    if (sent !== this.#clientPingProgress) this.#pingStrikes = 0;
    else if (early) this.#pingStrikes++;
    this.#clientPingedAtMs = nowMs;
    this.#clientPingProgress = sent;
    if (this.#pingStrikes > PING_STRIKES_MAX) this.fail(H2Error.ENHANCE_YOUR_CALM, TOO_MANY_PINGS);
  }

  protected override onPingAnswered(word: number): void {
    if (word === FAREWELL_WORD && this.#leavingSinceMs !== 0) this.#sayFarewell();
  }

  protected override onStreamGone(): void {
    if (this.streams.size > 0 || this.closed) return;
    if (this.#finalGoaway || this.clientLeaves) this.#endWithLastWords("it has left");
  }

  #greet(): void {
    const pairs = [
      Setting.MAX_CONCURRENT_STREAMS,
      this.#owner.limits.streamsMax,
      Setting.INITIAL_WINDOW_SIZE,
      STREAM_WINDOW_BYTES,
      Setting.MAX_HEADER_LIST_SIZE,
      HEADER_LIST_BYTES_MAX,
    ];
    this.sendControl(FRAME_HEADER_BYTES + 3 * pairs.length, (target, at) => frames.writeSettings(target, at, pairs));
    const growth = CONNECTION_WINDOW_BYTES - WINDOW_BYTES_DEFAULT;
    this.receiveWindow += growth;
    this.openWindow(0, growth);
  }

  #ping(nowMs: number): void {
    this.#pingedAtMs = nowMs;
    this.sendControl(17, (target, at) => frames.writePing(target, at, 0, KEEPALIVE_WORD, false));
  }

  /** From here on streams that the client opens are not looked at: it knows, and has answered since. */
  #sayFarewell(): void {
    if (this.#finalGoaway) return;
    this.#finalGoaway = true;
    this.lastStreamIdTaken = this.lastStreamId;
    this.#sendGoaway(this.lastStreamId, H2Error.NO_ERROR);
    this.onStreamGone();
  }

  #sendGoaway(lastStreamId: number, error: number, debugData = ""): void {
    const bytes = new TextEncoder().encode(debugData);
    this.sendControl(
      FRAME_HEADER_BYTES + 8 + bytes.length,
      (target, at) => frames.writeGoaway(target, at, lastStreamId, error, bytes),
    );
  }

  /** No call goes on; what is in line leaves, and then the carrier ends. */
  #endWithLastWords(reason: string): void {
    if (this.ending) return;
    this.ending = true;
    this.#endingSinceMs = this.now();
    this.#lastWords = reason;
    this.#loseStreams(reason);
    this.endAfterFlush();
  }

  #giveUpStalled(nowMs: number, stallMsMax: number): void {
    for (const stream of this.streams.values()) {
      if (!stream.waiting || nowMs - stream.progressAtMs <= stallMsMax) continue;
      const { sink } = stream;
      stream.reset(H2Error.CANCEL);
      sink?.onGone("it does not read");
      this.#owner.onStalled();
    }
  }

  #loseStreams(reason: string): void {
    for (const stream of [...this.streams.values()]) {
      stream.abandon();
      this.forget(stream);
      stream.sink?.onGone(reason);
    }
  }

  #finish(reason: string, byClient: boolean): void {
    if (this.#over) return;
    this.#over = true;
    this.#loseStreams(reason);
    this.#owner.onClosed(this, reason, byClient);
  }
}
