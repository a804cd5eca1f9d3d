/** A worker's connections as a successor needs them, written between two turns; and how they are let go afterwards. */
import type { IpWords } from "../../../base/address.ts";
import { encodeWorkloadAddress } from "../../../mesh/proto/workload_codec.ts";
import { formatIdentity } from "../../../mesh/identity.ts";
import type { Workload } from "../../../mesh/workload.ts";
import type { Fd, PeerPath } from "../../../os/api.ts";
import type { Field } from "../../../base/shm/layout.ts";
import { CLOSE_REQUESTED, CONNECTION, ConnectionState } from "../../tables/layout.ts";
import {
  type ConnectionState as ConnectionRecord,
  type RelayState,
  type SessionState,
  type TunnelState,
  WORKER_STATE_CODEC,
} from "../../tables/takeover_format.ts";
import type { Connection } from "../connection.ts";
import { ClientSession } from "../hbone_pool.ts";
import type { ServerSession } from "../inbound_hbone.ts";
import { OutboundTunnel } from "../outbound.ts";
import { Relay } from "../relay.ts";
import { SessionPhase } from "../session.ts";
import type { Shard } from "../shard.ts";
import { SocksNegotiation } from "../socks5_negotiation.ts";
import type { Tunnel } from "../tunnel.ts";
import { UndecidedConnection } from "../undecided.ts";

/** How much a worker hands over, and what it must keep. */
export interface TakeoverCounts {
  readonly sessions: number;
  readonly connections: number;
  /** Connections that end in this process: handshakes, negotiations, double HBONE, sessions of TLS 1.2, and streams that only their application reads. */
  readonly left: number;
  /** Of them, those that may become transferable soon. */
  readonly settling: number;
}

/** Everything of a shard that can be handed over, as it stands. Nothing of it may move until it is let go or thawed. */
export class Handover {
  readonly counts: TakeoverCounts;
  /** Descriptors; the state names them by their place in this list. They stay the shard's. */
  readonly handles: Fd[] = [];
  readonly #shard: Shard;
  readonly #sessions: (ClientSession | ServerSession)[] = [];
  readonly #waiting: OutboundTunnel[] = [];
  readonly #relays: Relay[] = [];
  readonly #workloads: Uint8Array[] = [];
  readonly #numberOf = new Map<Workload, number>();
  readonly #issuers: Uint8Array[] = [];
  readonly #issuerAt = new Map<string, number>();

