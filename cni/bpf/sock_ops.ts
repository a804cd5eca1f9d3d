/** sock_ops: what a connection was meant for is found by its addresses as soon as it has them, and forgotten with it (CNI-202). */
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
import { FAMILY, SOCK_OPS, SocketEvent, STATE_EVENTS, TCP_CLOSED } from "../../os/bpf/contexts.ts";
import { TUPLE } from "../../os/bpf/shared_maps.ts";
import { storeMapped, storeWords } from "./addresses.ts";
import type { NodeMapFds } from "./maps.ts";

const KEY = -32, SOCKET_COOKIE = -40;
const half = (at: number): Field => ({ at, bytes: 8 });

/**
 * The entry is written before the SYN leaves, so that ztunnel, which may accept at once, finds it. The state callback
 * takes it out when the connection ends: its port may be another's then.
 */
export function recoveryProgram(maps: NodeMapFds): Uint8Array<ArrayBuffer> {
  return assemble((a) => {
    a.move(R6, R1).load(R2, R6, SOCK_OPS.operation);
    a.jumpIf(R2, "==", SocketEvent.CONNECTING, "ours").jumpIf(R2, "!=", SocketEvent.STATE, "done");
    a.load(R2, R6, SOCK_OPS.newState).jumpIf(R2, "!=", TCP_CLOSED, "done");
    a.label("ours").call(Helper.GET_NETNS_COOKIE).store(FRAME, half(KEY), R0);
    a.lookup(maps.enrolled, KEY).jumpIfNull(R0, "done");
    a.move(R1, R6).call(Helper.GET_SOCKET_COOKIE).store(FRAME, half(SOCKET_COOKIE), R0);
    a.lookup(maps.byCookie, SOCKET_COOKIE).jumpIfNull(R0, "done").move(R7, R0);
    storeOwnEnd(a);
    a.load(R2, R6, SOCK_OPS.operation).jumpIf(R2, "==", SocketEvent.STATE, "closed");
    a.map(R1, maps.byTuple).stack(R2, KEY).move(R3, R7).set(R4, 0).call(Helper.MAP_UPDATE);
    a.move(R1, R6).set(R2, STATE_EVENTS).call(Helper.SOCK_OPS_FLAGS_SET).jump("done");
    a.label("closed").delete(maps.byTuple, KEY).delete(maps.byCookie, SOCKET_COOKIE);
    a.label("done").return(1);
  });
}

function storeOwnEnd(a: Assembler): void {
  a.load(R1, R6, SOCK_OPS.family).jumpIf(R1, "==", FAMILY.INET6, "ipv6");
  storeMapped(a, KEY + TUPLE.address, R6, SOCK_OPS.localIp4);
  a.jump("stored").label("ipv6");
  storeWords(a, KEY + TUPLE.address, R6, SOCK_OPS.localIp6);
  a.label("stored").load(R1, R6, SOCK_OPS.localPort).store(FRAME, { at: KEY + TUPLE.port, bytes: 4 }, R1);
}
