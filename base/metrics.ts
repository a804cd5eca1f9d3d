/** Counters, gauges and histograms of a role, written in the Prometheus text format 0.0.4. */

export type Labels = Readonly<Record<string, string>>;

interface Family {
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge" | "histogram";
  /** Lines without the family's name: `suffix{labels} value`. */
  samples(): Iterable<{ suffix: string; labels: Labels; value: number }>;
}

/** A number that only grows, per set of labels. */
export class Counter {
  readonly #values = new Map<string, { labels: Labels; value: number }>();

  increment(labels: Labels = {}, by = 1): void {
    this.series(labels).value += by;
  }

  /** What is counted under exactly these labels, to be counted up by whoever does it often. */
  series(labels: Labels): { value: number } {
    const key = formatLabels(labels);
    let entry = this.#values.get(key);
    if (entry === undefined) this.#values.set(key, entry = { labels, value: 0 });
    return entry;
  }

  /** What was counted under exactly these labels. */
  get(labels: Labels = {}): number {
    return this.#values.get(formatLabels(labels))?.value ?? 0;
  }

  *samples(): Iterable<{ suffix: string; labels: Labels; value: number }> {
    for (const { labels, value } of this.#values.values()) yield { suffix: "", labels, value };
  }
}

/** How often a value fell under each bound, per set of labels. */
export class Histogram {
  readonly #bounds: readonly number[];
  readonly #series = new Map<Labels, Series>();

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
  }

  /** @param labels one object for equal labels: its identity is the key. */
  observe(value: number, labels: Labels = NO_LABELS): void {
    let series = this.#series.get(labels);
    if (series === undefined) {
      this.#series.set(
        labels,
        series = { counts: this.#bounds.map(() => 0), sum: 0, count: 0 },
      );
    }
    for (let at = 0; at < this.#bounds.length; at++) if (value <= this.#bounds[at]!) series.counts[at]!++;
    series.sum += value;
    series.count++;
  }

  *samples(): Iterable<{ suffix: string; labels: Labels; value: number }> {
    for (const [labels, { counts, sum, count }] of this.#series) {
      for (const [at, bound] of this.#bounds.entries()) {
        yield { suffix: "_bucket", labels: { ...labels, le: String(bound) }, value: counts[at]! };
      }
      yield { suffix: "_bucket", labels: { ...labels, le: "+Inf" }, value: count };
      yield { suffix: "_sum", labels, value: sum };
      yield { suffix: "_count", labels, value: count };
    }
  }
}

const NO_LABELS: Labels = {};

interface Series {
  readonly counts: number[];
  sum: number;
  count: number;
}

/** The families of one role. */
export class Metrics {
  readonly #families: Family[] = [];

  /** A counter; without labels it is shown from the start, as 0. */
  counter(name: string, help: string, { labelled = false } = {}): Counter {
    const counter = new Counter();
    if (!labelled) counter.increment({}, 0);
    this.#families.push({ name, help, type: "counter", samples: () => counter.samples() });
    return counter;
  }

  /** A value read when it is asked for. */
  gauge(name: string, help: string, read: () => number | readonly (readonly [Labels, number])[]): void {
    const samples = () => {
      const now = read();
      const pairs = typeof now === "number" ? [[{}, now] as const] : now;
      return pairs.map(([labels, value]) => ({ suffix: "", labels, value }));
    };
    this.#families.push({ name, help, type: "gauge", samples });
  }

  histogram(name: string, help: string, bounds: readonly number[]): Histogram {
    const histogram = new Histogram(bounds);
    this.#families.push({ name, help, type: "histogram", samples: () => histogram.samples() });
    return histogram;
  }

  render(): string {
    let out = "";
    for (const { name, help, type, samples } of this.#families) {
      out += `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`;
      for (const { suffix, labels, value } of samples()) out += `${name}${suffix}${formatLabels(labels)} ${value}\n`;
    }
    return out;
  }
}

function formatLabels(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

function escapeLabel(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll('"', '\\"');
}
