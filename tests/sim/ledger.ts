/** A node's books: what its workers count of connections, held against what they log of them. */
import { AccessKind, type AccessReader } from "../../dataplane/tables/access.ts";
import type { Tables } from "../../dataplane/tables/handles.ts";
import { Direction, FLOW, FlowState } from "../../dataplane/tables/layout.ts";
import { hold } from "./chance.ts";

/** Sums of flow rows by direction. */
interface Totals {
  opened: number;
  closed: number;
  readonly received: [number, number];
  readonly sent: [number, number];
}

export class Ledger {
  readonly totals: Totals = { opened: 0, closed: 0, received: [0, 0], sent: [0, 0] };
  readonly #recorded = { complete: 0, received: 0, sent: 0 };
  readonly #tables: Tables;
  readonly #readers: readonly AccessReader[];
  readonly #tell: (error: string) => void;

  /** @param tell told of every error that is logged. */
  constructor(tables: Tables, readers: readonly AccessReader[], tell: (error: string) => void) {
    this.#tables = tables;
    this.#readers = readers;
    this.#tell = tell;
  }

  /** Reads what a worker logs of connections. */
  readRecords(worker: number): void {
    for (let record = this.#readers[worker]!.read(); record !== undefined; record = this.#readers[worker]!.read()) {
      if (record.error !== undefined) {
        this.#tell(record.error);
      }
      if (record.kind !== AccessKind.COMPLETE) continue;
      this.#recorded.complete++;
      this.#recorded.received += record.receivedBytes;
      this.#recorded.sent += record.sentBytes;
    }
  }

  /** Takes the last counts of flows that a worker retired. */
  harvest(worker: number): void {
    const flows = this.#tables.flows[worker]!;
    for (let row = 0; row < flows.rowCount; row++) {
      if (flows.load(row, FLOW.state) !== FlowState.RETIRED) continue;
      this.#addFlow(worker, row);
      flows.store(row, FLOW.state, FlowState.FREE);
    }
  }

  #addFlow(worker: number, row: number): void {
    const flows = this.#tables.flows[worker]!, { totals } = this;
    const label = new TextDecoder().decode(flows.readBytes(row, FLOW.label, flows.get(row, FLOW.labelBytes)));
    const direction = label.startsWith("source") ? Direction.OUTBOUND : Direction.INBOUND;
    totals.opened += flows.getF64(row, FLOW.opened);
    for (let flag = 0; flag < 8; flag++) totals.closed += flows.getF64At(row, FLOW.closed, flag);
    totals.received[direction] += flows.getF64(row, FLOW.receivedBytes);
    totals.sent[direction] += flows.getF64(row, FLOW.sentBytes);
  }

  /** Takes what no flow will change any more. */
  addLast(worker: number): void {
    const flows = this.#tables.flows[worker]!;
    this.readRecords(worker);
    this.harvest(worker);
    for (let row = 0; row < flows.rowCount; row++) {
      if (flows.load(row, FLOW.state) !== FlowState.LIVE) continue;
      hold(flows.get(row, FLOW.references) === 0, "no flow is referenced");
      this.#addFlow(worker, row);
    }
  }

  /** Once nothing is open: what was counted is what was logged. */
  check(): void {
    const { totals } = this;
    hold(totals.opened === totals.closed, `as many closed as opened: ${totals.opened}, ${totals.closed}`);
    const [received, sent] = [totals.received[0] + totals.received[1], totals.sent[0] + totals.sent[1]];
    hold(received === this.#recorded.received, `received bytes are counted as logged: ${received}`);
    hold(sent === this.#recorded.sent, `sent bytes are counted as logged: ${sent}`);
    hold(totals.closed === this.#recorded.complete, `a record for each: ${totals.closed}, ${this.#recorded.complete}`);
  }
}
