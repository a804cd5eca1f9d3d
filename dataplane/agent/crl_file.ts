/** The file of revocation lists (CRL_PATH): PEM with any number of them, or one in DER (ZT-087). */
import { MeshError } from "../../base/errors.ts";

/** As long as 300,000 revoked certificates take in PEM; ten times as much as a ConfigMap holds. */
export const CRL_FILE_BYTES_MAX = 16 << 20;
/** Lists in one file: each is looked through for its issuer's name. */
export const CRL_COUNT_MAX = 1024;

const DER_SEQUENCE = 0x30, DER_LONG_LENGTH = 0x80;
const BLOCK = /-----BEGIN ([A-Z0-9 ]+)-----([^-]*)-----END \1-----/g;
const BEGIN = /-----BEGIN /g;

function unreadable(path: string, why: string, cause?: unknown): MeshError {
  return new MeshError("AMB2407", `the revocation lists in ${path} cannot be read: ${why}`, {
    remedy: "put lists in PEM there, or one in DER, e.g. what `openssl ca -gencrl` writes",
    cause,
  });
}

/** @returns undefined if there is no such file. @throws MeshError AMB2407 */
export async function readCrlFile(path: string): Promise<Uint8Array<ArrayBuffer> | undefined> {
  try {
    using file = await Deno.open(path);
    const { size, isFile } = await file.stat();
    if (!isFile) throw unreadable(path, "it is no file");
    if (size > CRL_FILE_BYTES_MAX) throw unreadable(path, `it has more than ${CRL_FILE_BYTES_MAX} bytes`);
    const bytes = new Uint8Array(size + 1);
    let count = 0;
    while (count < bytes.length) {
      const got = await file.read(bytes.subarray(count));
      if (got === null) return bytes.slice(0, count);
      count += got;
    }
    throw unreadable(path, "it grows while it is read");
  } catch (cause) {
    if (cause instanceof MeshError) throw cause;
    if (cause instanceof Deno.errors.NotFound) return undefined;
    throw unreadable(path, "the system refuses", cause);
  }
}

/** The lists of a file, each in DER; blocks of other kinds are passed over. @throws MeshError AMB2407 */
export function splitCrlFile(bytes: Uint8Array<ArrayBuffer>, path: string): Uint8Array<ArrayBuffer>[] {
  if (bytes.length === 0) return [];
  if (bytes[0] === DER_SEQUENCE && bytes.length > 1 && bytes[1]! >= DER_LONG_LENGTH) return [bytes];
  const text = new TextDecoder("latin1").decode(bytes), lists: Uint8Array<ArrayBuffer>[] = [];
  let blocks = 0;
  for (const [, label, body] of text.matchAll(BLOCK)) {
    blocks++;
    if (label !== "X509 CRL") continue;
    if (lists.length === CRL_COUNT_MAX) throw unreadable(path, `it holds more than ${CRL_COUNT_MAX} lists`);
    try {
      lists.push(Uint8Array.fromBase64(body!));
    } catch (cause) {
      throw unreadable(path, `list ${lists.length + 1} is no base64`, cause);
    }
  }
  // A block without its end is a file that was cut short: what it would have revoked is not known.
  if (text.match(BEGIN)?.length !== blocks) {
    throw unreadable(path, blocks === 0 ? "it is neither" : "a block has no end");
  }
  return lists;
}
