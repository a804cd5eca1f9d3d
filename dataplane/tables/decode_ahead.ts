/** What a worker had decoded and a newer snapshot has changed, decoded before it moves there: a bounded part each turn. */
import type { Policy } from "../../mesh/policy.ts";
import type { Service } from "../../mesh/service.ts";
import type { Workload } from "../../mesh/workload.ts";
import { RowKind } from "./snapshot_format.ts";
import { decodePolicy, decodeService, decodeWorkload } from "./snapshot_rows.ts";
import type { SnapshotSlot } from "./snapshot_slot.ts";

/** A resource takes a few microseconds: a turn's part is below a millisecond. */
export const DECODED_PER_TURN_MAX = 128;

export type Kept = Workload | Service | Policy | readonly Workload[] | undefined;

/** Room for a row, filled to the end: arrays with holes are slow. */
export function grow(kept: Kept[], versions: number[], row: number): void {
  while (kept.length <= row) {
    kept.push(undefined);
    versions.push(0);
  }
}

export class DecodeAhead {
  /** Under way: begun, and not taken yet. */
  busy = false;
  readonly #kept: Kept[];
  readonly #versions: number[];
  readonly #rowOf: WeakMap<object, number>;
  #slot: SnapshotSlot | undefined;
  #row = 0;
  /** Within the endpoint list of that row. */
  #item = 0;
  /** What was decoded so far, in three parallel lists: put in force together, which must cost next to nothing. */
  #rows: number[] = [];
  #rowVersions: number[] = [];
  #objects: (Workload | Service | Policy)[] = [];
  readonly #seen = new Set<number>();

  /** The reader's own: what it decoded by row, of which version, and the rows of objects. */
  constructor(kept: Kept[], versions: number[], rowOf: WeakMap<object, number>) {
    this.#kept = kept;
    this.#versions = versions;
    this.#rowOf = rowOf;
  }

  begin(slot: SnapshotSlot): void {
    this.#slot = slot;
    this.#row = 0;
    this.#item = 0;
    this.busy = true;
  }

  /** Decodes at most `max` resources. @returns Whether that was all. */
  goOn(max: number): boolean {
    const slot = this.#slot!, end = this.#rows.length + max;
    for (; this.#row < this.#kept.length; this.#row++, this.#item = 0) {
      const row = this.#row;
      // A list has a new version when one of its endpoints has.
      if (this.#kept[row] === undefined || slot.versionOf(row) === this.#versions[row]) continue;
      if (slot.kindOf(row) === RowKind.ENDPOINTS) {
        // Endpoints that are new to the worker as well: whoever asks for the list asks for all of them.
        for (const count = slot.listLength(row); this.#item < count; this.#item++) {
          if (this.#rows.length >= end) return false;
          this.#decode(slot, slot.listItem(row, this.#item));
        }
      } else {
        if (this.#rows.length >= end) return false;
        this.#decode(slot, row);
      }
    }
    return true;
  }

  /** Puts what was decoded in force: the reader moves now. */
  finish(): void {
    const kept = this.#kept, versions = this.#versions, rows = this.#rows;
    for (let at = 0; at < rows.length; at++) {
      const row = rows[at]!;
      grow(kept, versions, row);
      kept[row] = this.#objects[at];
      versions[row] = this.#rowVersions[at]!;
    }
    this.#rows = [];
    this.#rowVersions = [];
    this.#objects = [];
    this.#seen.clear();
    this.#slot = undefined;
    this.busy = false;
  }

  #decode(slot: SnapshotSlot, row: number): void {
    const version = slot.versionOf(row), kind = slot.kindOf(row);
    if (kind === RowKind.FREE || version === this.#versions[row] || this.#seen.has(row)) return;
    this.#seen.add(row);
    const object = kind === RowKind.WORKLOAD
      ? decodeWorkload(slot, row)
      : kind === RowKind.SERVICE
      ? decodeService(slot, row)
      : decodePolicy(slot, row);
    this.#rowOf.set(object, row); // Now, a few each turn: such a table is slow to grow.
    this.#rows.push(row);
    this.#rowVersions.push(version);
    this.#objects.push(object);
  }
}
