/** Collects the head of an ordinary request, all of its fields as text (RFC 9113 §8.3.1). */
import { fieldIsWell, isPseudo } from "./field_check.ts";
import { HeaderName } from "./header_names.ts";
import type { HeaderSink } from "./hpack_decoder.ts";

const NONE: readonly string[] = Object.freeze([]);

/** One head, bounded by the decoder's limit of a header list. Give it to HpackDecoder.decode, then ask whether it is malformed. */
export class RequestFields implements HeaderSink {
  readonly #values = new Map<string, string[]>();
  #broken = false;
  #regular = false;

  /** Whether RFC 9113 §8.3 forbids it: order and number of the pseudo-headers, octets of a field, or what no request lacks. */
  get malformed(): boolean {
    return this.#broken || this.first(":method") === undefined || this.first(":scheme") === undefined ||
      (this.first(":path") ?? "") === "";
  }

  /** All values of a field, in their order. @param name in lower case. */
  all(name: string): readonly string[] {
    return this.#values.get(name) ?? NONE;
  }

  /** The first value of a field; undefined if it is not there. */
  first(name: string): string | undefined {
    return this.#values.get(name)?.[0];
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
    if (this.#broken) return;
    const text = latin1(nameBytes, nameStart, nameEnd), known = this.#values.get(text);
    if (!fieldIsWell(name, nameBytes, nameStart, nameEnd, valueBytes, valueStart, valueEnd)) this.#broken = true;
    else if (isPseudo(name)) {
      const taken = name <= HeaderName.PATH; // `:status`, `:protocol` and unknown ones are no request's.
      if (this.#regular || known !== undefined || !taken) this.#broken = true;
    } else this.#regular = true;
    const value = latin1(valueBytes, valueStart, valueEnd);
    if (known === undefined) this.#values.set(text, [value]);
    else known.push(value);
  }
}

function latin1(bytes: Uint8Array, start: number, end: number): string {
  let text = "";
  while (start < end) text += String.fromCharCode(bytes[start++]!);
  return text;
}
