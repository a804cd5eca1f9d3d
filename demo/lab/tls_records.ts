/** Follows one direction of a TCP connection and tells whether it is TLS records, and which version was agreed on. */

const HEADER_BYTES = 5;
const RECORD_BYTES_MAX = 16_384 + 256; // RFC 8446 §5.2
const TYPE = { CHANGE_CIPHER_SPEC: 20, ALERT: 21, HANDSHAKE: 22, APPLICATION_DATA: 23 } as const;
const SERVER_HELLO = 2, EXTENSION_SUPPORTED_VERSIONS = 43;
const HELLO_BYTES_MAX = 1_024;

/** Versions as they stand on the wire. */
export const TLS_1_3 = 0x0304;

/** State of one direction. Feed it the bytes in order. */
export class TlsRecords {
  recordCount = 0;
  /** Of application data records alone. */
  applicationRecordCount = 0;
  /** The version in a ServerHello; 0 when none was seen. */
  version = 0;
  /** Set for good when a byte did not fit. */
  broken = false;
  readonly #header = new Uint8Array(HEADER_BYTES);
  #headerHave = 0;
  #bodyLeft = 0;
  #hello: number[] | undefined;

  feed(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length && !this.broken;) {
      if (this.#bodyLeft > 0) {
        const count = Math.min(this.#bodyLeft, bytes.length - at);
        this.#collect(bytes.subarray(at, at + count));
        this.#bodyLeft -= count;
        at += count;
        if (this.#bodyLeft === 0) this.#finish();
        continue;
      }
      this.#header[this.#headerHave++] = bytes[at++]!;
      if (this.#headerHave === HEADER_BYTES) this.#start();
    }
  }

  #start(): void {
    this.#headerHave = 0;
    const [type, major, minor, high, low] = this.#header;
    const length = high! * 256 + low!;
    const known = type! >= TYPE.CHANGE_CIPHER_SPEC && type! <= TYPE.APPLICATION_DATA;
    // RFC 8446 §5.1: 0x0301 in a first ClientHello, 0x0303 in everything else.
    if (!known || major !== 3 || (minor !== 1 && minor !== 3) || length === 0 || length > RECORD_BYTES_MAX) {
      this.broken = true;
      return;
    }
    this.recordCount++;
    if (type === TYPE.APPLICATION_DATA) this.applicationRecordCount++;
    this.#bodyLeft = length;
    this.#hello = type === TYPE.HANDSHAKE && this.version === 0 ? [] : undefined;
  }

  #collect(bytes: Uint8Array): void {
    if (this.#hello === undefined || this.#hello.length >= HELLO_BYTES_MAX) return;
    for (const byte of bytes.subarray(0, HELLO_BYTES_MAX - this.#hello.length)) this.#hello.push(byte);
  }

  #finish(): void {
    if (this.#hello !== undefined && this.#hello[0] === SERVER_HELLO) this.version = agreedVersion(this.#hello);
    this.#hello = undefined;
  }
}

/** The version of a ServerHello: its supported_versions extension, or else its legacy field (RFC 8446 §4.1.3). */
function agreedVersion(hello: readonly number[]): number {
  const u16 = (at: number) => (hello[at] ?? 0) * 256 + (hello[at + 1] ?? 0);
  const legacy = u16(4);
  const sessionBytes = hello[38] ?? 0; // after type, length, version and 32 random bytes
  let at = 39 + sessionBytes + 3; // suite and compression
  const end = Math.min(hello.length, at + 2 + u16(at));
  for (at += 2; at + 4 <= end; at += 4 + u16(at + 2)) {
    if (u16(at) === EXTENSION_SUPPORTED_VERSIONS) return u16(at + 4);
  }
  return legacy;
}
