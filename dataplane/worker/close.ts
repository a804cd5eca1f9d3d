/** The one place where connections end: resources, counters, one access record, in this order. */
import { CONNECTION, ResponseFlag } from "../tables/layout.ts";
import { AccessKind } from "../tables/access.ts";
import type { Connection } from "./connection.ts";
import type { Shard } from "./shard.ts";

/** Ends a connection. @param error undefined for an orderly end; else the text of the access log. */
export function endConnection(connection: Connection, flag: number, error: string | undefined): void {
  const { shard, row, flow } = connection;
  connection.closed = true;
  connection.releaseResources(flag);
  if (flow >= 0) shard.flows.countClosed(flow, flag);
  writeRecord(shard, connection, flow < 0 ? AccessKind.EARLY : AccessKind.COMPLETE, flag, error);
  if (flow >= 0) shard.flows.release(flow);
  shard.rows.disown(connection);
  shard.rows.release(row);
}

/** Ends a connection that never got an owner: its descriptor is closed, and the failure logged (ZT-205). */
export function refuseConnection(shard: Shard, row: number, direction: number, fd: number, error: string): void {
  shard.os.close(fd);
  const access = shard.access;
  access.begin(AccessKind.EARLY, direction, -1, 0, ResponseFlag.CONNECT);
  writeAddresses(shard, row);
  access.error(error);
  access.push();
  shard.rows.release(row);
}

/**
 * Counts and logs a connection whose destination was decided but which policy or the application refused; it never
 * carried a byte. The caller has answered the downstream. Releases row and flow.
 */
export function refuseRequest(
  shard: Shard,
  row: number,
  flow: number,
  flag: number,
  authority: string,
  error: string,
): void {
  const { access, flows } = shard;
  flows.countOpened(flow);
  flows.countClosed(flow, flag);
  access.begin(AccessKind.COMPLETE, shard.connections.get(row, CONNECTION.direction), flow, flows.epochOf(flow), flag);
  writeAddresses(shard, row);
  if (authority !== "") access.authorityText(authority);
  access.error(error);
  access.push();
  flows.release(flow);
  shard.rows.release(row);
}

/** Tells of a connection that was just counted (ZT-204), while someone wants to know. */
export function reportOpened(connection: Connection): void {
  if (!connection.shard.reportsOpened) return;
  writeRecord(connection.shard, connection, AccessKind.OPENED, ResponseFlag.NONE, undefined);
}

function writeRecord(
  shard: Shard,
  connection: Connection,
  kind: number,
  flag: number,
  error: string | undefined,
): void {
  const { access, connections, flows } = shard, { row, flow } = connection;
  access.begin(kind, connection.direction, flow, flow < 0 ? 0 : flows.epochOf(flow), flag);
  writeAddresses(shard, row);
  access.amounts(
    connections.getF64(row, CONNECTION.receivedBytes),
    connections.getF64(row, CONNECTION.sentBytes),
    shard.unixNowMs() - connections.getF64(row, CONNECTION.openedAtMs),
  );
  if (connection.authority !== "") access.authorityText(connection.authority);
  if (error !== undefined) access.error(error);
  access.push();
}

function writeAddresses(shard: Shard, row: number): void {
  const { access, connections } = shard;
  const source = CONNECTION.sourceIp, actual = CONNECTION.actualIp;
  access.source(
    connections.getAt(row, source, 0),
    connections.getAt(row, source, 1),
    connections.getAt(row, source, 2),
    connections.getAt(row, source, 3),
    connections.get(row, CONNECTION.sourcePort),
  );
  access.destination(
    connections.getAt(row, actual, 0),
    connections.getAt(row, actual, 1),
    connections.getAt(row, actual, 2),
    connections.getAt(row, actual, 3),
    connections.get(row, CONNECTION.actualPort),
  );
}
