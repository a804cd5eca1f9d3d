/** Makes the shared tables (agent, once) and opens them (every thread). */
import { assert } from "../../base/assert.ts";
import type { RowShape } from "../../base/shm/layout.ts";
import { Ring, ringBytes } from "../../base/shm/ring.ts";
import { formatTable, Rows, tableBytes } from "../../base/shm/rows.ts";
import { ACCESS_ENTRIES, ACCESS_WORDS } from "./access.ts";
import * as tables from "./layout.ts";
import { QUESTION_RING_BYTES } from "./questions.ts";

/** How many rows the tables have. Every limit is here; what happens at it stands at the table's user. */
export interface TableSizes {
  readonly workers: number;
  readonly pods: number;
  readonly identities: number;
  readonly flowsPerWorker: number;
  readonly connectionsPerWorker: number;
  /** Of each of the two snapshot slots. Pages that are never written cost no memory. */
  readonly snapshotBytes: number;
}

export const DEFAULT_SIZES: TableSizes = {
  workers: 1,
  pods: 512,
  identities: 1024,
  flowsPerWorker: 4096,
  connectionsPerWorker: 32_768,
  snapshotBytes: 128 * 1024 * 1024,
};

/** Where each table begins in the control buffer. */
export interface TablePlan {
  readonly sizes: TableSizes;
  readonly header: number;
  readonly workers: number;
  readonly pods: number;
  readonly identities: number;
  readonly takeover: number;
  /** By worker, as all that follow. */
  readonly flows: readonly number[];
  readonly connections: readonly number[];
  readonly commands: readonly number[];
  readonly requests: readonly number[];
  readonly questions: readonly number[];
  readonly access: readonly number[];
  readonly totalBytes: number;
}

/** Posted once to a worker at its start; structured clone shares the buffers. */
export interface TableHandles {
  readonly plan: TablePlan;
  readonly control: SharedArrayBuffer;
  readonly slots: readonly [SharedArrayBuffer, SharedArrayBuffer];
}

/** The tables as one thread sees them. Rows by worker are arrays. */
export interface Tables {
  readonly handles: TableHandles;
  readonly header: Rows<"header">;
  readonly workers: Rows<"worker">;
  readonly pods: Rows<"pod">;
  readonly identities: Rows<"identity">;
  readonly takeover: Rows<"takeover">;
  readonly flows: readonly Rows<"flow">[];
  readonly connections: readonly Rows<"connection">[];
}

/** Computes offsets; changes nothing. */
export function planTables(sizes: TableSizes): TablePlan {
  assert(sizes.workers >= 1 && sizes.workers <= tables.WORKERS_MAX, `1 to ${tables.WORKERS_MAX} workers`);
  let at = 0;
  const take = (bytes: number): number => {
    const from = at;
    at += Math.ceil(bytes / 64) * 64;
    return from;
  };
  const perWorker = (bytes: number): number[] => Array.from({ length: sizes.workers }, () => take(bytes));
  const plan = {
    sizes,
    header: take(tableBytes(tables.HEADER, 1)),
    workers: take(tableBytes(tables.WORKER, sizes.workers)),
    pods: take(tableBytes(tables.POD, sizes.pods)),
    identities: take(tableBytes(tables.IDENTITY, sizes.identities)),
    takeover: take(tableBytes(tables.TAKEOVER, sizes.workers)),
    flows: perWorker(tableBytes(tables.FLOW, sizes.flowsPerWorker)),
    connections: perWorker(tableBytes(tables.CONNECTION, sizes.connectionsPerWorker)),
    commands: perWorker(ringBytes(tables.RING_ENTRIES, tables.COMMAND_WORDS)),
    requests: perWorker(ringBytes(tables.RING_ENTRIES, tables.REQUEST_WORDS)),
    questions: perWorker(QUESTION_RING_BYTES),
    access: perWorker(ringBytes(ACCESS_ENTRIES, ACCESS_WORDS)),
  };
  return { ...plan, totalBytes: at };
}

