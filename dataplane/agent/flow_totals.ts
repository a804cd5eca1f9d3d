/** What the workers' flow rows add up to, kept beyond the life of a row: rows are few and reused, totals only grow. */
import type { Rows } from "../../base/shm/rows.ts";
import { AccessReader, type AccessRecord } from "../tables/access.ts";
import { type FlowLabel, parseFlowLabel } from "../tables/flow_label.ts";
import type { Tables } from "../tables/handles.ts";
import { FLOW, FlowState, RESPONSE_FLAG_NAMES } from "../tables/layout.ts";

const FLAG_COUNT = RESPONSE_FLAG_NAMES.length;
const SERIES_MAX = 200_000; // some 300 MiB; a scraper gives up before
/** A scraper has seen a total that stood still for so long; Prometheus itself looks no further back. */
const GONE_AFTER_MS = 5 * 60_000;

/** The totals of one set of traffic labels. */
export interface FlowSeries {
  readonly label: FlowLabel;
  opened: number;
  /** By ResponseFlag. */
  readonly closed: number[];
  receivedBytes: number;
  sentBytes: number;
}

interface KeptSeries extends FlowSeries {
  changedAtMs: number;
}

/** What was seen of a row last, so that only what came since is added. */
interface SeenRow {
  readonly epoch: number;
  /** Both undefined from when the series was forgotten until something is counted in it again. */
  label: FlowLabel | undefined;
  series: KeptSeries | undefined;
  opened: number;
  readonly closed: number[];
  receivedBytes: number;
  sentBytes: number;
}

/** Called for each access record, with the label of its flow unless it was never counted. */
export type OnRecord = (record: AccessRecord, label: FlowLabel | undefined) => void;

/** The agent's end of all flow tables and access rings. */
export class FlowTotals {
  readonly #tables: Tables;
  readonly #readers: readonly AccessReader[];
  readonly #seen: (SeenRow | undefined)[][];
  readonly #series = new Map<string, KeptSeries>();
  readonly #seriesMax: number;
  readonly #now: () => number;
  readonly #decoder = new TextDecoder();

  /** @param seriesMax past it, flows of new labels are added to the series of their reporter whose labels are all unknown. */
  constructor(tables: Tables, seriesMax = SERIES_MAX, now = () => performance.now()) {
    this.#tables = tables;
    this.#seriesMax = seriesMax;
    this.#now = now;
    this.#readers = tables.flows.map((_, worker) => new AccessReader(tables.handles, worker));
    this.#seen = tables.flows.map((rows) => new Array<SeenRow | undefined>(rows.rowCount).fill(undefined));
  }

  /** In the order in which they first appeared. */
  get series(): Iterable<FlowSeries> {
    return this.#series.values();
  }

  /** Access records lost to full rings, all workers together. */
  get droppedRecords(): number {
    return this.#readers.reduce((sum, reader) => sum + reader.dropped, 0);
  }

  /**
   * Reads every access record that waits, adds up what was counted since the last time, and frees retired rows. On each
   * wake-up by a worker, before each scrape, and once a second besides.
   */
  collect(onRecord: OnRecord): void {
    for (const [worker, rows] of this.#tables.flows.entries()) {
      // A worker retires a row after the last record that names it: read the states first, then the records, and all
      // records of the rows found retired have been read when these are freed.
      const retired: number[] = [];
      for (let row = 0; row < rows.rowCount; row++) {
        if (rows.load(row, FLOW.state) === FlowState.RETIRED) retired.push(row);
      }
      this.#drain(worker, rows, onRecord);
      for (let row = 0; row < rows.rowCount; row++) {
        if (rows.load(row, FLOW.state) === FlowState.LIVE) this.#fold(worker, rows, row);
      }
      for (const row of retired) {
        this.#fold(worker, rows, row);
        this.#seen[worker]![row] = undefined;
        rows.store(row, FLOW.state, FlowState.FREE);
      }
    }
  }

