/** SETTINGS: reading with its checks (RFC 9113 §6.5), and what both ends of HBONE announce. */
import { readUint16, readUint32 } from "../bytes.ts";
import { FrameFlag, H2Error, PAYLOAD_BYTES_MAX_DEFAULT, PAYLOAD_BYTES_MAX_LIMIT, Setting } from "./frame_rules.ts";

/** The greatest flow-control window (RFC 9113 §6.9.1). */
export const WINDOW_BYTES_LIMIT = 0x7fffffff;

/** The window that each stream and the connection start with (RFC 9113 §6.9.2). */
export const WINDOW_BYTES_DEFAULT = 65_535;

/** The HPACK table that each encoder starts with (RFC 9113 §6.5.2). */
const HEADER_TABLE_BYTES_DEFAULT = 4_096;

/** Takes settings one by one, in the order they came, already checked. Unknown ones come too and are to be ignored. */
export interface SettingSink {
  onSetting(identifier: number, value: number): void;
}

function checkSetting(identifier: number, value: number): H2Error {
  switch (identifier) {
    case Setting.ENABLE_PUSH:
    case Setting.ENABLE_CONNECT_PROTOCOL:
      return value <= 1 ? H2Error.NO_ERROR : H2Error.PROTOCOL_ERROR;
    case Setting.INITIAL_WINDOW_SIZE:
      return value <= WINDOW_BYTES_LIMIT ? H2Error.NO_ERROR : H2Error.FLOW_CONTROL_ERROR;
    case Setting.MAX_FRAME_SIZE:
      return value >= PAYLOAD_BYTES_MAX_DEFAULT && value <= PAYLOAD_BYTES_MAX_LIMIT
        ? H2Error.NO_ERROR
        : H2Error.PROTOCOL_ERROR;
    default:
      return H2Error.NO_ERROR;
  }
}

/**
 * Reads the payload of a SETTINGS frame, whose header has been checked. An acknowledgement has no payload.
 * @returns 0, or -H2Error that ends the connection; the sink may have seen settings before the broken one.
 */
export function readSettings(flags: number, bytes: Uint8Array, start: number, end: number, sink: SettingSink): number {
  if ((flags & FrameFlag.ACK) !== 0) return start === end ? 0 : -H2Error.FRAME_SIZE_ERROR;
  if ((end - start) % 6 !== 0) return -H2Error.FRAME_SIZE_ERROR;
  for (let at = start; at < end; at += 6) {
    const identifier = readUint16(bytes, at), value = readUint32(bytes, at + 2);
    const error = checkSetting(identifier, value);
    if (error !== H2Error.NO_ERROR) return -error;
    sink.onSetting(identifier, value);
  }
  return 0;
}

/** What the other side has announced; the defaults of RFC 9113 §6.5.2 until then. */
export class AnnouncedSettings implements SettingSink {
  headerTableBytes = HEADER_TABLE_BYTES_DEFAULT;
  pushAllowed = true;
  concurrentStreamsMax = 0xffffffff;
  initialWindowBytes = WINDOW_BYTES_DEFAULT;
  payloadBytesMax = PAYLOAD_BYTES_MAX_DEFAULT;
  headerListBytesMax = 0xffffffff;
  connectProtocol = false;
  /** Of all tables that were announced, whether one was smaller than the one that everybody begins with. */
  #tableShrank = false;
  #tableUpdateSaid = false;

  /**
   * Whether our next header block must begin by saying that we use no table. We never do; yet a peer that wants a smaller
   * one than usual waits to hear it, and takes anything else for an error (RFC 9113 §4.3.1).
   */
  get tableUpdateDue(): boolean {
    return (this.#tableShrank || this.headerTableBytes < HEADER_TABLE_BYTES_DEFAULT) && !this.#tableUpdateSaid;
  }

  /** A header block is on its way; it begins so if that was due. */
  blockBegan(): void {
    if (this.tableUpdateDue) this.#tableUpdateSaid = true;
  }

  onSetting(identifier: number, value: number): void {
    if (identifier === Setting.HEADER_TABLE_SIZE) {
      this.headerTableBytes = value;
      if (value < HEADER_TABLE_BYTES_DEFAULT) this.#tableShrank = true;
    } else if (identifier === Setting.ENABLE_PUSH) this.pushAllowed = value === 1;
    else if (identifier === Setting.MAX_CONCURRENT_STREAMS) this.concurrentStreamsMax = value;
    else if (identifier === Setting.INITIAL_WINDOW_SIZE) this.initialWindowBytes = value;
    else if (identifier === Setting.MAX_FRAME_SIZE) this.payloadBytesMax = value;
    else if (identifier === Setting.MAX_HEADER_LIST_SIZE) this.headerListBytesMax = value;
    else if (identifier === Setting.ENABLE_CONNECT_PROTOCOL) this.connectProtocol = value === 1;
  }
}

const STREAM_WINDOW_BYTES = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES = 16 * 1024 * 1024; // A multiple of the stream's, so one unread stream cannot block all.
const HBONE_PAYLOAD_BYTES_MAX = 1024 * 1024;

/** What the side that opens HBONE announces, in this order (ZT-061). */
export const HBONE_CLIENT_SETTINGS: readonly number[] = [
  Setting.ENABLE_PUSH,
  0,
  Setting.INITIAL_WINDOW_SIZE,
  STREAM_WINDOW_BYTES,
  Setting.MAX_FRAME_SIZE,
  HBONE_PAYLOAD_BYTES_MAX,
  Setting.MAX_HEADER_LIST_SIZE,
  16_384,
];

/** What the side that accepts HBONE announces, in this order (ZT-061). */
export const HBONE_SERVER_SETTINGS: readonly number[] = [
  Setting.MAX_CONCURRENT_STREAMS,
  200,
  Setting.INITIAL_WINDOW_SIZE,
  STREAM_WINDOW_BYTES,
  Setting.MAX_FRAME_SIZE,
  HBONE_PAYLOAD_BYTES_MAX,
  Setting.MAX_HEADER_LIST_SIZE,
  65_536,
];

/** What both then add to the connection's window, making it 16 MiB (ZT-061). */
export const HBONE_CONNECTION_WINDOW_GROWTH = CONNECTION_WINDOW_BYTES - WINDOW_BYTES_DEFAULT;

/** Receive window of an HBONE stream, as announced above. */
export const HBONE_STREAM_WINDOW_BYTES = STREAM_WINDOW_BYTES;

/** Receive window of an HBONE connection after its growth. */
export const HBONE_CONNECTION_WINDOW_BYTES = CONNECTION_WINDOW_BYTES;

/** Largest frame payload that HBONE ends take, as announced above. */
export const HBONE_FRAME_PAYLOAD_BYTES_MAX = HBONE_PAYLOAD_BYTES_MAX;