  /** Only looks. */
  constructor(shard: Shard) {
    this.#shard = shard;
    let downstream = 0, handshakes = 0, undecided = 0;
    for (const pod of shard.pods.values()) {
      if (pod.own) {
        downstream += pod.sessions.size; // They end here: the successor has a listener of its own for newcomers.
        continue;
      }
      for (const session of pod.pool.sessions()) if (session.transferable) this.#sessions.push(session);
      for (const session of pod.sessions) {
        if (session.transferable) this.#sessions.push(session);
        else downstream++;
        if (session.phase === SessionPhase.HANDSHAKE) handshakes++;
      }
      for (const tunnel of pod.pool.waiting()) {
        if (tunnel instanceof OutboundTunnel && !tunnel.closed) this.#waiting.push(tunnel);
      }
    }
    for (let row = 0; row < shard.rows.limit; row++) {
      const connection = shard.rows.at(row);
      if (connection instanceof Relay && !connection.closed) this.#relays.push(connection);
      else if (connection instanceof SocksNegotiation || connection instanceof UndecidedConnection) undecided++;
    }
    let connections = this.#relays.length + this.#waiting.length;
    for (const session of this.#sessions) connections += session.tunnels.size;
    const left = shard.connectionCount - connections;
    this.counts = {
      sessions: this.#sessions.length,
      connections,
      left: left + downstream,
      settling: undecided + handshakes,
    };
  }

  /** The state as bytes, secrets included: whoever has written them on wipes them. */
  encode(): Uint8Array<ArrayBuffer> {
    const pods = [...this.#shard.pods.values()].filter((pod) => !pod.own);
    return WORKER_STATE_CODEC.encode({
      sessions: this.#sessions.map((session) => this.#session(session)),
      waiting: this.#waiting.map((tunnel) => this.#tunnel(tunnel)),
      relays: this.#relays.map((relay) => this.#relay(relay)),
      parked: pods.flatMap((pod) =>
        [...pod.parked].map(({ fd, kind, sinceMs }) => ({
          pod: pod.row,
          fd: this.#handle(fd),
          kind,
          waitedMs: Math.max(0, this.#shard.reactor.nowMs - sinceMs),
        }))
      ),
      listeners: pods.flatMap((pod) =>
        pod.listeners.map(({ fd, kind }) => ({ pod: pod.row, fd: this.#handle(fd), kind }))
      ),
      workloads: this.#workloads, // These last: sessions and connections have put them there.
      issuers: this.#issuers,
    });
  }

  /** Seals and sends what turns have left unsent, so that nothing of it is half written. */
  static settle(shard: Shard): void {
    for (const pod of shard.pods.values()) {
      for (const session of [...pod.pool.sessions()]) session.onFlush();
      for (const session of [...pod.sessions]) session.onFlush();
    }
    shard.reactor.flush();
  }

  /** Lets go of all of it without a byte to anybody: the successor owns it now. */
  release(): void {
    const shard = this.#shard;
    for (const session of this.#sessions) {
      for (const tunnel of session.tunnels.values()) tunnel.leaveBehind();
      session.release();
    }
    for (const tunnel of this.#waiting) tunnel.leaveBehind();
    for (const relay of this.#relays) relay.leaveBehind();
    for (const pod of shard.pods.values()) {
      shard.waiting.drop(pod);
      for (const listener of pod.listeners.splice(0)) listener.close();
      pod.pool.dropDials({ reason: "handed over", stage: "closed" });
    }
  }

  #handle(fd: Fd): number {
    return this.handles.push(fd) - 1;
  }

  #session(session: ClientSession | ServerSession): SessionState {
    const outbound = session instanceof ClientSession;
    return {
      ...session.exportSession(),
      pod: session.pod.row,
      fd: this.#handle(session.fd),
      peerPath: session.peerPath === null ? undefined : this.#path(session.peerPath),
      inbound: outbound ? undefined : session.exportInbound(),
      outbound: outbound ? session.exportOutbound() : undefined,
      tunnels: session.tunnels.values().map((tunnel) => this.#tunnel(tunnel)),
    };
  }

  #path(path: PeerPath): SessionState["peerPath"] {
    const { serial, negative, issuers } = path.exportPath();
    return { serial, negative, issuers: issuers.map((der) => this.#issuer(der)) };
  }

  /** Few certificates issue those of many peers. */
  #issuer(der: Uint8Array): number {
    const key = der.toHex(), known = this.#issuerAt.get(key);
    if (known !== undefined) return known;
    const at = this.#issuers.push(der) - 1;
    this.#issuerAt.set(key, at);
    return at;
  }

  #tunnel(tunnel: Tunnel): TunnelState {
    return { ...tunnel.exportTunnel(), connection: this.#connection(tunnel), fd: this.#handle(tunnel.fd) };
  }

  #relay(relay: Relay): RelayState {
    const { connected, downstream, upstream } = relay.exportRelay();
    return {
      connection: this.#connection(relay),
      connected,
      downstream: { ...downstream, fd: this.#handle(downstream.fd) },
      upstream: { ...upstream, fd: this.#handle(upstream.fd) },
    };
  }

  #connection(connection: Connection): ConnectionRecord {
    const { connections: table, flows } = this.#shard, { row, flow, facts } = connection;
    return {
      pod: connection.pod.row,
      direction: connection.direction,
      kind: table.get(row, CONNECTION.kind),
      open: table.load(row, CONNECTION.state) === ConnectionState.OPEN,
      closeRequested: (table.load(row, CONNECTION.control) & CLOSE_REQUESTED) !== 0,
      openedAtMs: table.getF64(row, CONNECTION.openedAtMs),
      receivedBytes: table.getF64(row, CONNECTION.receivedBytes),
      sentBytes: table.getF64(row, CONNECTION.sentBytes),
      source: this.#ip(row, CONNECTION.sourceIp),
      sourcePort: table.get(row, CONNECTION.sourcePort),
      destination: this.#ip(row, CONNECTION.destinationIp),
      destinationPort: table.get(row, CONNECTION.destinationPort),
      actual: this.#ip(row, CONNECTION.actualIp),
      actualPort: table.get(row, CONNECTION.actualPort),
      host: new TextDecoder().decode(
        table.readBytes(row, CONNECTION.host, table.get(row, CONNECTION.hostBytes)),
      ),
      authority: connection.authority,
      flow: flow < 0 ? undefined : flows.textOf(flow),
      facts: facts && {
        identityUri: facts.identity === undefined ? "" : formatIdentity(facts.identity),
        workload: this.#workload(facts.workload),
      },
    };
  }

  #ip(row: number, field: Field<"connection", "u32[]">): IpWords {
    const table = this.#shard.connections;
    return [
      table.getAt(row, field, 0),
      table.getAt(row, field, 1),
      table.getAt(row, field, 2),
      table.getAt(row, field, 3),
    ];
  }

  #workload(workload: Workload): number {
    let number = this.#numberOf.get(workload);
    if (number === undefined) {
      number = this.#workloads.push(encodeWorkloadAddress(workload)) - 1;
      this.#numberOf.set(workload, number);
    }
    return number;
  }
}
