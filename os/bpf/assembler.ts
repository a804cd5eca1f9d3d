/**
 * An assembler for eBPF (RFC 9669 §3): one method an instruction, labels for jumps, and short forms for what every program
 * does. A program is a function that calls it from the first instruction to the last; what it says reads from top to bottom.
 */
import { assert } from "../../base/assert.ts";

/** The registers. R1 to R5 carry arguments and are lost in a call, R6 to R9 are kept, FRAME is the end of the stack. */
export const R0 = 0, R1 = 1, R2 = 2, R3 = 3, R4 = 4, R5 = 5, R6 = 6, R7 = 7, R8 = 8, R9 = 9, FRAME = 10;
export type Register = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10;

/** A field of a context, or of any structure that a register points to. */
export interface Field {
  readonly at: number;
  readonly bytes: 1 | 2 | 4 | 8;
}

export const STACK_BYTES_MAX = 512;
const INSTRUCTION_BYTES = 8;

/** Functions of the kernel, by their numbers in linux/bpf.h. */
export const Helper = {
  MAP_LOOKUP: 1,
  MAP_UPDATE: 2,
  MAP_DELETE: 3,
  SKB_LOAD_BYTES_RELATIVE: 68,
  GET_SOCKET_COOKIE: 46,
  SOCK_OPS_FLAGS_SET: 59,
  SK_RELEASE: 86,
  SKC_LOOKUP_TCP: 99,
  GET_NETNS_COOKIE: 122,
  SK_ASSIGN: 124,
} as const;
type HelperNumber = (typeof Helper)[keyof typeof Helper];

const JUMPS = { "==": 0x10, "!=": 0x50, ">": 0x20, ">=": 0x30, "<": 0xa0, "<=": 0xb0, "&": 0x40 } as const;
/** How two values are compared, without sign; `&`: they have a bit in common. */
export type Comparison = keyof typeof JUMPS;

// Classes, and what is added to them (RFC 9669 §3).
const LD = 0x00, LDX = 0x01, ST = 0x02, STX = 0x03, JMP = 0x05, JMP32 = 0x06, ALU = 0x04, ALU64 = 0x07;
const MEM = 0x60, IMM64 = 0x18, FROM_REGISTER = 0x08;
const SIZES = { 1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18 } as const;
const ADD = 0x00, OR = 0x40, AND = 0x50, LEFT = 0x60, RIGHT = 0x70, MOVE = 0xb0, SWAP = 0xd0;
const CALL = 0x80, EXIT = 0x90, ALWAYS = 0x00;
const PSEUDO_MAP_FD = 1;

interface Jump {
  readonly at: number;
  readonly label: string;
}

export class Assembler {
  readonly #words: number[] = []; // Two for each instruction.
  readonly #labels = new Map<string, number>();
  readonly #jumps: Jump[] = [];
  #unique = 0;

