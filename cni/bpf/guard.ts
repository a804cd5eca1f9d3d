/** TCX egress on a pod's interfaces: what has come past the connect hooks, from a raw socket or a nested namespace, stays inside (CNI-209). */
import { assemble, type Assembler, type Field, FRAME, R0, R1, R2, R6, R7, R8 } from "../../os/bpf/assembler.ts";
import { PACKET, PROTOCOL } from "../../os/bpf/contexts.ts";
import { parseIp } from "../../base/address.ts";
import { MARK_MASK, PROBE_ADDRESS, ZTUNNEL_MARK } from "../nft_rules.ts";
import { count, jumpIfAddress, MAPPED, networkPort } from "./addresses.ts";
import { type AddressReaders, BYTES, findTransport, loadBytes } from "./packet.ts";
import { CIDR_KEY, Counter, type NodeMapFds, PORT_KEY, PortDirection } from "./maps.ts";

const PASS = -1, DROP = 2; // TCX_NEXT: programs of others decide; TCX_DROP.
const IPV4_DESTINATION = 16, IPV6_DESTINATION = 24;
const TCP_FLAGS = 13, SYN = 2, ACK = 16, DNS_PORT = 53;
const CIDR = -44, ADDRESS = CIDR + CIDR_KEY.address, COUNTER = -52, PORT = -72;
const CIDR_BITS = 192;

const word = (at: number): Field => ({ at, bytes: 4 });
const byte = (at: number): Field => ({ at, bytes: 1 });

const DESTINATION: AddressReaders = {
  ipv4(a) {
    a.storeValue(FRAME, { at: ADDRESS, bytes: 8 }, 0).storeValue(FRAME, word(ADDRESS + 8), MAPPED);
    a.set(R2, IPV4_DESTINATION);
    loadBytes(a, 4, ADDRESS + 12);
  },
  ipv6(a) {
    a.set(R2, IPV6_DESTINATION);
    loadBytes(a, 16, ADDRESS);
  },
};

export interface GuardOptions {
  readonly cookie: bigint;
  /** Whether queries to port 53 must not leave either. */
  readonly dns: boolean;
}

/** New connections over TCP without ztunnel's mark are dropped, unless excluded; so is what cannot be read. */
export function guardProgram(maps: NodeMapFds, { cookie, dns }: GuardOptions): Uint8Array<ArrayBuffer> {
  return assemble((a) => {
    a.move(R6, R1).load(R1, R6, PACKET.mark).and(R1, MARK_MASK).jumpIf(R1, "==", ZTUNNEL_MARK, "pass");
    findTransport(a, DESTINATION);
    a.jumpIf(R8, "==", PROTOCOL.UDP, "udp").jumpIf(R8, "!=", PROTOCOL.TCP, "pass");
    a.move(R2, R7).add(R2, TCP_FLAGS);
    loadBytes(a, 1);
    a.load(R1, FRAME, byte(BYTES)).and(R1, SYN | ACK).jumpIf(R1, "!=", SYN, "pass").move(R2, R7).add(R2, 2);
    loadBytes(a, 2);
    a.load(R1, FRAME, { at: BYTES, bytes: 2 }).networkOrder(R1, 16).store(FRAME, word(PORT + PORT_KEY.port), R1);
    storeCookie(a, PORT + PORT_KEY.cookie, cookie);
    a.storeValue(FRAME, word(PORT + PORT_KEY.direction), PortDirection.OUTBOUND);
    a.lookup(maps.ports, PORT).jumpUnlessNull(R0, "pass").jump("excluded?");
    a.label("udp");
    if (dns) {
      a.move(R2, R7).add(R2, 2);
      loadBytes(a, 2);
      a.load(R1, FRAME, { at: BYTES, bytes: 2 }).jumpIf(R1, "==", networkPort(DNS_PORT), "excluded?");
    }
    a.jump("pass");
    a.label("excluded?");
    a.storeValue(FRAME, word(CIDR), CIDR_BITS);
    storeCookie(a, CIDR + CIDR_KEY.cookie, cookie);
    a.lookup(maps.cidrs, CIDR).jumpUnlessNull(R0, "pass");
    for (const probe of Object.values(PROBE_ADDRESS)) jumpIfAddress(a, ADDRESS, parseIp(probe)!, "pass");
    a.label("drop");
    count(a, maps, Counter.GUARD, COUNTER);
    a.return(DROP);
    a.label("pass").return(PASS);
  });
}

function storeCookie(a: Assembler, at: number, cookie: bigint): void {
  const words = new Uint32Array(BigUint64Array.of(cookie).buffer);
  words.forEach((value, index) => a.storeValue(FRAME, word(at + 4 * index), value));
}
