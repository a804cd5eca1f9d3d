/** Counters, gauges and histograms of the agent's own, and their OpenMetrics text (ZT-191). */

export type Labels = Readonly<Record<string, string>>;

/** What a family may be asked for when it is made. */
export interface FamilyOptions {
  /** Without its last dot. Of metrics not promised to users it ends in `(unstable)` (ZT-192). */
  readonly help: string;
  /** Part of the name already; written as a UNIT line. */
  readonly unit?: string;
}

/** One metric with all its label sets. */
export interface Family {
  /** Appends the lines of this family; nothing if it has no sample (ZT-191). */
  write(lines: string[]): void;
}

/** A number that only grows. Its samples end in `_total`. */
export class Counter implements Family {
  readonly #name: string;
  readonly #options: FamilyOptions;
  readonly #values = new Map<string, number>();

  constructor(name: string, options: FamilyOptions) {
    this.#name = name;
    this.#options = options;
  }

  add(labels: Labels, amount = 1): void {
    const key = labelText(labels);
    this.#values.set(key, (this.#values.get(key) ?? 0) + amount);
  }

  write(lines: string[]): void {
    writeFamily(lines, this.#name, "counter", this.#options, () => {
      for (const [labels, value] of this.#values) lines.push(sample(`${this.#name}_total`, labels, value));
    }, this.#values.size);
  }
}

/** A number that goes up and down. */
export class Gauge implements Family {
  readonly #name: string;
  readonly #options: FamilyOptions;
  readonly #values = new Map<string, number>();

  constructor(name: string, options: FamilyOptions) {
    this.#name = name;
    this.#options = options;
  }

  set(labels: Labels, value: number): void {
    this.#values.set(labelText(labels), value);
  }

  add(labels: Labels, amount: number): void {
    const key = labelText(labels);
    this.#values.set(key, (this.#values.get(key) ?? 0) + amount);
  }

  write(lines: string[]): void {
    writeFamily(lines, this.#name, "gauge", this.#options, () => {
      for (const [labels, value] of this.#values) lines.push(sample(this.#name, labels, value));
    }, this.#values.size);
  }
}

interface Distribution {
  readonly counts: number[];
  count: number;
  sum: number;
}

/** How often values fell below each bound. */
export class Histogram implements Family {
  readonly #name: string;
  readonly #options: FamilyOptions;
  readonly #bounds: readonly number[];
  readonly #values = new Map<string, Distribution>();

  /** @param bounds upper bounds, ascending; infinity follows by itself. */
  constructor(name: string, options: FamilyOptions, bounds: readonly number[]) {
    this.#name = name;
    this.#options = options;
    this.#bounds = bounds;
  }

  observe(labels: Labels, value: number): void {
    const key = labelText(labels);
    let distribution = this.#values.get(key);
    if (distribution === undefined) {
      distribution = { counts: this.#bounds.map(() => 0), count: 0, sum: 0 };
      this.#values.set(key, distribution);
    }
    for (const [at, bound] of this.#bounds.entries()) if (value <= bound) distribution.counts[at]!++;
    distribution.count++;
    distribution.sum += value;
  }

  write(lines: string[]): void {
    writeFamily(lines, this.#name, "histogram", this.#options, () => {
      for (const [labels, { counts, count, sum }] of this.#values) {
        lines.push(sample(`${this.#name}_sum`, labels, sum), sample(`${this.#name}_count`, labels, count));
        const prefix = labels === "" ? "" : `${labels},`;
        for (const [at, bound] of this.#bounds.entries()) {
          lines.push(sample(`${this.#name}_bucket`, `${prefix}le="${bound}"`, counts[at]!));
        }
        lines.push(sample(`${this.#name}_bucket`, `${prefix}le="+Inf"`, count));
      }
    }, this.#values.size);
  }
}

/** A family that reads its samples where they are, each time it is written. */
export class ReadFamily implements Family {
  readonly #name: string;
  readonly #type: "counter" | "gauge";
  readonly #options: FamilyOptions;
  readonly #read: () => Iterable<readonly [labels: string, value: number]>;

  /** @param read label texts as {@link labelText} makes them, with their values. */
  constructor(
    name: string,
    type: "counter" | "gauge",
    options: FamilyOptions,
    read: () => Iterable<readonly [labels: string, value: number]>,
  ) {
    this.#name = name;
    this.#type = type;
    this.#options = options;
    this.#read = read;
  }

  write(lines: string[]): void {
    const samples = [...this.#read()], suffix = this.#type === "counter" ? "_total" : "";
    writeFamily(lines, this.#name, this.#type, this.#options, () => {
      for (const [labels, value] of samples) lines.push(sample(this.#name + suffix, labels, value));
    }, samples.length);
  }
}

/** All families of a role, in the order in which they were added. */
export class MetricsRegistry {
  readonly #families: Family[] = [];

  add<T extends Family>(family: T): T {
    this.#families.push(family);
    return family;
  }

  counter(name: string, options: FamilyOptions): Counter {
    return this.add(new Counter(name, options));
  }

  gauge(name: string, options: FamilyOptions): Gauge {
    return this.add(new Gauge(name, options));
  }

  histogram(name: string, options: FamilyOptions, bounds: readonly number[]): Histogram {
    return this.add(new Histogram(name, options, bounds));
  }

  /** The whole text, up to `# EOF`. */
  text(): string {
    const lines: string[] = [];
    for (const family of this.#families) family.write(lines);
    lines.push("# EOF", "");
    return lines.join("\n");
  }
}

/** `a="x",b="y"`, values escaped. */
export function labelText(labels: Labels): string {
  return Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`).join(",");
}

function escapeLabel(value: string): string {
  return value.replace(/[\\"\n]/g, (character) => character === "\n" ? "\\n" : `\\${character}`);
}

function sample(name: string, labels: string, value: number): string {
  return labels === "" ? `${name} ${value}` : `${name}{${labels}} ${value}`;
}

function writeFamily(
  lines: string[],
  name: string,
  type: string,
  options: FamilyOptions,
  writeSamples: () => void,
  sampleCount: number,
): void {
  if (sampleCount === 0) return;
  lines.push(`# HELP ${name} ${options.help}.`, `# TYPE ${name} ${type}`);
  if (options.unit !== undefined) lines.push(`# UNIT ${name} ${options.unit}`);
  writeSamples();
}
