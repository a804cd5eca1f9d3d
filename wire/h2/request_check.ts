/** Judges the heads of HBONE messages: what RFC 9113 §8.3 and §8.5 ask, and which fields the mesh keeps (ZT-052 to ZT-060). */
import { copyBytes, equalsAscii } from "../bytes.ts";
import { fieldIsWell, isPseudo } from "./field_check.ts";
import { H2Error } from "./frame_rules.ts";
import { HeaderName } from "./header_names.ts";
import type { HeaderSink } from "./hpack_decoder.ts";

/** Takes a block that must be decoded though nobody wants it, so that the table stays in step. */
export const DISCARD: HeaderSink = { onHeader() {} };

const COMMA = 0x2c;
const MALFORMED = -H2Error.PROTOCOL_ERROR;
const METHOD = 1 << HeaderName.METHOD, AUTHORITY = 1 << HeaderName.AUTHORITY, SCHEME = 1 << HeaderName.SCHEME;
const PATH = 1 << HeaderName.PATH, PROTOCOL = 1 << HeaderName.PROTOCOL, STATUS = 1 << HeaderName.STATUS;
const REQUEST_PSEUDO = METHOD | AUTHORITY | SCHEME | PATH | PROTOCOL;

/** What both kinds of head have in common: order of the pseudo-headers, legal fields, and `baggage` joined by commas. */
abstract class Head implements HeaderSink {
  /** All `baggage` fields, joined by commas (ZT-056): `baggageBytes[0..baggageEnd)`. */
  readonly baggageBytes: Uint8Array;
  baggageEnd = 0;
  protected malformed = false;
  protected seenPseudo = 0;
  #sawRegular = false;
  readonly #allowedPseudo: number;

  constructor(headerListBytesMax: number, allowedPseudo: number) {
    this.baggageBytes = new Uint8Array(headerListBytesMax); // The list's limit counts 32 a field, so commas fit too.
    this.#allowedPseudo = allowedPseudo;
  }

  /** Forgets the last head. */
  begin(): void {
    this.baggageEnd = 0;
    this.malformed = false;
    this.seenPseudo = 0;
    this.#sawRegular = false;
  }

  onHeader(
    name: number,
    nameBytes: Uint8Array,
    nameStart: number,
    nameEnd: number,
    valueBytes: Uint8Array,
    valueStart: number,
    valueEnd: number,
  ): void {
    if (this.malformed) return;
    if (!fieldIsWell(name, nameBytes, nameStart, nameEnd, valueBytes, valueStart, valueEnd)) {
      this.malformed = true;
    } else if (isPseudo(name)) {
      // Pseudo-headers stand first, are known, and come once (RFC 9113 §8.3).
      const bit = 1 << name;
      if (this.#sawRegular || (this.#allowedPseudo & bit) === 0 || (this.seenPseudo & bit) !== 0) this.malformed = true;
      this.seenPseudo |= bit;
      this.onPseudo(name, valueBytes, valueStart, valueEnd);
    } else {
      this.#sawRegular = true;
      if (name === HeaderName.BAGGAGE) {
        if (this.baggageEnd > 0) this.baggageBytes[this.baggageEnd++] = COMMA;
        this.baggageEnd = copyBytes(this.baggageBytes, this.baggageEnd, valueBytes, valueStart, valueEnd);
      } else this.onRegular(name, valueBytes, valueStart, valueEnd);
    }
  }

  protected abstract onPseudo(name: number, bytes: Uint8Array, start: number, end: number): void;
  protected abstract onRegular(name: number, bytes: Uint8Array, start: number, end: number): void;
}

/**
 * Collects one request head. Give it to HpackDecoder.decode after `begin()`, then ask for the verdict. The fields it keeps
 * lie in its own bytes until the next `begin()`; start equal to end means absent. One per thread is enough.
 */
export class RequestHead extends Head {
  readonly bytes: Uint8Array;
  authorityStart = 0;
  authorityEnd = 0;
  forwardedStart = 0;
  forwardedEnd = 0;
  traceparentStart = 0;
  traceparentEnd = 0;
  networkStart = 0;
  networkEnd = 0;
  /** `x-forwarded-network` was there, if only empty: a network may have the empty name. */
  networkSaid = false;
  #used = 0;
  #connects = false;
  #pathIsEmpty = false;

