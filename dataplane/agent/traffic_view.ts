/** `/traffic`: flows with their totals and open connections, for screens that show who talks to whom. */
import { formatSocketAddress } from "../../base/address.ts";
import type { Rows } from "../../base/shm/rows.ts";
import type { Tables } from "../tables/handles.ts";
import {
  CONNECTION,
  CONNECTION_KIND_NAMES,
  ConnectionState,
  Direction,
  RESPONSE_FLAG_NAMES,
  WORKER,
} from "../tables/layout.ts";
import type { Field } from "../../base/shm/layout.ts";
import type { FlowTotals } from "./flow_totals.ts";
import type { Pods } from "./pods.ts";

/** Plain data for JSON. Bytes are counted from the initiator's side. */
export function trafficView(tables: Tables, flows: FlowTotals, pods: Pods): unknown {
  const names = new Map(
    [...pods.list().values()].map(({ row, pod }) => [row, `${pod.info.namespace}/${pod.info.name}`]),
  );
  const connections = [];
  for (const [worker, rows] of tables.connections.entries()) {
    for (let row = 0; row < rows.rowCount; row++) {
      const state = rows.load(row, CONNECTION.state);
      if (state === ConnectionState.FREE) continue;
      connections.push({
        worker,
        open: state === ConnectionState.OPEN,
        pod: names.get(rows.getI32(row, CONNECTION.podRow)),
        direction: rows.get(row, CONNECTION.direction) === Direction.OUTBOUND ? "outbound" : "inbound",
        protocol: CONNECTION_KIND_NAMES[rows.get(row, CONNECTION.kind)],
        source: socketOf(rows, row, CONNECTION.sourceIp, rows.get(row, CONNECTION.sourcePort)),
        destination: socketOf(rows, row, CONNECTION.destinationIp, rows.get(row, CONNECTION.destinationPort)),
        actual: socketOf(rows, row, CONNECTION.actualIp, rows.get(row, CONNECTION.actualPort)),
        openedAtMs: rows.getF64(row, CONNECTION.openedAtMs),
        receivedBytes: rows.getF64(row, CONNECTION.receivedBytes),
        sentBytes: rows.getF64(row, CONNECTION.sentBytes),
      });
    }
  }
  return {
    flows: [...flows.series].map(({ label, opened, closed, receivedBytes, sentBytes }) => ({
      ...label,
      opened,
      closed: Object.fromEntries(
        closed.map((count, flag) => [RESPONSE_FLAG_NAMES[flag], count]).filter(([, it]) => it !== 0),
      ),
      receivedBytes,
      sentBytes,
    })),
    connections,
    workers: Array.from({ length: tables.workers.rowCount }, (_, worker) => ({
      turns: tables.workers.getF64(worker, WORKER.turns),
      load: tables.workers.load(worker, WORKER.load),
      accepted: tables.workers.getF64(worker, WORKER.accepted),
      handshakes: tables.workers.getF64(worker, WORKER.handshakes),
      handshakeFailures: tables.workers.getF64(worker, WORKER.handshakeFailures),
      glitches: tables.workers.getF64(worker, WORKER.glitches),
      upstreamSessions: tables.workers.getF64(worker, WORKER.upstreamSessions),
      downstreamSessions: tables.workers.getF64(worker, WORKER.downstreamSessions),
    })),
  };
}

function socketOf(rows: Rows<"connection">, row: number, field: Field<"connection", "u32[]">, port: number): string {
  const word = (at: number) => rows.getAt(row, field, at);
  return formatSocketAddress([word(0), word(1), word(2), word(3)], port);
}
