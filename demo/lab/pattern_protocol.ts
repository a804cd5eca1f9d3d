/** The 16 bytes by which a client of the pattern load says what the connection will be. */

/** Every way that a connection goes; the number on the wire is the index. */
export const CONNECT_KINDS = ["short", "long", "upload", "bulk", "farewell", "leave", "thrown"] as const;
export type ConnectKind = (typeof CONNECT_KINDS)[number];

export interface Head {
  readonly kind: ConnectKind;
  /** Names the stream to the server; the one back has the next key. */
  readonly key: number;
  readonly bytes: number;
}

const HEAD_BYTES = 16, MAGIC = 0x414d4254;

export async function writeHead(connection: Deno.Conn, { kind, key, bytes }: Head): Promise<void> {
  const head = new DataView(new ArrayBuffer(HEAD_BYTES));
  [MAGIC, CONNECT_KINDS.indexOf(kind), key, bytes].forEach((word, index) => head.setUint32(index * 4, word));
  for (let at = 0; at < HEAD_BYTES;) at += await connection.write(new Uint8Array(head.buffer, at));
}

/** Reads it. Throws when the connection ends before, or begins otherwise. */
export async function readHead(connection: Deno.Conn): Promise<Head> {
  const bytes = new Uint8Array(HEAD_BYTES);
  for (let have = 0; have < HEAD_BYTES;) {
    const count = await connection.read(bytes.subarray(have));
    if (count === null) throw new Error("ended before its head was there");
    have += count;
  }
  const head = new DataView(bytes.buffer), kind = CONNECT_KINDS[head.getUint32(4)];
  if (head.getUint32(0) !== MAGIC || kind === undefined) throw new Error("begins with something else");
  return { kind, key: head.getUint32(8), bytes: head.getUint32(12) };
}
