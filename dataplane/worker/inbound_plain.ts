/** Inbound plaintext: captured connections that came without HBONE, let through if policy allows (ZT section 5). */
import { formatIdentity } from "../../mesh/identity.ts";
import { addressName } from "../../mesh/partial_view.ts";
import { inboundService } from "../../mesh/service_label.ts";
import { CONNECTION, Direction, ResponseFlag } from "../tables/layout.ts";
import { refuseConnection, refuseRequest, reportOpened } from "./close.ts";
import { ListenerKind } from "./listener.ts";
import type { Pod } from "./pod.ts";
import { SocketUse } from "./pod_sockets.ts";
import { Relay } from "./relay.ts";
import type { Shard } from "./shard.ts";
import { serves } from "./shared_pod.ts";

/** Decides on an accepted connection whose source and destination stand in its row. Takes over the descriptor. */
export function acceptPlaintext(shard: Shard, pod: Pod, row: number, fd: number): void {
  const { connections, view } = shard, from = CONNECTION.sourceIp, to = CONNECTION.destinationIp;
  const source0 = connections.getAt(row, from, 0), source1 = connections.getAt(row, from, 1);
  const source2 = connections.getAt(row, from, 2), source3 = connections.getAt(row, from, 3);
  const word0 = connections.getAt(row, to, 0), word1 = connections.getAt(row, to, 1);
  const word2 = connections.getAt(row, to, 2), word3 = connections.getAt(row, to, 3);
  const port = connections.get(row, CONNECTION.destinationPort);
  shard.rows.setActual(row, word0, word1, word2, word3, port);
  if (shard.reservedPorts.includes(port)) {
    refuseConnection(shard, row, Direction.INBOUND, fd, "attempted recursive call to ourselves"); // ZT-101
    return;
  }
  if (pod.share !== null && !serves(pod.share, port, [word0, word1, word2, word3])) {
    refuseConnection(shard, row, Direction.INBOUND, fd, `port ${port} of this host is not the workload's`);
    return;
  }
  const local = view.localWorkload(pod.row);
  if (local === undefined) {
    shard.rows.release(row);
    shard.waiting.park(pod, fd, ListenerKind.PLAINTEXT);
    return;
  }
  const source = view.workloadAt(shard.network, source0, source1, source2, source3);
  if (source === undefined) shard.onDemand?.wish(addressName(shard.network, source0, source1, source2, source3));
  const service = inboundService(view, local, undefined, port);
  const flow = shard.flows.acquire(
    Direction.INBOUND,
    false,
    source,
    "",
    undefined,
    local,
    formatIdentity(local),
    undefined,
    service,
  );
  const verdict = shard.judge.verdictOn(row, local, undefined);
  if (!verdict.allowed) {
    shard.os.close(fd);
    refuseRequest(shard, row, flow, ResponseFlag.DENY, "", `connection closed due to policy rejection: ${verdict.by}`);
    return;
  }
  const preserved = pod.transparent ? [source0, source1, source2, source3] as const : undefined;
  const upstream = shard.sockets.connect(pod, word0, word1, word2, word3, port, preserved, SocketUse.APPLICATION);
  if (upstream < 0) {
    shard.os.close(fd);
    const error = `connect to the application failed (errno ${-upstream})`;
    refuseRequest(shard, row, flow, ResponseFlag.CONNECT, "", error);
    return;
  }
  const relay = new Relay(shard, pod, row, Direction.INBOUND, fd, upstream);
  relay.flow = flow;
  relay.facts = { workload: local, identity: undefined };
  shard.flows.countOpened(flow);
  reportOpened(relay);
  relay.start();
}