/** Allocates and formats all tables. @param network the node's own network (NETWORK). */
export function createTables(sizes: Partial<TableSizes>, network = ""): TableHandles {
  const plan = planTables({ ...DEFAULT_SIZES, ...sizes });
  const control = new SharedArrayBuffer(plan.totalBytes);
  const format = (shape: RowShape<string>, offset: number, rowCount: number) =>
    formatTable(control, offset, shape, rowCount);
  format(tables.HEADER, plan.header, 1);
  format(tables.WORKER, plan.workers, plan.sizes.workers);
  format(tables.POD, plan.pods, plan.sizes.pods);
  format(tables.IDENTITY, plan.identities, plan.sizes.identities);
  format(tables.TAKEOVER, plan.takeover, plan.sizes.workers);
  for (const offset of plan.flows) format(tables.FLOW, offset, plan.sizes.flowsPerWorker);
  for (const offset of plan.connections) format(tables.CONNECTION, offset, plan.sizes.connectionsPerWorker);
  const header = new Rows(control, plan.header, tables.HEADER);
  const networkBytes = new TextEncoder().encode(network);
  assert(networkBytes.length <= 256, "a network's name has at most 256 bytes");
  header.set(0, tables.HEADER.magic, tables.TABLES_MAGIC);
  header.set(0, tables.HEADER.workerCount, plan.sizes.workers);
  header.set(0, tables.HEADER.networkBytes, networkBytes.length);
  header.writeBytes(0, tables.HEADER.network, networkBytes);
  const bytes = plan.sizes.snapshotBytes;
  return { plan, control, slots: [new SharedArrayBuffer(bytes), new SharedArrayBuffer(bytes)] };
}

/** Opens all tables; ends the thread if they were made for another layout. */
export function openTables(handles: TableHandles): Tables {
  const { plan, control } = handles;
  const header = new Rows(control, plan.header, tables.HEADER);
  assert(header.get(0, tables.HEADER.magic) === tables.TABLES_MAGIC, "the control buffer holds our tables");
  return {
    handles,
    header,
    workers: new Rows(control, plan.workers, tables.WORKER),
    pods: new Rows(control, plan.pods, tables.POD),
    identities: new Rows(control, plan.identities, tables.IDENTITY),
    takeover: new Rows(control, plan.takeover, tables.TAKEOVER),
    flows: plan.flows.map((offset) => new Rows(control, offset, tables.FLOW)),
    connections: plan.connections.map((offset) => new Rows(control, offset, tables.CONNECTION)),
  };
}

/** The node's own network, as the agent was configured. */
export function ownNetwork(opened: Tables): string {
  const { header } = opened;
  return new TextDecoder().decode(
    header.readBytes(0, tables.HEADER.network, header.get(0, tables.HEADER.networkBytes)),
  );
}

/** Agent → worker. `wake` writes the worker's eventfd; the worker's own end needs none. */
export function openCommandRing(handles: TableHandles, worker: number, wake?: () => void): Ring {
  return new Ring(handles.control, handles.plan.commands[worker]!, tables.RING_ENTRIES, tables.COMMAND_WORDS, wake);
}

/** Worker → agent. `wake` writes the agent's eventfd; the agent's own end needs none. */
export function openRequestRing(handles: TableHandles, worker: number, wake?: () => void): Ring {
  return new Ring(handles.control, handles.plan.requests[worker]!, tables.RING_ENTRIES, tables.REQUEST_WORDS, wake);
}

/** Puts up to eight words into a command or request ring. @returns false if it is full. */
export function pushWords(
  ring: Ring,
  kind: number,
  word1 = 0,
  word2 = 0,
  word3 = 0,
  word4 = 0,
  word5 = 0,
  word6 = 0,
  word7 = 0,
): boolean {
  const record = ring.record;
  record[0] = kind;
  record[1] = word1;
  record[2] = word2;
  record[3] = word3;
  record[4] = word4;
  record[5] = word5;
  record[6] = word6;
  record[7] = word7;
  return ring.push();
}
