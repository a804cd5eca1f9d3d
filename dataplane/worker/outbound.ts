/** From a captured connection to its way out: who sends, where to, and the tunnel or relay that carries it (ZT section 2). */
import { formatIp, formatSocketAddress, isLoopback } from "../../base/address.ts";
import { formatIdentity } from "../../mesh/identity.ts";
import { resolve } from "../../mesh/resolve.ts";
import type { AddressedRoute, DoubleHboneRoute, HboneRoute, HostnameRoute } from "../../mesh/route.ts";
import type { Workload } from "../../mesh/workload.ts";
import { formatForwarded } from "../../wire/forwarded.ts";
import { CONNECTION, ConnectionKind, Direction, ResponseFlag } from "../tables/layout.ts";
import { AnswerStatus, QuestionKind } from "../tables/questions.ts";
import { ClientTunnel } from "./client_tunnel.ts";
import { refuseConnection, refuseRequest, reportOpened } from "./close.ts";
import { ListenerKind } from "./listener.ts";
import type { OnDemand } from "./on_demand.ts";
import type { Pod } from "./pod.ts";
import { POLL_BOTH_EDGES } from "./reactor.ts";
import { Relay } from "./relay.ts";
import { UndecidedConnection } from "./undecided.ts";
import { RemoteTunnel } from "./remote_tunnel.ts";
import type { Shard } from "./shard.ts";
import { isRedirected } from "./shared_pod.ts";
import type { Tunnel } from "./tunnel.ts";

/** The application's side of an outbound tunnel. */
export class OutboundTunnel extends ClientTunnel {
  /** Starts watching the application; nothing is read before the upstream's 200. */
  start(): void {
    if (!this.watchApplication(POLL_BOTH_EDGES)) {
      this.end(ResponseFlag.CONNECT, "the kernel watches no more descriptors");
      return;
    }
    this.pod.pool.checkout(this);
  }

  protected override onUp(): void {
    this.markOpen();
  }

  /** As {@link start}, once watched: for a connection that another process had not found a session for. */
  startAgain(): void {
    this.pod.pool.checkout(this);
  }

  override exportTunnel(): ReturnType<Tunnel["exportTunnel"]> {
    const { ip, port, identities } = this.route, { answered, baggage, forwarded } = this;
    return { ...super.exportTunnel(), outbound: { answered, upstream: { ip, port, identities }, baggage, forwarded } };
  }
}

/** Who the connection is from and what it addressed, for the upstream (ZT-054). */
function forwardedOf(shard: Shard, row: number, route: HboneRoute | DoubleHboneRoute): string {
  const { connections } = shard, ip = CONNECTION.sourceIp;
  return formatForwarded(
    formatSocketAddress(
      [
        connections.getAt(row, ip, 0),
        connections.getAt(row, ip, 1),
        connections.getAt(row, ip, 2),
        connections.getAt(row, ip, 3),
      ],
      connections.get(row, CONNECTION.sourcePort),
    ),
    route.service?.hostname,
  );
}

/** Names that one connection may have to ask for: its destination, a waypoint, a gateway, and then some. */
const NAMES_ASKED_MAX = 8;

/**
 * Routes an accepted connection whose source and destination stand in its row. Takes over the descriptor.
 * @param asked how many names the agent was asked for on its behalf.
 */
export function routeOutbound(shard: Shard, pod: Pod, row: number, fd: number, asked = 0): void {
  const { connections } = shard, ip = CONNECTION.destinationIp;
  const word0 = connections.getAt(row, ip, 0), word1 = connections.getAt(row, ip, 1);
  const word2 = connections.getAt(row, ip, 2), word3 = connections.getAt(row, ip, 3);
  const port = connections.get(row, CONNECTION.destinationPort);
  if (isLoopback(word0, word1, word2, word3) && shard.reservedPorts.includes(port)) {
    refuseConnection(shard, row, Direction.OUTBOUND, fd, "attempted recursive call to ourselves"); // ZT-015
    return;
  }
  if (pod.share !== null && !isRedirected(shard, fd, word0, word1, word2, word3)) {
    refuseConnection(shard, row, Direction.OUTBOUND, fd, "the connection was made to the proxy itself");
    return;
  }
  const source = shard.view.localWorkload(pod.row);
  if (source === undefined) {
    shard.rows.release(row);
    shard.waiting.park(pod, fd, ListenerKind.OUTBOUND);
    return;
  }
  const { onDemand } = shard;
  onDemand?.view.begin();
  const view = onDemand === null ? shard.view : onDemand.view;
  const route = resolve(view, source, { network: shard.network, word0, word1, word2, word3, port }, shard.random);
  if (onDemand !== null && onDemand.view.missing !== "") {
    awaitName(shard, pod, row, fd, onDemand, asked);
    return;
  }
  if (route.kind === "refused") {
    shard.rows.setActual(row, word0, word1, word2, word3, port);
    refuseConnection(shard, row, Direction.OUTBOUND, fd, route.reason);
    return;
  }
  if (route.kind === "hostname") {
    shard.rows.setActual(row, word0, word1, word2, word3, port);
    awaitAddress(shard, pod, row, fd, route, source);
    return;
  }
  follow(shard, pod, row, fd, route, source);
}

