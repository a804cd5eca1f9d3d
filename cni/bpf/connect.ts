/** connect4, connect6, sendmsg4, sendmsg6: an application's connection is turned to ztunnel before it begins (CNI-201, CNI-204). */
import { assemble, type Assembler, type Field, FRAME, Helper, R0, R1, R2, R6, R7, R9 } from "../../os/bpf/assembler.ts";
import { PROTOCOL, SOCK_ADDR, SOCKET } from "../../os/bpf/contexts.ts";
import { ENROLLED, EnrolledFlag, ORIGINAL } from "../../os/bpf/shared_maps.ts";
import { parseIp } from "../../base/address.ts";
import { CAPTURE_PORTS, MARK_MASK, PROBE_ADDRESS, ZTUNNEL_MARK } from "../nft_rules.ts";
import { count, jumpIfAddress, jumpUnlessSame, MAPPED, networkWord, storeMapped, storeWords } from "./addresses.ts";
import { CIDR_KEY, CidrReason, Counter, type NodeMapFds, PORT_KEY, PortDirection } from "./maps.ts";

// The stack, from its end downwards.
const NETNS = -8, CIDR = -44, DESTINATION = CIDR + CIDR_KEY.address, VALUE = -72, SOCKET_COOKIE = -80;
const PORT = -96, TARGET_PORT = -100, COUNTER = -104;
const CIDR_BITS = 192; // a cookie and an address
const DNS_PORT = 53;
const LOOPBACK_BYTE = 127, LOOPBACK = networkWord(0x7f000001), LOOPBACK6 = parseIp("::1")!;
const PASS = 1, REFUSE = 0;

const word = (at: number): Field => ({ at, bytes: 4 });
const half = (at: number): Field => ({ at, bytes: 8 });

/** @param only `udp`: the hook sees nothing else. */
export function connectProgram(maps: NodeMapFds, family: 4 | 6, only?: "udp"): Uint8Array<ArrayBuffer> {
  return assemble((a) => {
    a.move(R6, R1).call(Helper.GET_NETNS_COOKIE).store(FRAME, half(NETNS), R0);
    a.lookup(maps.enrolled, NETNS).jumpIfNull(R0, "pass").move(R7, R0); // Of no enrolled namespace: not ours to touch.
    if (family === 4) storeMapped(a, DESTINATION, R6, SOCK_ADDR.ip4);
    else storeWords(a, DESTINATION, R6, SOCK_ADDR.ip6);
    a.load(R9, R6, SOCK_ADDR.port).networkOrder(R9, 16);
    chooseTarget(a, only);
    passOurOwn(a, maps);
    passLocal(a, family);
    passExceptions(a, maps);
    remember(a, maps);
    rewrite(a, family);
    a.load(R1, FRAME, word(TARGET_PORT)).networkOrder(R1, 16).store(R6, SOCK_ADDR.port, R1);
    a.load(R1, FRAME, word(TARGET_PORT)).jumpIf(R1, "==", CAPTURE_PORTS.dns, "dns");
    count(a, maps, Counter.CAPTURED, COUNTER);
    a.label("pass").return(PASS);
    a.label("dns");
    count(a, maps, Counter.DNS, COUNTER);
    a.return(PASS);
    a.label("refuse");
    count(a, maps, Counter.REFUSED, COUNTER);
    a.return(REFUSE);
  });
}

/** TARGET_PORT = which of ztunnel's ports it is for; what is for none passes (R12, R13, R16). */
function chooseTarget(a: Assembler, only: "udp" | undefined): void {
  a.storeValue(FRAME, word(TARGET_PORT), CAPTURE_PORTS.outbound);
  if (only !== "udp") {
    a.load(R1, R6, SOCK_ADDR.protocol).jumpIf(R1, "==", PROTOCOL.TCP, "tcp").jumpIf(R1, "!=", PROTOCOL.UDP, "pass");
  }
  jumpUnlessDns(a, "pass");
  if (only !== "udp") {
    a.jump("to dns").label("tcp");
    jumpUnlessDns(a, "chosen");
  }
  a.label("to dns").storeValue(FRAME, word(TARGET_PORT), CAPTURE_PORTS.dns).label("chosen");
}

function jumpUnlessDns(a: Assembler, label: string): void {
  a.jumpIf(R9, "!=", DNS_PORT, label).load(R1, R7, word(ENROLLED.flags)).and(R1, EnrolledFlag.DNS);
  a.jumpIf(R1, "==", 0, label);
}

/** What ztunnel itself sends bears its mark. */
function passOurOwn(a: Assembler, maps: NodeMapFds): void {
  a.load(R1, R6, SOCK_ADDR.socket).jumpIfNull(R1, "refuse").load(R1, R1, SOCKET.mark).and(R1, MARK_MASK);
  a.jumpIf(R1, "!=", ZTUNNEL_MARK, "not marked");
  count(a, maps, Counter.MARKED, COUNTER);
  a.jump("pass").label("not marked");
}

