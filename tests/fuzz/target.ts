/** What a fuzzed thing is: inputs that are in order, and a run that says what became of an input. */
import { assert } from "@std/assert";

export interface Target {
  readonly name: string;
  /** Well-formed inputs: where the search begins. */
  readonly seeds: readonly Uint8Array[];
  /** Longest input that is made. */
  readonly bytesMax: number;
  /** Pieces that the thing's language consists of. */
  readonly words?: readonly string[];
  /**
   * Gives the thing an input and holds it to its promises: what it throws is a failure. @returns What became of it, in a word
   * of few sorts: an input that brings a new word has reached new ground and is kept.
   */
  run(input: Uint8Array): string;
}

/** A promise that a run makes. */
export function promise(held: boolean, claim: string): asserts held {
  assert(held, claim);
}

/** Text of bytes, each byte one character: what headers and the like are read from. */
export function latin1(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

/** Bytes of text, as UTF-8. */
export function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** The first words of a message, without what is particular in it, so that equal reasons are one word. */
export function sort(message: string): string {
  const plain = message.replaceAll(/"[^"]*"|'[^']*'|`[^`]*`|[^A-Za-z ]+/g, " ");
  return plain.split(" ").filter((word) => word.length > 1).slice(0, 4).join(" ");
}

/** Sizes in few sorts. */
export function size(count: number): string {
  return count === 0 ? "0" : count === 1 ? "1" : count < 4 ? "few" : count < 64 ? "many" : "lots";
}

/** Which members say something, without what. */
export function shapeOf(value: unknown, depth = 0): string {
  if (value === undefined || value === null || value === "" || value === 0 || value === false) return "";
  if (value instanceof Uint8Array) return size(value.length);
  if (Array.isArray(value)) return `[${size(value.length)}]`;
  if (value instanceof Map) return `<${size(value.size)}>`;
  if (typeof value !== "object" || depth > 1) return "x";
  return Object.entries(value).map(([name, it]) => [name, shapeOf(it, depth + 1)]).filter(([, it]) =>
    it !== "" && it !== "[0]" && it !== "<0>"
  )
    .map(([name]) => name!.slice(0, 4)).join();
}
