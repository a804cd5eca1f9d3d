/** Pieces of programs that handle addresses: 16 bytes in network order, IPv4 in mapped form. */
import type { IpWords } from "../../base/address.ts";
import { type Assembler, type Field, FRAME, R0, R1, R2, type Register } from "../../os/bpf/assembler.ts";
import type { Counter, NodeMapFds } from "./maps.ts";

/** Bytes 8 to 11 of an IPv4 address in mapped form, `00 00 ff ff`, as a little-endian machine reads them. */
export const MAPPED = 0xffff0000;

/** A word of an address as the machine reads it from memory in network order. */
export function networkWord(word: number): number {
  return new DataView(Uint32Array.of(word).buffer).getUint32(0);
}

/** A port as the machine reads its two bytes in network order. */
export function networkPort(port: number): number {
  return (port & 255) << 8 | port >> 8;
}

const word = (at: number): Field => ({ at, bytes: 4 });
const half = (at: number): Field => ({ at, bytes: 8 });

/** Stack at `at` = the mapped form of the IPv4 address in a field of `base`. R1 is lost. */
export function storeMapped(a: Assembler, at: number, base: Register, field: Field): void {
  a.storeValue(FRAME, half(at), 0).storeValue(FRAME, word(at + 8), MAPPED);
  a.load(R1, base, field).store(FRAME, word(at + 12), R1);
}

/** Stack at `at` = the four fields of `base`. R1 is lost. */
export function storeWords(a: Assembler, at: number, base: Register, fields: readonly Field[]): void {
  fields.forEach((field, index) => a.load(R1, base, field).store(FRAME, word(at + 4 * index), R1));
}

/** Jumps unless the 16 bytes on the stack are those at `other`. R1 and R2 are lost. */
export function jumpUnlessSame(a: Assembler, at: number, base: Register, other: number, label: string): void {
  for (const part of [0, 8]) {
    a.load(R1, FRAME, half(at + part)).load(R2, base, half(other + part)).jumpIfDifferent(R1, R2, label);
  }
}

/** Jumps if the 16 bytes on the stack are this address. R1 is lost. */
export function jumpIfAddress(a: Assembler, at: number, ip: IpWords, label: string): void {
  const different = a.unique("another address");
  ip.forEach((value, index) => {
    a.load(R1, FRAME, word(at + 4 * index)).jumpIf(R1, "!=", networkWord(value), different);
  });
  a.jump(label).label(different);
}

/** Counts one. R0 to R5 are lost, and four bytes of the stack at `at`. */
export function count(a: Assembler, maps: NodeMapFds, counter: Counter, at: number): void {
  const without = a.unique("counted");
  a.storeValue(FRAME, word(at), counter).lookup(maps.stats, at).jumpIfNull(R0, without);
  a.load(R1, R0, half(0)).add(R1, 1).store(R0, half(0), R1);
  a.label(without);
}
