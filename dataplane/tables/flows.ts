/** A worker's flow rows: connections with equal telemetry share one, so that counting costs an addition. */
import { assert } from "../../base/assert.ts";
import type { Rows } from "../../base/shm/rows.ts";
import type { Service } from "../../mesh/service.ts";
import type { Workload } from "../../mesh/workload.ts";
import { type BaggageLabel, flowLabelOf } from "./flow_label.ts";
import { Direction, FLOW, FlowState, LABEL_BYTES_MAX, WORKER } from "./layout.ts";

const CACHE_PLACES = 4096; // a power of two
const SWEEP_ROWS_MAX = 64; // rows looked at per new label, so that no turn is long
const encoder = new TextEncoder();

/** Two rows stand for whatever finds no room, one a direction; all their labels are unknown. */
export const OVERFLOW_ROWS = 2;

/** One worker's end. Acquire a row once a connection's facts are known, count on it, release it at the connection's end. */
export class FlowTable {
  readonly #rows: Rows<"flow">;
  readonly #workers: Rows<"worker">;
  readonly #worker: number;
  readonly #rowByText = new Map<string, number>();
  readonly #textByRow: string[];
  /** Second chance for the sweep: set when a row is acquired. */
  readonly #touched: Uint8Array;
  #cursor = OVERFLOW_ROWS;
  #liveCount = 0;

  // The cache: direct-mapped over object identities, which stand for contents (lookup.ts).
  readonly #numberOf = new WeakMap<object, number>();
  #nextNumber = 1;
  readonly #keySource: (Workload | undefined)[];
  readonly #keyDestination: (Workload | undefined)[];
  readonly #keyService: (Service | undefined)[];
  readonly #keySourceIdentity: string[];
  readonly #keyDestinationIdentity: string[];
  readonly #keyFlags: Int32Array;
  readonly #cachedRow: Int32Array;
  readonly #cachedEpoch: Int32Array;

  constructor(rows: Rows<"flow">, workers: Rows<"worker">, worker: number) {
    assert(rows.rowCount > OVERFLOW_ROWS, "a flow table has room for more than the overflow");
    this.#rows = rows;
    this.#workers = workers;
    this.#worker = worker;
    this.#textByRow = new Array<string>(rows.rowCount).fill("");
    this.#touched = new Uint8Array(rows.rowCount);
    this.#keySource = new Array<Workload | undefined>(CACHE_PLACES).fill(undefined);
    this.#keyDestination = new Array<Workload | undefined>(CACHE_PLACES).fill(undefined);
    this.#keyService = new Array<Service | undefined>(CACHE_PLACES).fill(undefined);
    this.#keySourceIdentity = new Array<string>(CACHE_PLACES).fill("");
    this.#keyDestinationIdentity = new Array<string>(CACHE_PLACES).fill("");
    this.#keyFlags = new Int32Array(CACHE_PLACES);
    this.#cachedRow = new Int32Array(CACHE_PLACES).fill(-1);
    this.#cachedEpoch = new Int32Array(CACHE_PLACES);
    // What a stopped worker left: nobody references it any more, and the agent has yet to take its counts.
    for (let row = OVERFLOW_ROWS; row < rows.rowCount; row++) {
      if (rows.load(row, FLOW.state) === FlowState.LIVE) rows.store(row, FLOW.state, FlowState.RETIRED);
    }
    for (const direction of [Direction.OUTBOUND, Direction.INBOUND]) {
      const unknown = flowLabelOf(direction, false, undefined, "", undefined, undefined, "", undefined, undefined);
      if (rows.load(direction, FLOW.state) === FlowState.FREE) this.#fill(direction, unknown);
      rows.set(direction, FLOW.references, 0);
      this.#rowByText.set(unknown, direction);
    }
  }

