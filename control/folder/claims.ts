/** Which file an object comes from when several have it: the first that did; the others are refused, and wait. */
import type { KubernetesObject, ObjectChange, ObjectKey } from "../objects.ts";
import { equal } from "../collect/equal.ts";
import { EMPTY_FILE, type FileState, type HeldObject, type Refusal } from "./file_state.ts";

interface Claim {
  readonly file: string;
  readonly held: HeldObject;
}

/** The files' states together: objects in force, and refusals. */
export class Claims {
  readonly #files = new Map<string, FileState>();
  readonly #claims = new Map<ObjectKey, Claim[]>();
  readonly #inForce = new Map<ObjectKey, KubernetesObject>();

  stateOf(file: string): FileState {
    return this.#files.get(file) ?? EMPTY_FILE;
  }

  /** How many objects are in force. */
  get objectCount(): number {
    return this.#inForce.size;
  }

  /**
   * Takes the new states of some files at once; undefined for a file that is gone. @returns What changed for readers: an
   * object that moved from one file to another in the same batch is no change.
   */
  update(states: ReadonlyMap<string, FileState | undefined>): ObjectChange[] {
    const touched = new Set<ObjectKey>();
    // What vanishes goes first, so that a renamed file is no duplicate of itself.
    for (const [file, state] of states) {
      for (const key of this.stateOf(file).held.keys()) {
        touched.add(key);
        if (state === undefined || !state.held.has(key)) this.#withdraw(file, key);
      }
    }
    for (const [file, state] of states) {
      if (state === undefined) {
        this.#files.delete(file);
        continue;
      }
      this.#files.set(file, state);
      for (const [key, held] of state.held) {
        touched.add(key);
        this.#claim(key, { file, held });
      }
    }
    const changes: ObjectChange[] = [];
    for (const key of [...touched].sort()) {
      const before = this.#inForce.get(key), object = this.#claims.get(key)?.[0]?.held.object;
      const kind = (object ?? before)?.kind;
      if (kind === undefined || equal(before, object)) continue;
      if (object === undefined) this.#inForce.delete(key);
      else this.#inForce.set(key, object);
      changes.push({ kind, key, object });
    }
    return changes;
  }

  #withdraw(file: string, key: ObjectKey): void {
    const left = (this.#claims.get(key) ?? []).filter((claim) => claim.file !== file);
    if (left.length === 0) this.#claims.delete(key);
    else this.#claims.set(key, left);
  }

  #claim(key: ObjectKey, claim: Claim): void {
    const claims = this.#claims.get(key);
    if (claims === undefined) {
      this.#claims.set(key, [claim]);
      return;
    }
    const own = claims.findIndex((it) => it.file === claim.file);
    if (own < 0) claims.push(claim);
    else claims[own] = claim;
  }

  /** Everything that is not in force as written, by file and line. */
  refusals(): Refusal[] {
    const all: Refusal[] = [...this.#files.values()].flatMap((state) => state.refusals);
    for (const [key, [first, ...others]] of this.#claims) {
      for (const { file, held } of others) {
        const reason = `${key} stands already in ${first!.file}, line ${first!.held.line}`;
        all.push({ file, line: held.line, field: "", reason, key, previousKept: false });
      }
    }
    return all.sort((a, b) => a.file === b.file ? a.line - b.line : a.file < b.file ? -1 : 1);
  }
}
