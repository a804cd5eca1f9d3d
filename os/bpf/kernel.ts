/** bpf(2): the one system call behind maps, programs, links and pins, and how its refusals are told. */
import { assert } from "../../base/assert.ts";
import { MeshError } from "../../base/errors.ts";
import * as libc from "../libc_cold.ts";

const library = Deno.dlopen("libc.so.6", {
  syscall: { parameters: ["u32", "u32", "buffer", "u32"], result: "i32" }, // long number, int cmd, union bpf_attr *attr, unsigned int size
  __errno_location: { parameters: [], result: "pointer" }, // int *, one per thread
}).symbols;

const errno = new Int32Array(Deno.UnsafePointerView.getArrayBuffer(library.__errno_location()!, 4));

/** The call's number. */
export const SYS_BPF = Deno.build.arch === "x86_64" ? 321 : 280;

/** Commands of bpf(2). */
export const Command = {
  MAP_CREATE: 0,
  MAP_LOOKUP: 1,
  MAP_UPDATE: 2,
  MAP_DELETE: 3,
  MAP_NEXT_KEY: 4,
  PROGRAM_LOAD: 5,
  PIN: 6,
  GET_PINNED: 7,
  PROGRAM_ATTACH: 8,
  PROGRAM_DETACH: 9,
  PROGRAM_FD_BY_ID: 13,
  MAP_FD_BY_ID: 14,
  INFO: 15,
  PROGRAM_QUERY: 16,
  LINK_CREATE: 28,
  LINK_UPDATE: 29,
} as const;

/** `union bpf_attr`, filled field by field. Pointers in it are of arrays that it keeps alive. */
export class Attributes {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #view: DataView<ArrayBuffer>;
  readonly #kept: Uint8Array[] = [];

  constructor(sizeBytes: number) {
    this.bytes = new Uint8Array(sizeBytes);
    this.#view = new DataView(this.bytes.buffer);
  }

  u32(at: number, value: number): this {
    this.#view.setUint32(at, value, true);
    return this;
  }

  pointer(at: number, target: Uint8Array<ArrayBuffer>): this {
    this.#kept.push(target);
    this.#view.setBigUint64(at, BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(target))), true);
    return this;
  }

  /** A name of at most 15 characters, for bpftool and for people. */
  name(at: number, name: string): this {
    assert(/^[a-z0-9_]{1,15}$/.test(name), "a name in the kernel is short and plain");
    this.bytes.set(new TextEncoder().encode(name), at);
    return this;
  }

  read(at: number): number {
    return this.#view.getUint32(at, true);
  }
}

/** @returns What the kernel returned (often a descriptor, closed on exec), or -errno. */
export function bpf(command: number, attributes: Attributes): number {
  const result = library.syscall(SYS_BPF, command, attributes.bytes, attributes.bytes.byteLength);
  return result < 0 ? -errno[0]! : result; // Nothing may come between the call and this read.
}

/** @returns The result, if it is none of failure. Throws AMB7150. */
export function accepted(result: number, doing: string): number {
  if (result >= 0) return result;
  throw new MeshError("AMB7150", `could not ${doing}: ${libc.errnoName(result)}`, {
    remedy: "Run with CAP_BPF and CAP_NET_ADMIN on Linux 5.15 or later, or choose another redirection than bpf.",
  });
}

/** struct bpf_map_info, bpf_prog_info or bpf_link_info of a descriptor. Throws AMB7150. */
export function infoOf(fd: number, sizeBytes: number): DataView<ArrayBuffer> {
  const info = new Uint8Array(sizeBytes);
  accepted(
    bpf(Command.INFO, new Attributes(16).u32(0, fd).u32(4, sizeBytes).pointer(8, info)),
    "describe a BPF object",
  );
  return new DataView(info.buffer);
}

/** A descriptor of the kernel's object, closed with it. */
export class BpfObject implements Disposable {
  readonly fd: number;
  #open = true;

  constructor(fd: number) {
    this.fd = fd;
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    libc.close(this.fd);
  }
}
