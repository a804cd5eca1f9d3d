/** What the workers' flow rows add up to, kept beyond the life of a row: rows are few and reused, totals only grow. */
import type { Rows } from "../../base/shm/rows.ts";
import { AccessReader, type AccessRecord } from "../tables/access.ts";
import { type FlowLabel, parseFlowLabel } from "../tables/flow_label.ts";
import type { Tables } from "../tables/handles.ts";
import { FLOW, FlowState, RESPONSE_FLAG_NAMES } from "../tables/layout.ts";

const FLAG_COUNT = RESPONSE_FLAG_NAMES.length;
const SERIES_MAX = 200_000; // some 200 MiB of labels; a scraper gives up before

/** The totals of one set of traffic labels. */
export interface FlowSeries {
  readonly label: FlowLabel;
  opened: number;
  /** By ResponseFlag. */
  readonly closed: number[];
  receivedBytes: number;
  sentBytes: number;
}

/** What was seen of a row last, so that only what came since is added. */
interface SeenRow {
  readonly epoch: number;
  readonly label: FlowLabel;
  readonly series: FlowSeries;
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
  readonly #series = new Map<string, FlowSeries>();
  readonly #seriesMax: number;
  readonly #decoder = new TextDecoder();

  /** @param seriesMax past it, flows of new labels are added to the series of their reporter whose labels are all unknown. */
  constructor(tables: Tables, seriesMax = SERIES_MAX) {
    this.#tables = tables;
    this.#seriesMax = seriesMax;
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
      onRecord(record, seen.epoch === record.flowEpoch ? seen.label : undefined);
    }
  }

  #fold(worker: number, rows: Rows<"flow">, row: number): void {
    const seen = this.#seenOf(worker, rows, row), { series } = seen;
    const opened = rows.getF64(row, FLOW.opened);
    series.opened += opened - seen.opened;
    seen.opened = opened;
    for (let flag = 0; flag < FLAG_COUNT; flag++) {
      const closed = rows.getF64At(row, FLOW.closed, flag);
      series.closed[flag]! += closed - seen.closed[flag]!;
      seen.closed[flag] = closed;
    }
    const receivedBytes = rows.getF64(row, FLOW.receivedBytes), sentBytes = rows.getF64(row, FLOW.sentBytes);
    series.receivedBytes += receivedBytes - seen.receivedBytes;
    series.sentBytes += sentBytes - seen.sentBytes;
    seen.receivedBytes = receivedBytes;
    seen.sentBytes = sentBytes;
  }

  #seenOf(worker: number, rows: Rows<"flow">, row: number): SeenRow {
    const known = this.#seen[worker]![row], epoch = rows.get(row, FLOW.epoch);
    if (known !== undefined && known.epoch === epoch) return known;
    const text = this.#decoder.decode(rows.readBytes(row, FLOW.label, rows.get(row, FLOW.labelBytes)));
    const label = parseFlowLabel(text);
    const series = this.#seriesOf(label);
    const closed = new Array<number>(FLAG_COUNT).fill(0);
    const seen: SeenRow = { epoch, label, series, opened: 0, closed, receivedBytes: 0, sentBytes: 0 };
    this.#seen[worker]![row] = seen;
    return seen;
  }

  /** Flows of several pods of one workload differ in the log only; they share their series. */
  #seriesOf(label: FlowLabel): FlowSeries {
    const shared = { ...label, sourceName: "", destinationName: "" };
    const text = Object.values(shared).join("\u0001");
    const known = this.#series.get(text);
    if (known !== undefined) return known;
    const isUnknown = text === unknownText(label.reporter);
    if (this.#series.size >= this.#seriesMax && !isUnknown) return this.#seriesOf(parseFlowLabel(label.reporter));
    const closed = new Array<number>(FLAG_COUNT).fill(0);
    const series = { label: shared, opened: 0, closed, receivedBytes: 0, sentBytes: 0 };
    this.#series.set(text, series);
    return series;
  }
}

function unknownText(reporter: string): string {
  return Object.values(parseFlowLabel(reporter)).join("\u0001");
}
