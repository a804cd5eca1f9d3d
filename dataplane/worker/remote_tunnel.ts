/** A connection to another network, by double HBONE (ZT-044 to ZT-047): the application's side of it. */
import type { Fd } from "../../os/api.ts";
import { parseIdentity } from "../../mesh/identity.ts";
import type { DoubleHboneRoute } from "../../mesh/route.ts";
import type { Workload } from "../../mesh/workload.ts";
import { parseBaggage } from "../../wire/baggage.ts";
import { Direction, ResponseFlag } from "../tables/layout.ts";
import { ClientTunnel, type ConnectTexts } from "./client_tunnel.ts";
import { reportOpened } from "./close.ts";
import { textOf } from "./header_text.ts";
import { NestedSession } from "./nested_session.ts";
import type { Pod } from "./pod.ts";
import { POLL_BOTH_EDGES } from "./reactor.ts";
import type { SessionEnd } from "./session.ts";
import type { Shard } from "./shard.ts";

export class RemoteTunnel extends ClientTunnel {
  override readonly forwardedNetwork: string;
  readonly #across: DoubleHboneRoute;
  readonly #source: Workload;
  readonly #texts: ConnectTexts;
  #nested: NestedSession | null = null;
  /** Counted as opened: once it is known who serves it, or that nobody does. */
  #counted = false;

  constructor(
    shard: Shard,
    pod: Pod,
    row: number,
    fd: Fd,
    route: DoubleHboneRoute,
    source: Workload,
    texts: ConnectTexts,
  ) {
    super(shard, pod, row, fd, route, texts);
    this.forwardedNetwork = shard.network;
    this.#across = route;
    this.#source = source;
    this.#texts = texts;
  }

  /** Starts watching the application, and on its way to the gateway; nothing is read before the inner 200. */
  start(): void {
    if (!this.watchApplication(POLL_BOTH_EDGES)) {
      this.end(ResponseFlag.CONNECT, "the kernel watches no more descriptors");
      return;
    }
    const { shard, pod } = this, own = shard.sockets.openPair(pod);
    if (own < 0) {
      this.end(ResponseFlag.CONNECT, `no socket pair for the inner session (errno ${-own})`);
      return;
    }
    this.#nested = new NestedSession(shard, pod, this, { own, gateway: shard.os.addressWords[0]! }, {
      gateway: this.#across,
      identities: this.#across.innerIdentities,
      texts: this.#texts,
    });
    this.#nested.start();
  }

  /** Whoever answered tells who it is, and its certificate who it may be: both replace what we knew (ZT-047). */
  protected override onUp(): void {
    const { shard, pod } = this, head = shard.responseHead;
    const identity = this.#nested!.peerUris.find((uri) => parseIdentity(uri) !== undefined) ?? "";
    const before = this.flow;
    this.flow = shard.flows.acquire(
      Direction.OUTBOUND,
      true,
      this.#source,
      pod.identity.uri,
      undefined,
      undefined,
      identity,
      parseBaggage(textOf(head.baggageBytes, 0, head.baggageEnd)),
      this.#across.service,
    );
    shard.flows.release(before);
    this.markOpen();
    this.#countOpened();
  }

  /** The inner session is gone, and its stream had not begun. */
  onNestedFailed(gatewayFlag: number, end: SessionEnd): void {
    if (gatewayFlag === ResponseFlag.NONE) this.onDialFailed(end);
    else this.end(gatewayFlag, end.reason);
  }

  #countOpened(): void {
    if (this.#counted) return;
    this.#counted = true;
    this.shard.countOpened(this);
    reportOpened(this);
  }

  override end(flag: number, error: string | undefined): void {
    this.#countOpened(); // Under the gateway's name, if it came to nothing.
    super.end(flag, error);
  }

  override releaseResources(flag: number): void {
    super.releaseResources(flag);
    this.#nested?.abandon();
  }
}
