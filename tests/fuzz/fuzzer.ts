/** Searches a target: changes inputs that it has, and keeps those that lead to something new. */
import { Chance } from "../sim/chance.ts";
import type { Target } from "./target.ts";

/** What one input may take; far above what any does, far below what would let a peer hold a worker up. */
export const INPUT_MS_MAX = 200;
const NUMBERS = [0, 1, 2, 7, 8, 0x0a, 0x0d, 0x20, 0x2c, 0x3a, 0x7e, 0x7f, 0x80, 0xc0, 0xfe, 0xff];
const CHANGES_MAX = 6;
/** More ends than this are not sorts but contents: a target's words are too many, and what is kept has its bound. */
const OUTCOMES_MAX = 150;
const SHRINK_RUNS_MAX = 400;

/** An input that broke a promise. */
export class Broken extends Error {
  override readonly name = "Broken";
  readonly input: Uint8Array;

  constructor(target: Target, input: Uint8Array, cause: unknown) {
    super(`${target.name}: ${cause instanceof Error ? cause.message : cause}\n  input: ${toHex(input)}`, { cause });
    this.input = input;
  }
}

export class Fuzzer {
  readonly target: Target;
  /** Words that were met, with the input that first led there. */
  readonly outcomes = new Map<string, Uint8Array>();
  inputCount = 0;
  readonly #chance: Chance;
  readonly #pool: Uint8Array[] = [];
  readonly #now: () => number;

  /** @param kept inputs of earlier searches. Throws Broken when one of them, or a seed, breaks a promise. */
  constructor(
    target: Target,
    seed: number,
    kept: readonly Uint8Array[] = [],
    now: () => number = () => performance.now(),
  ) {
    this.target = target;
    this.#chance = new Chance(seed);
    this.#now = now;
    for (const input of [...target.seeds, ...kept]) {
      this.#try(input);
      this.#pool.push(input);
    }
  }

  /** Tries one input. @returns Whether it led to something new. Throws Broken. */
  step(): boolean {
    const input = this.#change(this.#chance.pick(this.#pool));
    const fresh = this.#try(input);
    if (fresh) this.#pool.push(input);
    return fresh;
  }

  /** A shorter input that comes to the same end. */
  shrink(word: string, input: Uint8Array): Uint8Array {
    let best = input, left = SHRINK_RUNS_MAX;
    for (let chunk = Math.max(1, input.length >> 1); chunk >= 1; chunk >>= 1) {
      for (let at = 0; at < best.length && left > 0; left--) {
        const shorter = Uint8Array.from([...best.subarray(0, at), ...best.subarray(at + chunk)]);
        if (this.target.run(shorter.slice()) === word) best = shorter;
        else at += chunk;
      }
    }
    return best;
  }

  #try(input: Uint8Array): boolean {
    const given = input.slice(), startedMs = this.#now();
    this.inputCount++;
    let word: string;
    try {
      word = this.target.run(given);
    } catch (error) {
      throw new Broken(this.target, input, error);
    }
    if (this.#now() - startedMs > INPUT_MS_MAX) this.#takeTime(input);
    if (this.outcomes.has(word) || this.outcomes.size >= OUTCOMES_MAX) return false;
    this.outcomes.set(word, input);
    return true;
  }

  /** Slow once may be the machine; three times is the input. */
  #takeTime(input: Uint8Array): void {
    for (let again = 0; again < 2; again++) {
      const startedMs = this.#now();
      this.target.run(input.slice());
      if (this.#now() - startedMs <= INPUT_MS_MAX) return;
    }
    throw new Broken(this.target, input, new Error(`takes longer than ${INPUT_MS_MAX} ms`));
  }

  #change(input: Uint8Array): Uint8Array {
    const chance = this.#chance;
    let bytes = [...input];
    for (let left = chance.between(1, CHANGES_MAX); left > 0; left--) {
      const at = chance.below(bytes.length + 1), other = chance.pick(this.#pool);
      switch (chance.below(10)) {
        case 0:
          if (at < bytes.length) bytes[at]! ^= 1 << chance.below(8);
          break;
        case 1:
          if (at < bytes.length) bytes[at] = chance.pick(NUMBERS);
          break;
        case 2:
          if (at < bytes.length) bytes[at] = chance.below(256);
          break;
        case 3:
          bytes.splice(at, chance.between(1, 8));
          break;
        case 4:
          bytes.splice(at, 0, ...Array.from({ length: chance.between(1, 4) }, () => chance.pick(NUMBERS)));
          break;
        case 5:
          bytes = bytes.slice(0, at);
          break;
        case 6:
          bytes.splice(at, 0, ...bytes.slice(chance.below(bytes.length + 1)).slice(0, chance.between(1, 40)));
          break;
        case 7: { // The rest of another.
          const from = chance.below(other.length + 1);
          bytes = [...bytes.slice(0, at), ...other.subarray(from)];
          break;
        }
        case 8: {
          const words = this.target.words;
          if (words !== undefined) bytes.splice(at, chance.below(3), ...new TextEncoder().encode(chance.pick(words)));
          break;
        }
        default: // One again and again.
          if (at < bytes.length) bytes.splice(at, 0, ...Array<number>(chance.between(1, 300)).fill(bytes[at]!));
      }
    }
    return Uint8Array.from(bytes.slice(0, this.target.bytesMax));
  }
}

export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
