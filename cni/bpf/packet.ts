/** Pieces of programs at an interface that read a packet: where its transport begins, and which it is. */
import {
  type Assembler,
  type Field,
  FRAME,
  Helper,
  R0,
  R1,
  R2,
  R3,
  R4,
  R5,
  R6,
  R7,
  R8,
} from "../../os/bpf/assembler.ts";
import { PACKET } from "../../os/bpf/contexts.ts";
import { networkPort } from "./addresses.ts";

const FROM_NETWORK_HEADER = 1;
const ETHERTYPE = { IPV4: networkPort(0x0800), IPV6: networkPort(0x86dd) } as const;
const IPV6_NEXT_HEADER = 6, IPV6_HEADER_BYTES = 40;
const HOP_BY_HOP = 0, ROUTING = 43, FRAGMENT = 44, DESTINATION_OPTIONS = 60;
const EXTENSIONS_MAX = 4;

/** Where two and more bytes are read to, and the first of them. */
export const BYTES = -48;

const byte = (at: number): Field => ({ at, bytes: 1 });

/** What may be read on the way, while R7 and R8 mean nothing. */
export interface AddressReaders {
  readonly ipv4: (a: Assembler) => void;
  readonly ipv6: (a: Assembler) => void;
}

/**
 * R7 = where the transport's header begins, counted from the network header, and R8 = its protocol. R6 is the packet. What
 * is no IP, and all but the first of a packet's fragments, goes on at "pass"; what cannot be read at "drop".
 */
export function findTransport(a: Assembler, readers: AddressReaders): void {
  a.load(R1, R6, PACKET.protocol).jumpIf(R1, "==", ETHERTYPE.IPV6, "ipv6").jumpIf(R1, "!=", ETHERTYPE.IPV4, "pass");
  readers.ipv4(a);
  readIpv4(a);
  a.label("ipv6");
  readers.ipv6(a);
  readIpv6(a);
  a.label("transport");
}

/** Copies so many bytes, from R2 on counted from the network header, to the stack; what is too short for that is dropped. */
export function loadBytes(a: Assembler, bytes: number, to = BYTES): void {
  a.move(R1, R6).stack(R3, to).set(R4, bytes).set(R5, FROM_NETWORK_HEADER).call(Helper.SKB_LOAD_BYTES_RELATIVE);
  a.jumpIf(R0, "!=", 0, "drop");
}

function readIpv4(a: Assembler): void {
  a.set(R2, 6); // Flags and the fragment's place: only a first fragment has a header, and without it the rest is nothing.
  loadBytes(a, 2);
  a.load(R1, FRAME, { at: BYTES, bytes: 2 }).networkOrder(R1, 16).and(R1, 0x1fff).jumpIf(R1, "!=", 0, "pass");
  a.set(R2, 9);
  loadBytes(a, 1);
  a.load(R8, FRAME, byte(BYTES)).set(R2, 0);
  loadBytes(a, 1);
  a.load(R7, FRAME, byte(BYTES)).and(R7, 0x0f).shiftLeft(R7, 2).jump("transport");
}

function readIpv6(a: Assembler): void {
  a.set(R2, IPV6_NEXT_HEADER);
  loadBytes(a, 1);
  a.load(R8, FRAME, byte(BYTES)).set(R7, IPV6_HEADER_BYTES);
  for (let count = 0; count < EXTENSIONS_MAX; count++) {
    const known = a.unique("extension"), fragment = a.unique("fragment"), next = a.unique("next");
    a.jumpIf(R8, "==", FRAGMENT, fragment);
    for (const header of [HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS]) a.jumpIf(R8, "==", header, known);
    a.jump("transport").label(known).move(R2, R7);
    loadBytes(a, 2);
    a.load(R8, FRAME, byte(BYTES)).load(R1, FRAME, byte(BYTES + 1)).add(R1, 1).shiftLeft(R1, 3).addRegister(R7, R1);
    a.jump(next).label(fragment).move(R2, R7);
    loadBytes(a, 4);
    a.load(R8, FRAME, byte(BYTES)).add(R7, 8);
    a.load(R1, FRAME, { at: BYTES + 2, bytes: 2 }).networkOrder(R1, 16).and(R1, 0xfff8).jumpIf(R1, "!=", 0, "pass");
    a.label(next);
  }
  for (const header of [HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS]) a.jumpIf(R8, "==", header, "drop");
}
