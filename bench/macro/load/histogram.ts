/** Latencies counted in buckets: below 256 units exactly, above with an error under 1 %. */

const EXACT = 256, STEPS = 128; // 128 buckets for each doubling above 256: a step is at most 1/128 of the value.
const DOUBLINGS = 23; // up to 2^31 units, 35 minutes in microseconds

/** A fixed table of counts; recording allocates nothing. */
export class Histogram {
  readonly #counts = new Uint32Array(EXACT + STEPS * DOUBLINGS);
  #total = 0;
  #largest = 0;

  get total(): number {
    return this.#total;
  }

  /** The largest value recorded, exactly. */
  get largest(): number {
    return this.#largest;
  }

  /** Counts one value; negative ones count as zero. */
  record(value: number): void {
    const whole = value <= 0 ? 0 : value >= 0x7fffffff ? 0x7fffffff : Math.round(value);
    this.#counts[bucketOf(whole)]!++;
    this.#total++;
    if (whole > this.#largest) this.#largest = whole;
  }

  /** The smallest recorded bucket at or below which `fraction` of the values lie; 0 when there are none. */
  quantile(fraction: number): number {
    const rank = Math.max(1, Math.ceil(this.#total * fraction));
    let seen = 0;
    for (let bucket = 0; bucket < this.#counts.length; bucket++) {
      seen += this.#counts[bucket]!;
      if (this.#total > 0 && seen >= rank) return Math.min(valueOf(bucket), this.#largest);
    }
    return 0;
  }

  reset(): void {
    this.#counts.fill(0);
    this.#total = 0;
    this.#largest = 0;
  }
}

function bucketOf(value: number): number {
  if (value < EXACT) return value;
  const doubling = 31 - Math.clz32(value) - 8; // 0 for 256 to 511
  return EXACT + doubling * STEPS + ((value >>> (doubling + 1)) - STEPS);
}

/** The largest value that falls into a bucket. */
function valueOf(bucket: number): number {
  if (bucket < EXACT) return bucket;
  const doubling = Math.floor((bucket - EXACT) / STEPS), step = (bucket - EXACT) % STEPS;
  return (step + STEPS + 1) * 2 ** (doubling + 1) - 1;
}