  /** The program, with its jumps resolved. Asserts that every label is there, and after the jumps to it. */
  finish(): Uint8Array<ArrayBuffer> {
    for (const { at, label } of this.#jumps) {
      const target = this.#labels.get(label);
      assert(target !== undefined, `the label ${label} is placed`);
      const distance = target - at - 1;
      assert(distance >= 0 && distance < 0x8000, `the jump to ${label} goes forward, and not far`);
      this.#words[2 * at]! |= distance << 16;
    }
    return new Uint8Array(Uint32Array.from(this.#words).buffer);
  }

  get length(): number {
    return this.#words.length / 2;
  }

  /** The place that jumps of this name lead to. */
  label(name: string): this {
    assert(!this.#labels.has(name), `the label ${name} is placed once`);
    this.#labels.set(name, this.length);
    return this;
  }

  /** target = source. */
  move(target: Register, source: Register): this {
    return this.#emit(ALU64 | MOVE | FROM_REGISTER, target, source, 0, 0);
  }

  /** target = value, 32 bits, the upper half zero. */
  set(target: Register, value: number): this {
    return this.#emit(ALU | MOVE, target, 0, 0, value);
  }

  /** target = the bytes of memory at base, as a little-endian number. */
  load(target: Register, base: Register, { at, bytes }: Field): this {
    return this.#emit(LDX | MEM | SIZES[bytes], target, base, at, 0);
  }

  /** The memory at base = source. */
  store(base: Register, { at, bytes }: Field, source: Register): this {
    return this.#emit(STX | MEM | SIZES[bytes], base, source, at, 0);
  }

  /** The memory at base = value. */
  storeValue(base: Register, { at, bytes }: Field, value: number): this {
    return this.#emit(ST | MEM | SIZES[bytes], base, 0, at, value);
  }

  add(target: Register, value: number): this {
    return this.#emit(ALU64 | ADD, target, 0, 0, value);
  }

  addRegister(target: Register, source: Register): this {
    return this.#emit(ALU64 | ADD | FROM_REGISTER, target, source, 0, 0);
  }

  /** target &= value, 32 bits. */
  and(target: Register, value: number): this {
    return this.#emit(ALU | AND, target, 0, 0, value);
  }

  or(target: Register, value: number): this {
    return this.#emit(ALU | OR, target, 0, 0, value);
  }

  /** target <<= bits, 32 bits. */
  shiftLeft(target: Register, bits: number): this {
    return this.#emit(ALU | LEFT, target, 0, 0, bits);
  }

  /** target >>= bits, 32 bits, without sign. */
  shiftRight(target: Register, bits: number): this {
    return this.#emit(ALU | RIGHT, target, 0, 0, bits);
  }

  /** Turns the lowest 16 or 32 bits from network order to a number, or back; the rest becomes zero. */
  networkOrder(target: Register, bits: 16 | 32): this {
    return this.#emit(ALU | SWAP | FROM_REGISTER, target, 0, 0, bits);
  }

  /** Jumps if the register's lower 32 bits compare so with the value. */
  jumpIf(register: Register, comparison: Comparison, value: number, label: string): this {
    return this.#jump(JMP32 | JUMPS[comparison], register, 0, value, label);
  }

  /** Jumps if the lower 32 bits of two registers compare so. */
  jumpIfRegister(register: Register, comparison: Comparison, other: Register, label: string): this {
    return this.#jump(JMP32 | JUMPS[comparison] | FROM_REGISTER, register, other, 0, label);
  }

  /** Jumps if the pointer is null, or if all 64 bits are zero. */
  jumpIfNull(register: Register, label: string): this {
    return this.#jump(JMP | JUMPS["=="], register, 0, 0, label);
  }

  jumpUnlessNull(register: Register, label: string): this {
    return this.#jump(JMP | JUMPS["!="], register, 0, 0, label);
  }

  /** Jumps if two registers differ in any of their 64 bits. */
  jumpIfDifferent(register: Register, other: Register, label: string): this {
    return this.#jump(JMP | JUMPS["!="] | FROM_REGISTER, register, other, 0, label);
  }

  /** A name for a label that no other call gives. */
  unique(name: string): string {
    return `${name} ${this.#unique++}`;
  }

  /** Jumps if the pointer is greater than another: the verifier's way to learn how much memory there is. */
  jumpIfBeyond(pointer: Register, end: Register, label: string): this {
    return this.#jump(JMP | JUMPS[">"] | FROM_REGISTER, pointer, end, 0, label);
  }

  jump(label: string): this {
    return this.#jump(JMP | ALWAYS, 0, 0, 0, label);
  }

  /** Calls the kernel: arguments in R1 to R5, the answer in R0. */
  call(helper: HelperNumber): this {
    return this.#emit(JMP | CALL, 0, 0, 0, helper);
  }

  exit(): this {
    return this.#emit(JMP | EXIT, 0, 0, 0, 0);
  }

  /** Ends the program with a value. */
  return(value: number): this {
    return this.set(R0, value).exit();
  }

  /** target = the map, for a call. */
  map(target: Register, fd: number): this {
    this.#emit(LD | IMM64, target, PSEUDO_MAP_FD, 0, fd);
    return this.#emit(0, 0, 0, 0, 0);
  }

  /** target = the address of stack memory; `at` is negative, counted from the end of the stack. */
  stack(target: Register, at: number): this {
    assert(at < 0 && at >= -STACK_BYTES_MAX, "the place is on the stack");
    return this.move(target, FRAME).add(target, at);
  }

  /** R0 = the map's value for the key on the stack, or null. */
  lookup(mapFd: number, keyAt: number): this {
    return this.map(R1, mapFd).stack(R2, keyAt).call(Helper.MAP_LOOKUP);
  }

  /** Puts key and value of the stack into the map; R0 = 0 or -errno. */
  update(mapFd: number, keyAt: number, valueAt: number): this {
    return this.map(R1, mapFd).stack(R2, keyAt).stack(R3, valueAt).set(R4, 0).call(Helper.MAP_UPDATE);
  }

  delete(mapFd: number, keyAt: number): this {
    return this.map(R1, mapFd).stack(R2, keyAt).call(Helper.MAP_DELETE);
  }

  #jump(code: number, register: number, other: number, value: number, label: string): this {
    this.#jumps.push({ at: this.length, label });
    return this.#emit(code, register, other, 0, value);
  }

  #emit(code: number, target: number, source: number, offset: number, value: number): this {
    this.#words.push((code | target << 8 | source << 12 | (offset & 0xffff) << 16) >>> 0, value >>> 0);
    return this;
  }
}

/** How many instructions a finished program has. */
export function instructionCount(program: Uint8Array): number {
  return program.byteLength / INSTRUCTION_BYTES;
}

/** A program, written by `write`. */
export function assemble(write: (a: Assembler) => void): Uint8Array<ArrayBuffer> {
  const assembler = new Assembler();
  write(assembler);
  return assembler.finish();
}
