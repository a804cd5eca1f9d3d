/** Answers that are compressed as the client asks for (RFC 9110 §12.5.3). */
import { brotliCompressSync, constants, gzipSync, zstdCompressSync } from "node:zlib";

/** By preference where the client has none: metrics are compressed at each scrape, so the cheap ones come first. */
const ENCODINGS: readonly (readonly [name: string, compress: (bytes: Uint8Array) => Uint8Array])[] = [
  ["gzip", (bytes) => gzipSync(bytes, { level: 4 })],
  ["zstd", (bytes) => zstdCompressSync(bytes)],
  ["br", (bytes) => brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 4 } })],
];
/** What is shorter goes as it is. */
const COMPRESSED_BYTES_MIN = 256;

/** The name of the encoding that an Accept-Encoding header likes best of ours; undefined: as it is. */
export function encodingFor(acceptEncoding: string): string | undefined {
  let best: string | undefined, bestWeight = 0;
  for (const [name] of ENCODINGS) {
    let weight: number | undefined, other = 0;
    for (const element of acceptEncoding.toLowerCase().split(",")) {
      const [coding, ...parameters] = element.split(";").map((part) => part.trim());
      const quality = parameters.find((parameter) => parameter.startsWith("q="));
      const given = quality === undefined ? 1 : Number(quality.slice(2)) || 0;
      if (coding === name) weight = given;
      else if (coding === "*") other = given;
    }
    if ((weight ?? other) > bestWeight) [best, bestWeight] = [name, weight ?? other];
  }
  return best;
}

/** The bytes in an encoding that {@link encodingFor} gave; those of a short text as they are. */
export function compress(bytes: Uint8Array<ArrayBuffer>, encoding: string): Uint8Array<ArrayBuffer> {
  const compressor = ENCODINGS.find(([name]) => name === encoding)?.[1];
  if (compressor === undefined || bytes.length < COMPRESSED_BYTES_MIN) return bytes;
  return new Uint8Array(compressor(bytes)); // Of its own: a pooled buffer may be larger than what it holds.
}
