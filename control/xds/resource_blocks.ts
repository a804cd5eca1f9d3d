/**
 * A whole mesh in blocks of encoded resources, each kept for as long as its first resource lives: of the next state those
 * blocks are used again in which nothing has changed. Where a block ends its resources' names say, so that one that comes
 * or goes moves no other block.
 */
import { encodeResourceFields } from "../../mesh/proto/resource_fields.ts";
import type { Resource } from "./resources.ts";

interface Block {
  readonly members: readonly Resource[];
  readonly bytes: Uint8Array;
}

/** On average; a block of workloads is some 90 KiB. */
const BLOCK_RESOURCES = 256;
const BLOCK_RESOURCES_MAX = 4 * BLOCK_RESOURCES;
const HASHED_LETTERS = 8; // Names differ at their ends.

export class ResourceBlocks {
  readonly #byFirst = new WeakMap<Resource, Block>();

  /** The `resources` fields of all of them, one after the other, in pieces. An array is never of two types. */
  encode(resources: readonly Resource[], typeUrl: string): readonly Uint8Array[] {
    const parts: Uint8Array[] = [];
    let start = 0;
    for (let at = 0; at < resources.length; at++) {
      const full = at + 1 - start === BLOCK_RESOURCES_MAX;
      if (!full && at + 1 < resources.length && !endsBlock(resources[at]!.name)) continue;
      parts.push(this.#block(resources, { start, end: at + 1, typeUrl }));
      start = at + 1;
    }
    return parts;
  }

  #block(
    resources: readonly Resource[],
    { start, end, typeUrl }: { readonly start: number; readonly end: number; readonly typeUrl: string },
  ): Uint8Array {
    const first = resources[start]!, known = this.#byFirst.get(first);
    if (known !== undefined && isThat(known.members, resources, start, end)) return known.bytes;
    const members = resources.slice(start, end), bytes = encodeResourceFields(members, typeUrl);
    this.#byFirst.set(first, { members, bytes });
    return bytes;
  }
}

function isThat(members: readonly Resource[], resources: readonly Resource[], start: number, end: number): boolean {
  if (members.length !== end - start) return false;
  for (let at = 0; at < members.length; at++) if (members[at] !== resources[start + at]) return false;
  return true;
}

/** Of one name in {@link BLOCK_RESOURCES}. */
function endsBlock(name: string): boolean {
  let hash = 0;
  for (let at = Math.max(0, name.length - HASHED_LETTERS); at < name.length; at++) {
    hash = Math.imul(hash ^ name.charCodeAt(at), 0x0100_0193);
  }
  return ((hash >>> 16) ^ (hash & 0xffff)) % BLOCK_RESOURCES === 0;
}