  /**
   * The row for a connection's telemetry, with one more reference to it. Parameters as in {@link flowLabelOf}. Never
   * fails: without room it is the overflow row of its direction, which is counted in the worker's row.
   */
  acquire(
    direction: number,
    mutualTls: boolean,
    source: Workload | undefined,
    sourceIdentity: string,
    sourceBaggage: BaggageLabel | undefined,
    destination: Workload | undefined,
    destinationIdentity: string,
    destinationBaggage: BaggageLabel | undefined,
    service: Service | undefined,
  ): number {
    const cacheable = destinationBaggage === undefined && (source !== undefined || sourceBaggage === undefined);
    const flags = direction | (mutualTls ? 2 : 0) | 4;
    const place = cacheable ? this.#placeOf(flags, source, destination, service) : -1;
    if (
      place >= 0 && this.#keyFlags[place] === flags && this.#keySource[place] === source &&
      this.#keyDestination[place] === destination && this.#keyService[place] === service &&
      this.#keySourceIdentity[place] === sourceIdentity && this.#keyDestinationIdentity[place] === destinationIdentity
    ) {
      const row = this.#cachedRow[place]!;
      if (this.#isLive(row, this.#cachedEpoch[place]!)) return this.#reference(row);
    }
    const text = flowLabelOf(
      direction,
      mutualTls,
      source,
      sourceIdentity,
      sourceBaggage,
      destination,
      destinationIdentity,
      destinationBaggage,
      service,
    );
    const row = this.#rowByText.get(text) ?? this.#allocate(direction, text);
    if (place >= 0) {
      this.#keyFlags[place] = flags;
      this.#keySource[place] = source;
      this.#keyDestination[place] = destination;
      this.#keyService[place] = service;
      this.#keySourceIdentity[place] = sourceIdentity;
      this.#keyDestinationIdentity[place] = destinationIdentity;
      this.#cachedRow[place] = row;
      this.#cachedEpoch[place] = this.#rows.get(row, FLOW.epoch);
    }
    return this.#reference(row);
  }

  /** The label of a row, for another process that counts on. */
  textOf(row: number): string {
    return this.#textByRow[row]!;
  }

  /** As {@link acquire}, for a label that another process wrote. @returns -1 for what can be no label. */
  acquireText(direction: number, text: string): number {
    if (text === "" || encoder.encode(text).length > LABEL_BYTES_MAX) return -1;
    return this.#reference(this.#rowByText.get(text) ?? this.#allocate(direction, text));
  }

  /** The row's epoch, which access records and connection rows name beside it. */
  epochOf(row: number): number {
    return this.#rows.get(row, FLOW.epoch);
  }
  /** Counts a connection whose destination is decided (ZT-196). */
  countOpened(row: number): void {
    this.#rows.addF64(row, FLOW.opened, 1);
  }
  /** Counts a connection's end under its final flag (ZT-196). */
  countClosed(row: number, flag: number): void {
    this.#rows.addF64At(row, FLOW.closed, flag, 1);
  }
  /** Bytes from the initiator, and back to it (ZT-197). */
  countBytes(row: number, receivedBytes: number, sentBytes: number): void {
    if (receivedBytes !== 0) this.#rows.addF64(row, FLOW.receivedBytes, receivedBytes);
    if (sentBytes !== 0) this.#rows.addF64(row, FLOW.sentBytes, sentBytes);
  }
  /** Gives one reference back; after it, and after the access record, the row may be taken for another label. */
  release(row: number): void {
    const references = this.#rows.get(row, FLOW.references);
    assert(references > 0, "a flow is released as often as it was acquired");
    this.#rows.set(row, FLOW.references, references - 1);
  }

  #reference(row: number): number {
    this.#touched[row] = 1;
    this.#rows.set(row, FLOW.references, this.#rows.get(row, FLOW.references) + 1);
    return row;
  }

  #isLive(row: number, epoch: number): boolean {
    return this.#rows.get(row, FLOW.epoch) === epoch && this.#rows.load(row, FLOW.state) === FlowState.LIVE;
  }

  #placeOf(
    flags: number,
    source: Workload | undefined,
    destination: Workload | undefined,
    service: Service | undefined,
  ): number {
    let hash = Math.imul(this.#number(source), 0x9e3779b1) + flags;
    hash = Math.imul(hash ^ (hash >>> 15), 0x85ebca6b) + this.#number(destination);
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35) + this.#number(service);
    return (hash ^ (hash >>> 16)) & (CACHE_PLACES - 1);
  }

  #number(object: object | undefined): number {
    if (object === undefined) return 0;
    const known = this.#numberOf.get(object);
    if (known !== undefined) return known;
    this.#numberOf.set(object, this.#nextNumber);
    return this.#nextNumber++;
  }

  /** A row for a new label; retires some that nobody uses once the table is three quarters full. */
  #allocate(direction: number, text: string): number {
    const rows = this.#rows, usable = rows.rowCount - OVERFLOW_ROWS;
    const scarce = this.#liveCount * 4 > usable * 3;
    let found = -1;
    for (let looked = 0; looked < Math.min(usable, SWEEP_ROWS_MAX); looked++) {
      const row = this.#cursor;
      const state = rows.load(row, FLOW.state);
      if (state === FlowState.FREE) {
        if (found >= 0) break;
        found = row;
      } else if (scarce && state === FlowState.LIVE && rows.get(row, FLOW.references) === 0) {
        if (this.#touched[row] === 1) this.#touched[row] = 0;
        else this.#retire(row);
      }
      this.#cursor = row + 1 === rows.rowCount ? OVERFLOW_ROWS : row + 1;
      if (found >= 0 && !scarce) break;
    }
    if (found >= 0) return this.#fill(found, text);
    this.#workers.addF64(this.#worker, WORKER.flowOverflows, 1);
    return direction;
  }

  #retire(row: number): void {
    this.#rowByText.delete(this.#textByRow[row]!);
    this.#textByRow[row] = "";
    this.#liveCount--;
    this.#rows.store(row, FLOW.state, FlowState.RETIRED); // The agent takes the last counts and frees it.
  }

  #fill(row: number, text: string): number {
    const rows = this.#rows, epoch = rows.get(row, FLOW.epoch) + 1;
    const label = encoder.encode(text);
    rows.clear(row);
    rows.set(row, FLOW.epoch, epoch);
    rows.set(row, FLOW.labelBytes, label.length);
    rows.writeBytes(row, FLOW.label, label);
    rows.store(row, FLOW.state, FlowState.LIVE); // Publishes the label.
    this.#rowByText.set(text, row);
    this.#textByRow[row] = text;
    this.#touched[row] = 1;
    if (row >= OVERFLOW_ROWS) this.#liveCount++;
    return row;
  }
}