/** Loopback, the pod's own address and the node's probes (R10, R15, R16); R9 is the port. */
function passLocal(a: Assembler, family: 4 | 6): void {
  if (family === 6) {
    a.load(R1, FRAME, half(DESTINATION)).jumpUnlessNull(R1, "ipv6");
    a.load(R1, FRAME, word(DESTINATION + 8)).jumpIf(R1, "==", MAPPED, "ipv4");
    a.label("ipv6");
    jumpIfAddress(a, DESTINATION, LOOPBACK6, "pass");
    jumpIfAddress(a, DESTINATION, [0, 0, 0, 0], "pass"); // The kernel takes it for the loopback.
    jumpIfAddress(a, DESTINATION, parseIp(PROBE_ADDRESS.ipv6)!, "pass");
    a.jump("own").label("ipv4");
  }
  a.load(R1, FRAME, word(DESTINATION + 12)).jumpIf(R1, "==", LOOPBACK, "pass").jumpIf(R1, "==", 0, "pass");
  a.jumpIf(R1, "==", networkWord(parseIp(PROBE_ADDRESS.ipv4)![3]), "pass");
  a.and(R1, 0xff).jumpIf(R1, "==", LOOPBACK_BYTE, "over loopback");
  a.label("own");
  for (const own of [ENROLLED.ipv4, ENROLLED.ipv6]) {
    const another = a.unique("not this one");
    jumpUnlessSame(a, DESTINATION, R7, own, another);
    a.jump("over loopback").label(another);
  }
  a.jump("local passed");
  // DNS over TCP is captured even there (CNI-125); over UDP it is not.
  a.label("over loopback");
  jumpUnlessDnsOverTcp(a, "pass");
  a.label("local passed");
}

function jumpUnlessDnsOverTcp(a: Assembler, label: string): void {
  a.load(R1, FRAME, word(TARGET_PORT)).jumpIf(R1, "!=", CAPTURE_PORTS.dns, label);
  a.load(R1, R6, SOCK_ADDR.protocol).jumpIf(R1, "!=", PROTOCOL.TCP, label);
}

/** Excluded addresses and ports, and more of the pod's own addresses (CNI-099). */
function passExceptions(a: Assembler, maps: NodeMapFds): void {
  a.load(R1, R7, word(ENROLLED.flags)).and(R1, EnrolledFlag.EXCEPTIONS).jumpIf(R1, "==", 0, "no exception");
  a.load(R1, FRAME, half(NETNS)).store(FRAME, half(CIDR + CIDR_KEY.cookie), R1);
  a.storeValue(FRAME, word(CIDR), CIDR_BITS).lookup(maps.cidrs, CIDR).jumpIfNull(R0, "not by address");
  a.load(R1, R0, word(0)).jumpIf(R1, "!=", CidrReason.OWN, "excluded");
  jumpUnlessDnsOverTcp(a, "pass");
  a.label("not by address");
  a.load(R1, R6, SOCK_ADDR.protocol).jumpIf(R1, "!=", PROTOCOL.TCP, "no exception"); // Ports are TCP's.
  a.load(R1, FRAME, half(NETNS)).store(FRAME, half(PORT + PORT_KEY.cookie), R1);
  a.store(FRAME, word(PORT + PORT_KEY.port), R9);
  a.storeValue(FRAME, word(PORT + PORT_KEY.direction), PortDirection.OUTBOUND);
  a.lookup(maps.ports, PORT).jumpIfNull(R0, "no exception");
  a.label("excluded");
  count(a, maps, Counter.EXCLUDED, COUNTER);
  a.jump("pass").label("no exception");
}

/** Saves where it was meant to go; what cannot be saved must not connect, since ztunnel could not know where to. */
function remember(a: Assembler, maps: NodeMapFds): void {
  a.move(R1, R6).call(Helper.GET_SOCKET_COOKIE).store(FRAME, half(SOCKET_COOKIE), R0);
  for (const part of [0, 8]) a.load(R1, FRAME, half(DESTINATION + part)).store(FRAME, half(VALUE + part), R1);
  a.load(R1, R6, SOCK_ADDR.port).store(FRAME, { at: VALUE + ORIGINAL.port, bytes: 2 }, R1);
  a.storeValue(FRAME, { at: VALUE + ORIGINAL.family, bytes: 2 }, 0);
  a.load(R1, R7, word(ENROLLED.workload)).store(FRAME, word(VALUE + ORIGINAL.workload), R1);
  a.update(maps.byCookie, SOCKET_COOKIE, VALUE).jumpIf(R0, "!=", 0, "refuse");
}

/** The destination becomes the pod's own address, so that ztunnel sees the pod's as the other end; of DNS the loopback. */
function rewrite(a: Assembler, family: 4 | 6): void {
  a.load(R2, FRAME, word(TARGET_PORT));
  if (family === 6) {
    a.load(R1, FRAME, half(DESTINATION)).jumpUnlessNull(R1, "to ipv6");
    a.load(R1, FRAME, word(DESTINATION + 8)).jumpIf(R1, "==", MAPPED, "to ipv4");
    a.label("to ipv6").jumpIf(R2, "==", CAPTURE_PORTS.dns, "to loopback6");
    a.load(R1, R7, half(ENROLLED.ipv6)).jumpIfNull(R1, "refuse");
    SOCK_ADDR.ip6.forEach((field, index) => a.load(R1, R7, word(ENROLLED.ipv6 + 4 * index)).store(R6, field, R1));
    a.jump("rewritten").label("to loopback6").set(R1, 0);
    for (const field of SOCK_ADDR.ip6.slice(0, 3)) a.store(R6, field, R1);
    a.set(R1, networkWord(1)).store(R6, SOCK_ADDR.ip6[3], R1).jump("rewritten");
    a.label("to ipv4");
  }
  const target = family === 4 ? SOCK_ADDR.ip4 : SOCK_ADDR.ip6[3]; // What precedes it in the mapped form stands already.
  a.set(R1, LOOPBACK).jumpIf(R2, "==", CAPTURE_PORTS.dns, "to address");
  a.load(R1, R7, word(ENROLLED.ipv4 + 12)).jumpIf(R1, "==", 0, "refuse");
  a.label("to address").store(R6, target, R1);
  a.label("rewritten");
}