  /**
   * Forgets the totals of workloads that have left the mesh, once they have stood still for some minutes and no connection
   * of theirs is open: where pods come and go under names of their own there is no end of them. Should one come back, it
   * begins at 0, as after a restart. @param known `namespace/name` of the workloads there are; asked only if need be.
   */
  forgetGone(known: () => ReadonlySet<string>): void {
    const standing = new Map<KeptSeries, string>(), untilMs = this.#now() - GONE_AFTER_MS;
    for (const [text, series] of this.#series) if (series.changedAtMs <= untilMs) standing.set(series, text);
    if (standing.size === 0) return;
    this.#eachSeen((seen, references) => references > 0 && seen.series !== undefined && standing.delete(seen.series));
    const names = known(), gone = new Set<KeptSeries>();
    for (const [series, text] of standing) {
      const { sourceNamespace, sourceWorkload, destinationNamespace, destinationWorkload } = series.label;
      const stays = (namespace: string, name: string) => name === "" || names.has(`${namespace}/${name}`);
      if (stays(sourceNamespace, sourceWorkload) && stays(destinationNamespace, destinationWorkload)) continue;
      this.#series.delete(text);
      gone.add(series);
    }
    if (gone.size > 0) this.#eachSeen((seen) => seen.series !== undefined && gone.has(seen.series) && letGo(seen));
  }

  #eachSeen(look: (seen: SeenRow, references: number) => void): void {
    for (const [worker, rows] of this.#tables.flows.entries()) {
      for (const [row, seen] of this.#seen[worker]!.entries()) {
        if (seen !== undefined) look(seen, rows.get(row, FLOW.references));
      }
    }
  }

  #drain(worker: number, rows: Rows<"flow">, onRecord: OnRecord): void {
    const reader = this.#readers[worker]!;
    // Bounded by what waits now: a worker that writes as fast as we read does not keep the agent here.
    for (let count = reader.waiting; count > 0; count--) {
      const record = reader.read();
      if (record === undefined) return;
      if (record.flowRow < 0) {
        onRecord(record, undefined);
        continue;
      }
      const seen = this.#seenOf(worker, rows, record.flowRow);
      const isOurs = seen.epoch === record.flowEpoch;
      onRecord(record, isOurs ? seen.label ?? this.#readLabel(rows, record.flowRow) : undefined);
    }
  }

  #fold(worker: number, rows: Rows<"flow">, row: number): void {
    const seen = this.#seenOf(worker, rows, row);
    const opened = rows.getF64(row, FLOW.opened) - seen.opened;
    const receivedBytes = rows.getF64(row, FLOW.receivedBytes) - seen.receivedBytes;
    const sentBytes = rows.getF64(row, FLOW.sentBytes) - seen.sentBytes;
    let changed = opened !== 0 || receivedBytes !== 0 || sentBytes !== 0;
    for (let flag = 0; flag < FLAG_COUNT && !changed; flag++) {
      changed = rows.getF64At(row, FLOW.closed, flag) !== seen.closed[flag];
    }
    if (!changed) return;
    const series = seen.series ??= this.#seriesOf(seen.label ??= this.#readLabel(rows, row));
    series.changedAtMs = this.#now();
    series.opened += opened;
    seen.opened += opened;
    for (let flag = 0; flag < FLAG_COUNT; flag++) {
      const closed = rows.getF64At(row, FLOW.closed, flag);
      series.closed[flag]! += closed - seen.closed[flag]!;
      seen.closed[flag] = closed;
    }
    series.receivedBytes += receivedBytes;
    seen.receivedBytes += receivedBytes;
    series.sentBytes += sentBytes;
    seen.sentBytes += sentBytes;
  }

  #seenOf(worker: number, rows: Rows<"flow">, row: number): SeenRow {
    const known = this.#seen[worker]![row], epoch = rows.get(row, FLOW.epoch);
    if (known !== undefined && known.epoch === epoch) return known;
    const label = this.#readLabel(rows, row), series = this.#seriesOf(label);
    const closed = new Array<number>(FLAG_COUNT).fill(0);
    const seen: SeenRow = { epoch, label, series, opened: 0, closed, receivedBytes: 0, sentBytes: 0 };
    this.#seen[worker]![row] = seen;
    return seen;
  }

  #readLabel(rows: Rows<"flow">, row: number): FlowLabel {
    return parseFlowLabel(this.#decoder.decode(rows.readBytes(row, FLOW.label, rows.get(row, FLOW.labelBytes))));
  }

  /** Flows of several pods of one workload differ in the log only; they share their series. */
  #seriesOf(label: FlowLabel): KeptSeries {
    const shared = { ...label, sourceName: "", destinationName: "" };
    const text = Object.values(shared).join("\u0001");
    const known = this.#series.get(text);
    if (known !== undefined) return known;
    const isUnknown = text === unknownText(label.reporter);
    if (this.#series.size >= this.#seriesMax && !isUnknown) return this.#seriesOf(parseFlowLabel(label.reporter));
    const closed = new Array<number>(FLAG_COUNT).fill(0);
    const own = parseFlowLabel(text); // Its parts are parts of the key, which is kept anyway.
    const series = { label: own, opened: 0, closed, receivedBytes: 0, sentBytes: 0, changedAtMs: this.#now() };
    this.#series.set(text, series);
    return series;
  }
}

function letGo(seen: SeenRow): void {
  seen.label = undefined;
  seen.series = undefined;
}

function unknownText(reporter: string): string {
  return Object.values(parseFlowLabel(reporter)).join("\u0001");
}
