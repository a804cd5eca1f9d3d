/** getsockopt on the cgroup of a proxy that knows nothing of this: SO_ORIGINAL_DST is answered as after a REDIRECT (CNI-202). */
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
  R6,
  R7,
  R8,
} from "../../os/bpf/assembler.ts";
import { FAMILY, SOCKET, SOCKOPT } from "../../os/bpf/contexts.ts";
import { ORIGINAL, TUPLE } from "../../os/bpf/shared_maps.ts";
import { MAPPED, storeMapped, storeWords } from "./addresses.ts";
import type { NodeMapFds } from "./maps.ts";

const KEY = -32;
const SO_ORIGINAL_DST = 80, SOL_IP = 0, SOL_IPV6 = 41;
const SOCKADDR_IN_BYTES = 16, SOCKADDR_IN6_BYTES = 28;
const word = (at: number): Field => ({ at, bytes: 4 });
const two = (at: number): Field => ({ at, bytes: 2 });

export function originalDestinationProgram(maps: NodeMapFds): Uint8Array<ArrayBuffer> {
  return assemble((a) => {
    a.move(R6, R1).load(R1, R6, SOCKOPT.name).jumpIf(R1, "!=", SO_ORIGINAL_DST, "done");
    a.move(R1, R6).call(Helper.GET_NETNS_COOKIE).store(FRAME, { at: KEY, bytes: 8 }, R0);
    a.lookup(maps.enrolled, KEY).jumpIfNull(R0, "done");
    storeOtherEnd(a);
    a.lookup(maps.byTuple, KEY).jumpIfNull(R0, "done").move(R7, R0);
    a.load(R1, R6, SOCKOPT.level).jumpIf(R1, "==", SOL_IPV6, "ipv6 asked").jumpIf(R1, "!=", SOL_IP, "done");
    a.load(R1, R7, word(ORIGINAL.address + 8)).jumpIf(R1, "!=", MAPPED, "done");
    answer(a, SOCKADDR_IN_BYTES);
    a.label("ipv6 asked").load(R1, R7, word(ORIGINAL.address + 8)).jumpIf(R1, "==", MAPPED, "done");
    answer(a, SOCKADDR_IN6_BYTES);
    a.label("done").return(1);
  });
}

/** The key = who connected, as the accepted socket sees it. */
function storeOtherEnd(a: Assembler): void {
  a.load(R8, R6, SOCKOPT.socket).jumpIfNull(R8, "done").load(R1, R8, SOCKET.family).jumpIf(
    R1,
    "==",
    FAMILY.INET6,
    "ipv6",
  );
  storeMapped(a, KEY + TUPLE.address, R8, SOCKET.remoteIp4);
  a.jump("stored").label("ipv6");
  storeWords(a, KEY + TUPLE.address, R8, SOCKET.remoteIp6);
  a.label("stored").load(R1, R8, SOCKET.remotePort).networkOrder(R1, 16).store(FRAME, word(KEY + TUPLE.port), R1);
}

/** Fills sockaddr_in or sockaddr_in6, if there is room for it, in place of the kernel's ENOENT. */
function answer(a: Assembler, bytes: number): void {
  const v6 = bytes === SOCKADDR_IN6_BYTES;
  a.load(R2, R6, SOCKOPT.value).load(R3, R6, SOCKOPT.valueEnd).move(R1, R2).add(R1, bytes).jumpIfBeyond(R1, R3, "done");
  a.set(R1, v6 ? FAMILY.INET6 : FAMILY.INET).store(R2, two(0), R1).load(R1, R7, two(ORIGINAL.port)).store(
    R2,
    two(2),
    R1,
  );
  a.set(R1, 0);
  if (v6) {
    a.store(R2, word(4), R1).store(R2, word(24), R1);
    for (let at = 0; at < 16; at += 4) a.load(R1, R7, word(ORIGINAL.address + at)).store(R2, word(8 + at), R1);
  } else {
    a.store(R2, word(8), R1).store(R2, word(12), R1);
    a.load(R1, R7, word(ORIGINAL.address + 12)).store(R2, word(4), R1);
  }
  a.set(R1, bytes).store(R6, SOCKOPT.length, R1).set(R1, 0).store(R6, SOCKOPT.result, R1).return(1);
}
