/** Codec of Envoy's ClientConfig (client_status.proto): how far one client is with each type, as tools read it (CP-021). */
import { type DiscoveryNode, readNode, writeNode } from "./discovery_codec.ts";
import { type MessageReader, readMessage, RESOURCE_BYTES_MAX } from "./message_reader.ts";
import { MessageWriter } from "./message_writer.ts";

export const CLIENT_CONFIG_TYPE_URL = "type.googleapis.com/envoy.service.status.v3.ClientConfig";

export const ConfigStatus = { UNKNOWN: 0, SYNCED: 1, NOT_SENT: 2, STALE: 3, ERROR: 4 } as const;
export type ConfigStatus = (typeof ConfigStatus)[keyof typeof ConfigStatus];

/** One type that a client watches. */
export interface TypeStatus {
  readonly typeUrl: string;
  readonly status: ConfigStatus;
  /** When the last response went out; undefined before the first. */
  readonly lastUpdatedMs: number | undefined;
  /** Text of the last refusal; empty without one. */
  readonly error: string;
}

export interface ClientConfig {
  readonly node: DiscoveryNode;
  readonly types: readonly TypeStatus[];
}

export function encodeClientConfig({ node, types }: ClientConfig): Uint8Array {
  const writer = new MessageWriter();
  writer.message(1, node, writeNode);
  writer.messages(3, types, writeType);
  return writer.finish();
}

function writeType(writer: MessageWriter, { typeUrl, status, lastUpdatedMs, error }: TypeStatus): void {
  writer.text(1, typeUrl);
  if (lastUpdatedMs !== undefined) writer.message(5, lastUpdatedMs, writeTimestamp);
  writer.uint32(6, status);
  if (error === "") return;
  writer.message(8, { lastUpdatedMs, error }, (inner) => {
    if (lastUpdatedMs !== undefined) inner.message(2, lastUpdatedMs, writeTimestamp);
    inner.text(3, error);
  });
}

function writeTimestamp(writer: MessageWriter, ms: number): void {
  const seconds = Math.floor(ms / 1_000);
  writer.int64(1, seconds);
  writer.uint32(2, Math.round((ms - seconds * 1_000) * 1_000_000));
}

/** @throws WireFormatError */
export function decodeClientConfig(bytes: Uint8Array): ClientConfig {
  return readMessage(bytes, RESOURCE_BYTES_MAX, "ClientConfig", (reader) => {
    const types: TypeStatus[] = [];
    let node: DiscoveryNode = { id: "", metadata: {} };
    while (reader.next()) {
      if (reader.field === 1) node = reader.message(readNode);
      else if (reader.field === 3) types.push(reader.message(readType));
      else reader.skip();
    }
    return { node, types };
  });
}

function readType(reader: MessageReader): TypeStatus {
  let typeUrl = "", status: ConfigStatus = ConfigStatus.UNKNOWN, lastUpdatedMs: number | undefined, error = "";
  while (reader.next()) {
    if (reader.field === 1) typeUrl = reader.text();
    else if (reader.field === 5) lastUpdatedMs = reader.message(readTimestamp);
    else if (reader.field === 6) status = reader.enumeration("ConfigStatus", ConfigStatus.ERROR) as ConfigStatus;
    else if (reader.field === 8) error = reader.message(readFailure);
    else reader.skip();
  }
  return { typeUrl, status, lastUpdatedMs, error };
}

function readFailure(reader: MessageReader): string {
  let details = "";
  while (reader.next()) {
    if (reader.field === 3) details = reader.text();
    else reader.skip();
  }
  return details;
}

function readTimestamp(reader: MessageReader): number {
  let seconds = 0, nanos = 0;
  while (reader.next()) {
    if (reader.field === 1) seconds = reader.int64();
    else if (reader.field === 2) nanos = reader.int32();
    else reader.skip();
  }
  return seconds * 1_000 + nanos / 1_000_000;
}
