/** A session that we opened, whatever carries it: tunnels begin in it, and answers to their CONNECTs arrive. */
import type { Fd } from "../../os/api.ts";
import { H2Error } from "../../wire/h2/frame_rules.ts";
import * as frames from "../../wire/h2/frame_writers.ts";
import { writeConnectBlock, writeNoTable } from "../../wire/h2/hpack_encoder.ts";
import { ResponseFlag } from "../tables/layout.ts";
import type { ClientTunnel } from "./client_tunnel.ts";
import { HboneSession, SessionPhase } from "./session.ts";
import type { Shard } from "./shard.ts";

export const STREAM_ID_REUSE_MAX = 0x3fffffff; // Half of all ids: the rest is for streams under way.

export abstract class UpstreamSession extends HboneSession {
  protected nextStreamId = 1;

  constructor(shard: Shard, fd: Fd) {
    super(shard, fd, null, false);
  }

  /** Whether one more tunnel may be opened (ZT-071); streams that ended free their place. */
  get hasRoom(): boolean {
    const limit = Math.min(this.shard.streamsPerSessionMax, this.announced.concurrentStreamsMax);
    return this.phase === SessionPhase.OPEN && !this.goingAway && this.tunnels.size < limit &&
      this.nextStreamId < STREAM_ID_REUSE_MAX;
  }

  /** Sends the CONNECT (ZT-052). */
  open(tunnel: ClientTunnel): void {
    const { shard } = this, block = shard.headerScratch, { authority, baggage, forwarded } = tunnel;
    const traceparent = tunnel.traceparent ?? shard.traceparent();
    const start = this.announced.tableUpdateDue ? writeNoTable(block, 0) : 0;
    const end = writeConnectBlock(block, start, authority, baggage, forwarded, traceparent, tunnel.forwardedNetwork);
    if (end < 0) {
      tunnel.end(ResponseFlag.CONNECT, "the request does not fit: a name in it is too long or not ASCII");
      return;
    }
    const streamId = this.nextStreamId;
    const at = this.reserveControl(end + 9);
    if (at < 0) {
      if (!tunnel.closed) tunnel.onDialFailed({ reason: "the session ended", stage: "closed" });
      return;
    }
    this.nextStreamId += 2;
    this.lastStreamId = streamId;
    this.attach(tunnel, streamId);
    this.announced.blockBegan();
    const target = this.controlTarget;
    this.commitControl(at, frames.writeHeaders(target, at, streamId, block, 0, end, false, 16_384));
  }

  /** The upstream must present one of these identities (ZT-085). @returns undefined, or why it is refused. */
  protected expect(accepted: readonly string[], uris: readonly string[]): string | undefined {
    if (uris.some((uri) => accepted.includes(uri))) return undefined;
    return `identity verification error: peer did not present the expected SAN (${accepted.join(", ")}), got ${
      uris.join(", ") || "none"
    }`;
  }

  override onHeaderBlock(
    streamId: number,
    endStream: boolean,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): number {
    if (streamId > this.lastStreamId || (streamId & 1) === 0) return H2Error.PROTOCOL_ERROR;
    const tunnel = this.tunnels.get(streamId) as ClientTunnel | undefined;
    if (tunnel === undefined || tunnel.answered) return this.takeTrailers(streamId, endStream, bytes, start, end);
    const head = this.shard.responseHead;
    head.begin();
    const result = this.decoder.decode(bytes, start, end, head);
    if (result < 0) return -result;
    const status = result > 0 ? -H2Error.PROTOCOL_ERROR : head.verdict();
    if (status < 0) tunnel.fail(H2Error.PROTOCOL_ERROR, "receive: a malformed response");
    else if (status >= 200) tunnel.onAnswer(status, endStream);
    else if (endStream) tunnel.fail(H2Error.PROTOCOL_ERROR, "receive: a stream that ends before its answer");
    else this.glitch(); // An interim answer; one in a while is fine.
    return 0;
  }

  protected override onGoaway(lastStreamId: number, error: number): void {
    for (const tunnel of this.tunnels.values()) {
      if (tunnel.streamId <= lastStreamId || tunnel.closed) continue;
      tunnel.onStreamReset(H2Error.REFUSED_STREAM);
    }
    if (this.phase !== SessionPhase.OPEN) return;
    if (this.tunnels.size === 0) {
      this.closeGracefully({ reason: `the peer went away (error ${error})`, stage: "closed" });
    }
  }
}
