/** TCX egress on a pod's interfaces: what has come past the connect hooks, from a raw socket or a nested namespace, stays inside (CNI-209). */
import {
  assemble,
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
import { PACKET, PROTOCOL } from "../../os/bpf/contexts.ts";
import { parseIp } from "../../base/address.ts";
import { MARK_MASK, PROBE_ADDRESS, ZTUNNEL_MARK } from "../nft_rules.ts";
import { count, jumpIfAddress, MAPPED, networkPort } from "./addresses.ts";
import { CIDR_KEY, Counter, type NodeMapFds } from "./maps.ts";

const PASS = -1, DROP = 2; // TCX_NEXT: programs of others decide; TCX_DROP.
const FROM_NETWORK_HEADER = 1;
const ETHERTYPE = { IPV4: networkPort(0x0800), IPV6: networkPort(0x86dd) } as const;
const IPV4_DESTINATION = 16, IPV6_DESTINATION = 24, IPV6_NEXT_HEADER = 6, IPV6_HEADER_BYTES = 40;
const HOP_BY_HOP = 0, ROUTING = 43, FRAGMENT = 44, DESTINATION_OPTIONS = 60;
const EXTENSIONS_MAX = 4;
const TCP_FLAGS = 13, SYN = 2, ACK = 16, DNS_PORT = 53;
const CIDR = -44, ADDRESS = CIDR + CIDR_KEY.address, BYTES = -48, COUNTER = -52;
const CIDR_BITS = 192;

const word = (at: number): Field => ({ at, bytes: 4 });
const byte = (at: number): Field => ({ at, bytes: 1 });

export interface GuardOptions {
  readonly cookie: bigint;
  /** Whether queries to port 53 must not leave either. */
  readonly dns: boolean;
}

/** New connections over TCP without ztunnel's mark are dropped, unless excluded; so is what cannot be read. */
export function guardProgram(maps: NodeMapFds, { cookie, dns }: GuardOptions): Uint8Array<ArrayBuffer> {
  return assemble((a) => {
    a.move(R6, R1).load(R1, R6, PACKET.mark).and(R1, MARK_MASK).jumpIf(R1, "==", ZTUNNEL_MARK, "pass");
    a.load(R1, R6, PACKET.protocol).jumpIf(R1, "==", ETHERTYPE.IPV6, "ipv6").jumpIf(R1, "!=", ETHERTYPE.IPV4, "pass");
    readIpv4(a);
    a.label("ipv6");
    readIpv6(a);
    // R7 is where the transport's header begins, R8 which it is.
    a.label("transport").jumpIf(R8, "==", PROTOCOL.UDP, "udp").jumpIf(R8, "!=", PROTOCOL.TCP, "pass");
    a.move(R2, R7).add(R2, TCP_FLAGS);
    loadBytes(a, 1);
    a.load(R1, FRAME, byte(BYTES)).and(R1, SYN | ACK).jumpIf(R1, "!=", SYN, "pass").jump("excluded?");
    a.label("udp");
    if (dns) {
      a.move(R2, R7).add(R2, 2);
      loadBytes(a, 2);
      a.load(R1, FRAME, { at: BYTES, bytes: 2 }).jumpIf(R1, "==", networkPort(DNS_PORT), "excluded?");
    }
    a.jump("pass");
    a.label("excluded?");
    const cookieWords = new Uint32Array(BigUint64Array.of(cookie).buffer);
    a.storeValue(FRAME, word(CIDR), CIDR_BITS);
    cookieWords.forEach((value, at) => a.storeValue(FRAME, word(CIDR + CIDR_KEY.cookie + 4 * at), value));
    a.lookup(maps.cidrs, CIDR).jumpUnlessNull(R0, "pass");
    for (const probe of Object.values(PROBE_ADDRESS)) jumpIfAddress(a, ADDRESS, parseIp(probe)!, "pass");
    a.label("drop");
    count(a, maps, Counter.GUARD, COUNTER);
    a.return(DROP);
    a.label("pass").return(PASS);
  });
}

/** Copies so many bytes, from R2 on counted from the network header, to the stack; what is too short for that is dropped. */
function loadBytes(a: Assembler, bytes: number, to = BYTES): void {
  a.move(R1, R6).stack(R3, to).set(R4, bytes).set(R5, FROM_NETWORK_HEADER).call(Helper.SKB_LOAD_BYTES_RELATIVE);
  a.jumpIf(R0, "!=", 0, "drop");
}

function readIpv4(a: Assembler): void {
  a.storeValue(FRAME, { at: ADDRESS, bytes: 8 }, 0).storeValue(FRAME, word(ADDRESS + 8), MAPPED);
  a.set(R2, IPV4_DESTINATION);
  loadBytes(a, 4, ADDRESS + 12);
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
  a.set(R2, IPV6_DESTINATION);
  loadBytes(a, 16, ADDRESS);
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
