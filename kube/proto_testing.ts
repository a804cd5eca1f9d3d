/** For tests: writes protobuf by field number, as an API server would. */

export type Piece = Uint8Array | string;

function bytesOf(piece: Piece): Uint8Array {
  return typeof piece === "string" ? new TextEncoder().encode(piece) : piece;
}

export function joined(...pieces: readonly Piece[]): Uint8Array {
  return new Uint8Array(pieces.flatMap((piece) => [...bytesOf(piece)]));
}

export function varint(value: bigint | number): Uint8Array {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  for (; rest >= 0x80n; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80);
  return new Uint8Array([...bytes, Number(rest)]);
}

/** A field of a number, or of what has a length. */
export function field(number: number, value: Piece | number | bigint | boolean): Uint8Array {
  if (typeof value === "string" || value instanceof Uint8Array) {
    const bytes = bytesOf(value);
    return joined(varint(number << 3 | 2), varint(bytes.length), bytes);
  }
  return joined(varint(number << 3), varint(typeof value === "boolean" ? Number(value) : value));
}

/** An object in its envelope. */
export function envelope(kind: string, raw: Uint8Array): Uint8Array {
  return joined("k8s\0", field(1, joined(field(1, "v1"), field(2, kind))), field(2, raw), field(3, ""), field(4, ""));
}

/** One event of a watch, with its length before it. */
export function frame(type: string, kind: string, raw: Uint8Array): Uint8Array {
  const event = joined(field(1, type), field(2, field(1, envelope(kind, raw))));
  return joined(new Uint8Array([event.length >>> 24, event.length >>> 16, event.length >>> 8, event.length]), event);
}

/** An object that has a name and a version, in namespace `n`, and what else. */
export function named(name: string, resourceVersion: string, ...more: readonly Piece[]): Uint8Array {
  return field(1, joined(field(1, name), field(3, "n"), field(6, resourceVersion), ...more));
}

/** A Status. */
export function statusBytes(code: number, reason: string): Uint8Array {
  return joined(field(2, "Failure"), field(3, `it says ${reason}`), field(4, reason), field(6, code));
}