/** Goes the way that was decided on. */
function follow(shard: Shard, pod: Pod, row: number, fd: number, route: AddressedRoute, source: Workload): void {
  const { connections } = shard;
  shard.rows.setActual(row, route.ip[0], route.ip[1], route.ip[2], route.ip[3], route.port);
  if (route.kind === "hbone" || route.kind === "doubleHbone") {
    startTunnel(shard, pod, row, fd, route, source);
    return;
  }
  const [ip0, ip1, ip2, ip3] = route.ip;
  const destination = route.kind === "tcp" ? route.workload : undefined;
  const service = route.kind === "tcp" ? route.service : undefined;
  const flow = shard.flows.acquire(
    Direction.OUTBOUND,
    false,
    source,
    "",
    undefined,
    destination,
    destination === undefined ? "" : formatIdentity(destination),
    undefined,
    service,
  );
  const upstream = shard.sockets.connect(pod, ip0, ip1, ip2, ip3, route.port, undefined);
  if (upstream < 0) { // It counts: where to was decided (ZT-196).
    shard.os.close(fd);
    const error = `connect to ${formatIp(ip0, ip1, ip2, ip3)} failed (errno ${-upstream})`;
    refuseRequest(shard, row, flow, ResponseFlag.CONNECT, "", error);
    return;
  }
  connections.set(row, CONNECTION.kind, ConnectionKind.TCP);
  const relay = new Relay(shard, pod, row, Direction.OUTBOUND, fd, upstream);
  relay.flow = flow;
  shard.countOpened(relay);
  reportOpened(relay);
  relay.start();
}

/** The decision was made without knowing what a name stands for: it is asked for, and the decision made again. */
function awaitName(shard: Shard, pod: Pod, row: number, fd: number, onDemand: OnDemand, asked: number): void {
  const name = onDemand.view.missing;
  if (asked >= NAMES_ASKED_MAX) {
    refuseConnection(shard, row, Direction.OUTBOUND, fd, `one name leads to the next, at last to ${name}`);
    return;
  }
  new UndecidedConnection(shard, pod, row, fd, {
    ask: (question) => onDemand.ask(question, name),
    decide({ status }) {
      if (status !== AnswerStatus.KNOWN) return `istiod has not said what ${name} is`;
      onDemand.settle(name);
      return () => routeOutbound(shard, pod, row, fd, asked + 1);
    },
    silence: `istiod has not said within 10 s what ${name} is`,
  }).start();
}

/** Only DNS can tell the address: the agent asks the node's resolver, and the way stays the one that was decided on (ZT-033). */
function awaitAddress(
  shard: Shard,
  pod: Pod,
  row: number,
  fd: number,
  route: HostnameRoute,
  source: Workload,
): void {
  const { uid, hostname } = route.workload, unresolved = `no ip addresses were resolved for workload: ${uid}`;
  new UndecidedConnection(shard, pod, row, fd, {
    ask: (question) => shard.questions.ask(question, QuestionKind.HOSTNAME, pod.row, route.wantsIpv4, hostname),
    decide({ status, word0, word1, word2, word3 }) {
      if (status !== AnswerStatus.KNOWN) return unresolved;
      const onward = route.onward([word0, word1, word2, word3]);
      if (isLoopback(word0, word1, word2, word3) && shard.reservedPorts.includes(onward.port)) {
        return "attempted recursive call to ourselves"; // DNS is not to lead us there either (ZT-006).
      }
      return () => follow(shard, pod, row, fd, onward, shard.view.localWorkload(pod.row) ?? source);
    },
    silence: unresolved,
  }).start();
}

function startTunnel(
  shard: Shard,
  pod: Pod,
  row: number,
  fd: number,
  route: HboneRoute | DoubleHboneRoute,
  source: Workload,
): void {
  const { identity } = pod;
  if (identity.tls === undefined && identity.failure === undefined) {
    shard.rows.release(row);
    shard.waiting.park(pod, fd, ListenerKind.OUTBOUND); // Until the first certificate (ZT-174).
    return;
  }
  const across = route.kind === "doubleHbone";
  shard.connections.set(row, CONNECTION.kind, across ? ConnectionKind.DOUBLE_HBONE : ConnectionKind.HBONE);
  const said = {
    authority: route.authority,
    baggage: shard.baggageOf(source),
    forwarded: forwardedOf(shard, row, route),
  };
  const tunnel = across
    ? new RemoteTunnel(shard, pod, row, fd, route, source, { ...said, traceparent: shard.traceparent() })
    : new OutboundTunnel(shard, pod, row, fd, route, said);
  tunnel.flow = shard.flows.acquire(
    Direction.OUTBOUND,
    true,
    source,
    identity.uri,
    undefined,
    route.workload,
    formatIdentity(route.workload),
    undefined,
    route.service,
  );
  if (!across) shard.countOpened(tunnel);
  if (identity.tls === undefined) {
    tunnel.end(ResponseFlag.IDENTITY_ERROR, identity.failure);
    return;
  }
  if (!across) reportOpened(tunnel);
  tunnel.start();
}