  /** @param headerListBytesMax that of the decoder whose sink this is. */
  constructor(headerListBytesMax: number) {
    super(headerListBytesMax, REQUEST_PSEUDO);
    this.bytes = new Uint8Array(headerListBytesMax);
  }

  override begin(): void {
    super.begin();
    this.authorityStart =
      this.authorityEnd =
      this.forwardedStart =
      this.forwardedEnd =
        0;
    this.traceparentStart =
      this.traceparentEnd =
      this.networkStart =
      this.networkEnd =
        0;
    this.networkSaid = false;
    this.#used = 0;
    this.#connects = false;
    this.#pathIsEmpty = false;
  }

  /** 200: a CONNECT to go on with. 400: well formed, but not for us (ZT-060). -PROTOCOL_ERROR: malformed, reset the stream. */
  verdict(): 200 | 400 | typeof MALFORMED {
    if (this.malformed || (this.seenPseudo & METHOD) === 0) return MALFORMED;
    if (this.#connects) {
      // RFC 9113 §8.5; `:protocol` belongs to RFC 8441 §4, which we never announce.
      if ((this.seenPseudo & (SCHEME | PATH | PROTOCOL)) !== 0) return MALFORMED;
      return this.authorityStart === this.authorityEnd ? 400 : 200;
    }
    const whole = (this.seenPseudo & (SCHEME | PATH | PROTOCOL)) === (SCHEME | PATH) && !this.#pathIsEmpty;
    return whole ? 400 : MALFORMED; // RFC 9113 §8.3.1
  }

  protected override onPseudo(name: number, bytes: Uint8Array, start: number, end: number): void {
    if (name === HeaderName.METHOD) this.#connects = equalsAscii(bytes, start, end, "CONNECT");
    else if (name === HeaderName.PATH) this.#pathIsEmpty = start === end;
    else if (name === HeaderName.AUTHORITY && this.authorityEnd === 0) {
      this.authorityStart = this.#used;
      this.authorityEnd = this.#keep(bytes, start, end);
    }
  }

  protected override onRegular(name: number, bytes: Uint8Array, start: number, end: number): void {
    // Of a repeated field the first counts, so that nobody can append to what an earlier hop has said.
    if (name === HeaderName.FORWARDED && this.forwardedEnd === 0) {
      this.forwardedStart = this.#used;
      this.forwardedEnd = this.#keep(bytes, start, end);
    } else if (name === HeaderName.TRACEPARENT && this.traceparentEnd === 0) {
      this.traceparentStart = this.#used;
      this.traceparentEnd = this.#keep(bytes, start, end);
    } else if (name === HeaderName.X_FORWARDED_NETWORK && !this.networkSaid) {
      this.networkSaid = true;
      this.networkStart = this.#used;
      this.networkEnd = this.#keep(bytes, start, end);
    }
  }

  #keep(bytes: Uint8Array, start: number, end: number): number {
    return this.#used = copyBytes(this.bytes, this.#used, bytes, start, end);
  }
}

/** Collects one response head, as {@link RequestHead} does a request's. */
export class ResponseHead extends Head {
  #status = 0;

  /** @param headerListBytesMax that of the decoder whose sink this is. */
  constructor(headerListBytesMax: number) {
    super(headerListBytesMax, STATUS);
  }

  override begin(): void {
    super.begin();
    this.#status = 0;
  }

  /** The status, 100 to 599; below 200 another head follows. -PROTOCOL_ERROR: malformed, reset the stream (RFC 9113 §8.3.2). */
  verdict(): number {
    // 101 does not exist in HTTP/2 (RFC 9113 §8.6).
    return this.malformed || this.#status === 0 || this.#status === 101 ? MALFORMED : this.#status;
  }

  protected override onPseudo(_name: number, bytes: Uint8Array, start: number, end: number): void {
    let status = 0;
    for (let at = start; at < end && at < start + 3; at++) {
      const digit = bytes[at]! - 0x30;
      if (digit < 0 || digit > 9) this.malformed = true;
      status = status * 10 + digit;
    }
    if (end - start !== 3 || status < 100 || status > 599) this.malformed = true;
    this.#status = status;
  }

  protected override onRegular(): void {
    // Of a response the mesh reads nothing but the status and baggage.
  }
}
