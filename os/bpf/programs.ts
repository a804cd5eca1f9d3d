/** eBPF programs: loaded past the verifier, whose words are told when it refuses. */
import { MeshError } from "../../base/errors.ts";
import * as libc from "../libc_cold.ts";
import { accepted, Attributes, bpf, BpfObject, Command, infoOf } from "./kernel.ts";

const LICENSE = new TextEncoder().encode("GPL\0"); // Some of the kernel's functions are for programs under it alone.
const LOG_BYTES = 256 << 10, LOG_LINES_TOLD = 12, LOG_VERBOSE = 1;
const PROGRAM_INFO_BYTES = 80;

/** What a program is for: BPF_PROG_TYPE_… and BPF_… of its place. */
export const ProgramKind = {
  connect4: { type: 18, attach: 10 },
  connect6: { type: 18, attach: 11 },
  sendmsg4: { type: 18, attach: 14 },
  sendmsg6: { type: 18, attach: 15 },
  recvmsg4: { type: 18, attach: 19 },
  recvmsg6: { type: 18, attach: 20 },
  getpeername4: { type: 18, attach: 29 },
  getpeername6: { type: 18, attach: 30 },
  sockOps: { type: 13, attach: 3 },
  getsockopt: { type: 25, attach: 21 },
  skLookup: { type: 30, attach: 36 },
  tcxIngress: { type: 3, attach: 46 },
  tcxEgress: { type: 3, attach: 47 },
} as const;
export type ProgramKind = keyof typeof ProgramKind;

export class BpfProgram extends BpfObject {
  readonly kind: ProgramKind;

  private constructor(fd: number, kind: ProgramKind) {
    super(fd);
    this.kind = kind;
  }

  /** @param name for bpftool, at most 15 characters. Throws AMB7151 with the end of what the verifier says. */
  static load(kind: ProgramKind, name: string, instructions: Uint8Array<ArrayBuffer>): BpfProgram {
    const quiet = bpf(Command.PROGRAM_LOAD, attributesOf(kind, name, instructions));
    if (quiet >= 0) return new BpfProgram(quiet, kind);
    const log = new Uint8Array(LOG_BYTES); // Asked for only now: writing it takes longer than the check itself.
    const told = attributesOf(kind, name, instructions).u32(24, LOG_VERBOSE).u32(28, LOG_BYTES).pointer(32, log);
    const result = bpf(Command.PROGRAM_LOAD, told);
    if (result >= 0) return new BpfProgram(result, kind);
    throw new MeshError("AMB7151", `the kernel refused the BPF program ${name}: ${libc.errnoName(result)}`, {
      remedy: "Run with CAP_BPF and CAP_NET_ADMIN on Linux 5.15 or later, or choose another redirection than bpf.",
      cause: new Error(endOf(log)),
    });
  }

  info(): ProgramInfo {
    return programInfo(this.fd);
  }
}

/** What the kernel says of a loaded program. */
export interface ProgramInfo {
  readonly id: number;
  readonly name: string;
  /** A digest of its instructions, whichever maps they name. */
  readonly tag: string;
}

function programInfo(fd: number): ProgramInfo {
  const info = infoOf(fd, PROGRAM_INFO_BYTES);
  const name = new Uint8Array(info.buffer, 64, 16);
  return {
    id: info.getUint32(4, true),
    name: new TextDecoder().decode(name.subarray(0, name.indexOf(0))),
    tag: info.getBigUint64(8).toString(16).padStart(16, "0"),
  };
}

/** @returns undefined when it is gone. */
export function programById(id: number): ProgramInfo | undefined {
  const fd = bpf(Command.PROGRAM_FD_BY_ID, new Attributes(12).u32(0, id));
  if (fd < 0) return undefined;
  using object = new BpfObject(fd);
  return programInfo(object.fd);
}

const MAPS_MAX = 64;

/** Maps of a program, each of which the caller closes. */
export function mapsOfProgram(id: number): BpfObject[] {
  const fd = bpf(Command.PROGRAM_FD_BY_ID, new Attributes(12).u32(0, id));
  if (fd < 0) return [];
  using object = new BpfObject(fd);
  const ids = new Uint8Array(4 * MAPS_MAX),
    info = new Attributes(PROGRAM_INFO_BYTES).u32(52, MAPS_MAX).pointer(56, ids);
  const asked = new Attributes(16).u32(0, object.fd).u32(4, PROGRAM_INFO_BYTES).pointer(8, info.bytes);
  accepted(bpf(Command.INFO, asked), "describe a BPF program");
  return [...new Uint32Array(ids.buffer, 0, Math.min(info.read(52), MAPS_MAX))].flatMap((map) => {
    const opened = bpf(Command.MAP_FD_BY_ID, new Attributes(12).u32(0, map));
    return opened < 0 ? [] : [new BpfObject(opened)];
  });
}

const QUERIED_MAX = 64;
/** The kernel writes its answer as far as this, whatever size it is told. */
const QUERY_BYTES = 64;

/** The programs that a cgroup has for a kind, in the order they run: those of its own first. Throws nothing: none when the kernel does not say. */
export function programsOfCgroup(cgroupFd: number, kind: ProgramKind): readonly ProgramInfo[] {
  const BPF_F_QUERY_EFFECTIVE = 1;
  return query(cgroupFd, kind, BPF_F_QUERY_EFFECTIVE);
}

/** The programs of a network namespace (its descriptor), or of an interface of our own one (its index). Throws nothing: none when the kernel does not say. */
export function programsOfNetwork(target: number, kind: ProgramKind): readonly ProgramInfo[] {
  return query(target, kind, 0);
}

function query(target: number, kind: ProgramKind, flags: number): readonly ProgramInfo[] {
  const ids = new Uint8Array(4 * QUERIED_MAX);
  const attributes = new Attributes(QUERY_BYTES).u32(0, target).u32(4, ProgramKind[kind].attach).u32(8, flags)
    .pointer(16, ids).u32(24, QUERIED_MAX);
  if (bpf(Command.PROGRAM_QUERY, attributes) < 0) return [];
  const count = attributes.read(24);
  return [...new Uint32Array(ids.buffer, 0, count)].map(programById).filter((it) => it !== undefined);
}

function attributesOf(kind: ProgramKind, name: string, instructions: Uint8Array<ArrayBuffer>): Attributes {
  const { type, attach } = ProgramKind[kind];
  return new Attributes(72).u32(0, type).u32(4, instructions.byteLength / 8).pointer(8, instructions)
    .pointer(16, LICENSE).name(48, name).u32(68, attach);
}

function endOf(log: Uint8Array<ArrayBuffer>): string {
  const end = log.indexOf(0), text = new TextDecoder().decode(log.subarray(0, end < 0 ? log.length : end));
  return text.trimEnd().split("\n").slice(-LOG_LINES_TOLD).join("\n");
}
