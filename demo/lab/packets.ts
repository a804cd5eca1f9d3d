/** Frames as a reader on the wire sees them: Ethernet, IPv4 or IPv6, TCP. Anything else is undefined. */

/** One TCP segment; `payload` is borrowed from the frame. */
export interface Segment {
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
  readonly sequence: number;
  readonly syn: boolean;
  readonly payload: Uint8Array<ArrayBuffer>;
}

const ETHERNET_HEADER_BYTES = 14;
const ETHERTYPE = { IPV4: 0x0800, IPV6: 0x86dd } as const;
const PROTOCOL_TCP = 6;
const TCP_SYN = 2;

/** Reads a frame. @returns undefined when it is no whole TCP segment over IP without IPv6 extension headers. */
export function readSegment(frame: Uint8Array<ArrayBuffer>): Segment | undefined {
  if (frame.length < ETHERNET_HEADER_BYTES) return undefined;
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const at = ETHERNET_HEADER_BYTES;
  switch (view.getUint16(12)) {
    case ETHERTYPE.IPV4: {
      if (frame.length < at + 20 || frame[at + 9] !== PROTOCOL_TCP) return undefined;
      const headerBytes = (frame[at]! & 15) * 4;
      const end = Math.min(frame.length, at + view.getUint16(at + 2));
      return readTcp(frame, at + headerBytes, end, ipv4(frame, at + 12), ipv4(frame, at + 16));
    }
    case ETHERTYPE.IPV6: {
      if (frame.length < at + 40 || frame[at + 6] !== PROTOCOL_TCP) return undefined;
      const end = Math.min(frame.length, at + 40 + view.getUint16(at + 4));
      return readTcp(frame, at + 40, end, ipv6(view, at + 8), ipv6(view, at + 24));
    }
    default:
      return undefined;
  }
}

function readTcp(
  frame: Uint8Array<ArrayBuffer>,
  at: number,
  end: number,
  source: string,
  destination: string,
): Segment | undefined {
  if (end < at + 20) return undefined;
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const payloadAt = at + (frame[at + 12]! >> 4) * 4;
  if (payloadAt > end) return undefined;
  return {
    source,
    sourcePort: view.getUint16(at),
    destination,
    destinationPort: view.getUint16(at + 2),
    sequence: view.getUint32(at + 4),
    syn: (frame[at + 13]! & TCP_SYN) !== 0,
    payload: frame.subarray(payloadAt, end),
  };
}

function ipv4(frame: Uint8Array, at: number): string {
  return `${frame[at]}.${frame[at + 1]}.${frame[at + 2]}.${frame[at + 3]}`;
}

/** All eight groups: unlike the usual short form, but enough to compare by prefix. */
function ipv6(view: DataView, at: number): string {
  return Array.from({ length: 8 }, (_, group) => view.getUint16(at + 2 * group).toString(16)).join(":");
}
