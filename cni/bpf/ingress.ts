/**
 * Inbound for a ztunnel of another make, which knows nothing of our maps: its listener is looked up where packets come in
 * (CNI-208), and what it sends to the application from the client's address is marked so that replies find back.
 */
import { type IpWords, parseIp } from "../../base/address.ts";
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
import { CAPTURE_PORTS, MARK_MASK, PROBE_ADDRESS, REPLY_MARK, ZTUNNEL_MARK } from "../nft_rules.ts";
import { count, jumpIfAddress, MAPPED, networkPort } from "./addresses.ts";
import { Counter, type NodeMapFds } from "./maps.ts";
import { type AddressReaders, BYTES, findTransport, loadBytes } from "./packet.ts";
import type { InboundOptions } from "./sk_lookup.ts";

const PASS = -1, DROP = 2; // TCX_NEXT, TCX_DROP
const CURRENT_NETNS = -1;
const TCP_FLAGS = 13, SYN = 2, ACK = 16;
const IPV4_SOURCE = 12, IPV6_SOURCE = 8;
// The stack: the source as 16 bytes; struct bpf_sock_tuple, of which that of IPv4 is a third as long; a counter.
const SOURCE = -16, COUNTER = -20, TUPLE = -96, PORTS = -104;
const TUPLE4_BYTES = 12, TUPLE6_BYTES = 36;
const LOOPBACK_BYTE = 127;
const word = (at: number): Field => ({ at, bytes: 4 });
const half = (at: number): Field => ({ at, bytes: 8 });

/** Reads the source for comparisons, and both addresses for the look-up. */
const BOTH: AddressReaders = {
  ipv4(a) {
    a.storeValue(FRAME, half(SOURCE), 0).storeValue(FRAME, word(SOURCE + 8), MAPPED).set(R2, IPV4_SOURCE);
    loadBytes(a, 8, TUPLE);
    a.load(R1, FRAME, word(TUPLE)).store(FRAME, word(SOURCE + 12), R1);
  },
  ipv6(a) {
    a.set(R2, IPV6_SOURCE);
    loadBytes(a, 32, TUPLE);
    for (let at = 0; at < 16; at += 8) a.load(R1, FRAME, half(TUPLE + at)).store(FRAME, half(SOURCE + at), R1);
  },
};

/** Goes on only with a segment that begins a connection. */
function passUnlessSyn(a: Assembler): void {
  a.jumpIf(R8, "!=", PROTOCOL.TCP, "pass").move(R2, R7).add(R2, TCP_FLAGS);
  loadBytes(a, 1);
  a.load(R1, FRAME, { at: BYTES, bytes: 1 }).and(R1, SYN | ACK).jumpIf(R1, "!=", SYN, "pass");
}

/** TCX ingress at an interface of the pod. */
export function ingressProgram(maps: NodeMapFds, options: InboundOptions): Uint8Array<ArrayBuffer> {
  return assemble((a) => {
    a.move(R6, R1);
    findTransport(a, BOTH);
    passUnlessSyn(a);
    a.move(R2, R7);
    loadBytes(a, 4, PORTS);
    for (const ip of [...options.own, ...Object.values(PROBE_ADDRESS).map((it) => parseIp(it)!)]) {
      jumpIfAddress(a, SOURCE, ip, "pass");
    }
    a.load(R7, FRAME, { at: PORTS + 2, bytes: 2 }).networkOrder(R7, 16).jumpIf(
      R7,
      "==",
      CAPTURE_PORTS.inboundHbone,
      "pass",
    );
    a.jumpIf(R7, "==", CAPTURE_PORTS.outbound, "drop").jumpIf(R7, "==", CAPTURE_PORTS.inboundPlaintext, "drop");
    for (const port of options.excludedPorts) a.jumpIf(R7, "==", port, "pass");
    a.storeValue(FRAME, { at: PORTS + 2, bytes: 2 }, networkPort(CAPTURE_PORTS.inboundPlaintext));
    a.load(R1, FRAME, word(PORTS)).load(R2, R6, PACKET.protocol).jumpIf(R2, "!=", networkPort(0x0800), "of ipv6");
    a.store(FRAME, word(TUPLE + 8), R1).set(R3, TUPLE4_BYTES);
    lookUp(a, maps);
    a.label("of ipv6").store(FRAME, word(TUPLE + 32), R1).set(R3, TUPLE6_BYTES);
    lookUp(a, maps);
    a.label("no listener");
    count(a, maps, Counter.NO_LISTENER, COUNTER);
    a.label("drop").return(DROP);
    a.label("pass").return(PASS);
  });
}

/** The packet is the listener's; without one it is dropped. R3 is how long the tuple is. */
function lookUp(a: Assembler, maps: NodeMapFds): void {
  a.move(R1, R6).stack(R2, TUPLE).set(R4, CURRENT_NETNS).set(R5, 0).call(Helper.SKC_LOOKUP_TCP);
  a.jumpIfNull(R0, "no listener").move(R7, R0).move(R1, R6).move(R2, R7).set(R3, 0).call(Helper.SK_ASSIGN);
  a.move(R8, R0).move(R1, R7).call(Helper.SK_RELEASE).jumpIf(R8, "!=", 0, "no listener");
  count(a, maps, Counter.INBOUND, COUNTER);
  a.return(PASS);
}

/** TCX ingress at the loopback: a connection that ztunnel begins from a client's address gets the mark of replies, and hands it on. */
export function loopbackProgram(own: readonly IpWords[]): Uint8Array<ArrayBuffer> {
  return assemble((a) => {
    a.move(R6, R1).load(R1, R6, PACKET.mark).and(R1, MARK_MASK).jumpIf(R1, "!=", ZTUNNEL_MARK, "pass");
    findTransport(a, BOTH);
    passUnlessSyn(a);
    for (const ip of own) jumpIfAddress(a, SOURCE, ip, "pass");
    jumpIfAddress(a, SOURCE, parseIp("::1")!, "pass");
    a.load(R1, FRAME, word(SOURCE + 8)).jumpIf(R1, "!=", MAPPED, "foreign");
    a.load(R1, FRAME, word(SOURCE + 12)).and(R1, 0xff).jumpIf(R1, "==", LOOPBACK_BYTE, "pass");
    a.label("foreign").load(R1, R6, PACKET.mark).and(R1, ~MARK_MASK).or(R1, REPLY_MARK).store(R6, PACKET.mark, R1);
    a.label("drop").label("pass").return(PASS);
  });
}
