/** The one source of chance in a run, and the record of what it led to: the same seed gives the same run. */

/** Random numbers from a seed. */
export class Chance {
  #state: number;

  constructor(seed: number) {
    this.#state = Math.imul(seed + 1, 0x9e3779b1) | 0;
  }

  /** 32 random bits. */
  bits(): number {
    let value = (this.#state = (this.#state + 0x6d2b79f5) | 0);
    value = Math.imul(value ^ (value >>> 15), value | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return (value ^ (value >>> 14)) >>> 0;
  }

  /** 0 to `count - 1`. */
  below(count: number): number {
    return this.bits() % count;
  }

  between(from: number, to: number): number {
    return from + this.below(to - from + 1);
  }

  /** True in `percent` of all calls; may be a fraction. */
  often(percent: number): boolean {
    return this.bits() / 0x1_0000_0000 * 100 < percent;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  /** Orders a list anew, in place. */
  shuffle<T>(list: T[]): T[] {
    for (let at = list.length - 1; at > 0; at--) {
      const other = this.below(at + 1), value = list[at]!;
      list[at] = list[other]!;
      list[other] = value;
    }
    return list;
  }
}

const LINES_KEPT = 60;

/** What happened: everything goes into a hash, the last lines are kept to be read. */
export class Trace {
  hash = 0x811c9dc5 | 0;
  readonly lines: string[] = [];
  /** Written to as the run goes; undefined: nobody watches. */
  readonly #print: ((line: string) => void) | undefined;

  constructor(print?: (line: string) => void) {
    this.#print = print;
  }

  /** A system call or the like: numbers alone. */
  note(what: number, who: number, result: number): void {
    this.hash = Math.imul(this.hash ^ (what * 31 + who), 0x01000193);
    this.hash = Math.imul(this.hash ^ result, 0x01000193);
  }

  /** Something worth a line. */
  tell(line: string): void {
    for (let at = 0; at < line.length; at++) this.hash = Math.imul(this.hash ^ line.charCodeAt(at), 0x01000193);
    this.lines.push(line);
    if (this.lines.length > LINES_KEPT) this.lines.shift();
    this.#print?.(line);
  }
}

/** An invariant that does not hold. */
export class Violation extends Error {
  override readonly name = "Violation";
}

/** Ends the run when a claim does not hold. */
export function hold(condition: boolean, claim: string): asserts condition {
  if (!condition) throw new Violation(claim);
}
