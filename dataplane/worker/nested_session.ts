/**
 * The inner session of double HBONE (ZT-046): an ordinary session over one end of a socket pair, whose other end a
 * {@link GatewayTunnel} joins to a stream of a session with the gateway. One a connection, used once.
 */
import { assert } from "../../base/assert.ts";
import type { Fd } from "../../os/api.ts";
import { ResponseFlag, WORKER } from "../tables/layout.ts";
import { UpstreamSession } from "./upstream_session.ts";
import type { ConnectTexts } from "./client_tunnel.ts";
import { GatewayTunnel } from "./gateway_tunnel.ts";
import type { Upstream } from "./hbone_pool.ts";
import type { Pod } from "./pod.ts";
import type { RemoteTunnel } from "./remote_tunnel.ts";
import { type SessionEnd, SessionPhase } from "./session.ts";
import type { Shard } from "./shard.ts";

export class NestedSession extends UpstreamSession {
  /** The peer's names, in order; empty before the handshake is through. */
  peerUris: readonly string[] = [];
  readonly #pod: Pod;
  readonly #tunnel: RemoteTunnel;
  readonly #identities: readonly string[];
  readonly #gateway: GatewayTunnel;
  #counted = false;
  /** The application's tunnel was given its stream, or told that it gets none: what happens to it is its stream's matter. */
  #begun = false;
  /** How the way to the gateway came to its end, if before the tunnel had begun. */
  #gatewayFlag: number = ResponseFlag.NONE;

  /** Takes over both ends of the pair. {@link start} follows. */
  constructor(
    shard: Shard,
    pod: Pod,
    tunnel: RemoteTunnel,
    pair: { readonly own: Fd; readonly gateway: Fd },
    route: { readonly gateway: Upstream; readonly identities: readonly string[]; readonly texts: ConnectTexts },
  ) {
    super(shard, pair.own);
    this.#pod = pod;
    this.#tunnel = tunnel;
    this.#identities = route.identities;
    this.#gateway = new GatewayTunnel(shard, pod, this, pair.gateway, route.gateway, route.texts);
    pod.pool.nested.add(this);
  }

  /** Asks the gateway for its stream. */
  start(): void {
    this.#gateway.start();
  }

  /** The gateway's stream is there: the peer behind it is greeted. */
  onGatewayUp(): void {
    if (!this.watch()) return;
    const tls = this.#pod.identity.tls; // Of now: a renewed certificate counts for what begins after it.
    if (tls === undefined) this.die({ reason: "the certificate is gone", stage: "identity" });
    else this.startHandshake(tls.connect(this.fd));
  }

  /** The gateway's stream has ended. @param error undefined: orderly, and what came before the end is still read. */
  onGatewayGone(flag: number, error: string | undefined): void {
    if (error === undefined) return;
    this.#gatewayFlag = flag;
    this.die({ reason: error, stage: flag === ResponseFlag.CERT_REVOKED ? "revoked" : "closed" });
  }

  /** The connection ended before it had a stream. */
  abandon(): void {
    if (!this.#begun) this.die({ reason: "the connection has ended", stage: "closed" });
  }

  protected override verify(uris: readonly string[]): string | undefined {
    this.peerUris = uris;
    return this.expect(this.#identities, uris);
  }

  protected override onOpen(): void {
    this.shard.count(WORKER.upstreamSessions, 1);
    this.#counted = true;
    this.#begun = true;
    if (!this.#tunnel.closed) this.open(this.#tunnel);
    if (this.tunnels.size === 0) this.onTunnelGone();
  }

  protected override onTunnelGone(): void {
    if (this.phase === SessionPhase.OPEN) this.closeGracefully({ reason: "the connection has ended", stage: "closed" });
  }

  protected override stopTaking(): void {} // Its one stream is there.

  override get transferable(): boolean {
    return false;
  }

  protected override onReleased(): void {
    assert(false, "a nested session is not handed over");
  }

  protected override onClosed(end: SessionEnd): void {
    if (this.#counted) this.shard.count(WORKER.upstreamSessions, -1);
    this.#pod.pool.nested.delete(this);
    if (!this.#gateway.closed) this.#gateway.runOut();
    if (!this.#begun && !this.#tunnel.closed) this.#tunnel.onNestedFailed(this.#gatewayFlag, end);
  }
}
