/** eBPF maps: made, opened, read and written from this side of the kernel. */
import { assert } from "../../base/assert.ts";
import * as libc from "../libc_cold.ts";
import { type MapShape, MapType } from "./map_shape.ts";
import { accepted, Attributes, bpf, BpfObject, Command, infoOf } from "./kernel.ts";

const NO_PREALLOCATION = 1; // BPF_F_NO_PREALLOC, which an LPM trie insists on.
const MAP_INFO_BYTES = 40;

/** How many CPUs the kernel keeps values for, of a text such as `0-3,8`. */
export function possibleCpuCount(text: string): number {
  return Math.max(...text.trim().split(",").map((range) => Number(range.split("-").at(-1)))) + 1;
}

export class BpfMap extends BpfObject {
  readonly shape: MapShape;
  /** Of one value as this side sees it: of a per-CPU array one for each CPU, on eight bytes each. */
  readonly #valueBytes: number;

  private constructor(fd: number, shape: MapShape) {
    super(fd);
    this.shape = shape;
    const perCpu = shape.type === MapType.PER_CPU_ARRAY;
    this.#valueBytes = perCpu
      ? ((shape.valueBytes + 7) & ~7) * possibleCpuCount(Deno.readTextFileSync("/sys/devices/system/cpu/possible"))
      : shape.valueBytes;
  }

  /** Throws AMB7150. */
  static create(shape: MapShape): BpfMap {
    const attributes = new Attributes(44).u32(0, shape.type).u32(4, shape.keyBytes).u32(8, shape.valueBytes)
      .u32(12, shape.entriesMax).u32(16, shape.type === MapType.LPM_TRIE ? NO_PREALLOCATION : 0).name(28, shape.name);
    return new BpfMap(accepted(bpf(Command.MAP_CREATE, attributes), `create the BPF map ${shape.name}`), shape);
  }

  /** Takes a descriptor over. @returns undefined, and closes it, if its map has another shape. */
  static adopt(fd: number, shape: MapShape): BpfMap | undefined {
    const info = infoOf(fd, MAP_INFO_BYTES);
    const same = info.getUint32(0, true) === shape.type && info.getUint32(8, true) === shape.keyBytes &&
      info.getUint32(12, true) === shape.valueBytes && info.getUint32(16, true) === shape.entriesMax;
    if (same) return new BpfMap(fd, shape);
    libc.close(fd);
    return undefined;
  }

  /** The kernel's number of it. */
  get id(): number {
    return infoOf(this.fd, MAP_INFO_BYTES).getUint32(4, true);
  }

  /** @returns A copy of the value, or undefined. Throws AMB7150. */
  lookup(key: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> | undefined {
    const value = new Uint8Array(this.#valueBytes);
    const result = bpf(Command.MAP_LOOKUP, this.#entry(key, value));
    if (result === -libc.Errno.ENOENT) return undefined;
    accepted(result, `read the BPF map ${this.shape.name}`);
    return value;
  }

  /** Throws AMB7150. */
  update(key: Uint8Array<ArrayBuffer>, value: Uint8Array<ArrayBuffer>): void {
    assert(value.byteLength === this.#valueBytes, "a map's values have one size");
    accepted(bpf(Command.MAP_UPDATE, this.#entry(key, value)), `write the BPF map ${this.shape.name}`);
  }

  /** @returns False when there was no such entry. Throws AMB7150. */
  delete(key: Uint8Array<ArrayBuffer>): boolean {
    const result = bpf(Command.MAP_DELETE, this.#entry(key));
    if (result === -libc.Errno.ENOENT || result === -libc.Errno.EINVAL) return false; // EINVAL: a sockmap's empty slot
    accepted(result, `write the BPF map ${this.shape.name}`);
    return true;
  }

  /** All keys, as they stand while nobody writes; of others that come or go meanwhile some. Throws AMB7150. */
  keys(): Uint8Array<ArrayBuffer>[] {
    const keys: Uint8Array<ArrayBuffer>[] = [];
    while (keys.length < this.shape.entriesMax) {
      const before = keys.at(-1), next = new Uint8Array(this.shape.keyBytes);
      const attributes = new Attributes(32).u32(0, this.fd).pointer(16, next);
      if (before !== undefined) attributes.pointer(8, before);
      const result = bpf(Command.MAP_NEXT_KEY, attributes);
      if (result === -libc.Errno.ENOENT) break;
      accepted(result, `list the BPF map ${this.shape.name}`);
      keys.push(next);
    }
    return keys;
  }

  #entry(key: Uint8Array<ArrayBuffer>, value?: Uint8Array<ArrayBuffer>): Attributes {
    assert(key.byteLength === this.shape.keyBytes, "a map's keys have one size");
    const attributes = new Attributes(32).u32(0, this.fd).pointer(8, key);
    return value === undefined ? attributes : attributes.pointer(16, value);
  }
}

/** A number as four bytes, the lowest first: a key or value of that size. */
export function u32Bytes(value: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Uint32Array.of(value).buffer);
}
