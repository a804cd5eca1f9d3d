/** sk_lookup in a pod's network namespace: inbound connections find ztunnel's listener, whatever port they are for (CNI-205). */
import type { IpWords } from "../../base/address.ts";
import { isIpv4, parseIp } from "../../base/address.ts";
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
  R6,
  R7,
} from "../../os/bpf/assembler.ts";
import { FAMILY, PROTOCOL, SK_LOOKUP } from "../../os/bpf/contexts.ts";
import { ListenerSlot } from "../../os/bpf/shared_maps.ts";
import { CAPTURE_PORTS, PROBE_ADDRESS } from "../nft_rules.ts";
import { count, jumpIfAddress, storeMapped, storeWords } from "./addresses.ts";
import { Counter, type NodeMapFds } from "./maps.ts";

const REMOTE = -16, SLOT = -20, COUNTER = -24;
const LOOPBACK_INTERFACE = 1; // The first of every network namespace.
const DROP = 0, PASS = 1;
const word = (at: number): Field => ({ at, bytes: 4 });

export interface InboundOptions {
  /** The pod's addresses: what comes from them is the pod talking to itself. */
  readonly own: readonly IpWords[];
  /** Ports that are not captured. */
  readonly excludedPorts: readonly number[];
  /** Indexes of interfaces whose traffic is none of ours to turn. */
  readonly passing: readonly number[];
}

/** @param listeners descriptor of the pod's sockmap. */
export function inboundProgram(maps: NodeMapFds, listeners: number, options: InboundOptions): Uint8Array<ArrayBuffer> {
  return assemble((a) => {
    a.move(R6, R1).load(R1, R6, SK_LOOKUP.protocol).jumpIf(R1, "!=", PROTOCOL.TCP, "pass");
    a.load(R1, R6, SK_LOOKUP.interface).jumpIf(R1, "==", LOOPBACK_INTERFACE, "pass");
    for (const index of options.passing) a.jumpIf(R1, "==", index, "pass");
    passFromOwn(a, options.own);
    a.load(R7, R6, SK_LOOKUP.localPort).jumpIf(R7, "==", CAPTURE_PORTS.inboundHbone, "pass");
    // Nobody else is to speak to these: where they would go is known from the redirection alone.
    a.jumpIf(R7, "==", CAPTURE_PORTS.outbound, "drop").jumpIf(R7, "==", CAPTURE_PORTS.inboundPlaintext, "drop");
    for (const port of options.excludedPorts) a.jumpIf(R7, "==", port, "pass");
    a.lookup(listeners, SLOT).jumpIfNull(R0, "no listener").move(R7, R0);
    a.move(R1, R6).move(R2, R7).set(R3, 0).set(R4, 0).call(Helper.SK_ASSIGN).move(R6, R0);
    a.move(R1, R7).call(Helper.SK_RELEASE).jumpIf(R6, "!=", 0, "no listener");
    count(a, maps, Counter.INBOUND, COUNTER);
    a.label("pass").return(PASS);
    a.label("no listener");
    count(a, maps, Counter.NO_LISTENER, COUNTER);
    a.label("drop").return(DROP);
  });
}

/** SLOT = the family's; what comes from the pod itself or from the node's probes passes. */
function passFromOwn(a: Assembler, own: readonly IpWords[]): void {
  const of = (v4: boolean) => own.filter((ip) => isIpv4(ip[0], ip[1], ip[2]) === v4);
  a.load(R1, R6, SK_LOOKUP.family).jumpIf(R1, "==", FAMILY.INET6, "ipv6");
  storeMapped(a, REMOTE, R6, SK_LOOKUP.remoteIp4);
  a.storeValue(FRAME, word(SLOT), ListenerSlot.IPV4);
  for (const ip of [...of(true), parseIp(PROBE_ADDRESS.ipv4)!]) jumpIfAddress(a, REMOTE, ip, "pass");
  a.jump("from elsewhere").label("ipv6");
  storeWords(a, REMOTE, R6, SK_LOOKUP.remoteIp6);
  a.storeValue(FRAME, word(SLOT), ListenerSlot.IPV6);
  for (const ip of [...of(false), parseIp(PROBE_ADDRESS.ipv6)!]) jumpIfAddress(a, REMOTE, ip, "pass");
  a.label("from elsewhere");
}
