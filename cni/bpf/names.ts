/** recvmsg and getpeername: an application that asks whom it talks to hears what it connected to (CNI-203, CNI-204). */
import { assemble, type Assembler, type Field, FRAME, Helper, R0, R1, R6, R7 } from "../../os/bpf/assembler.ts";
import { SOCK_ADDR } from "../../os/bpf/contexts.ts";
import { ORIGINAL } from "../../os/bpf/shared_maps.ts";
import { CAPTURE_PORTS } from "../nft_rules.ts";
import { MAPPED } from "./addresses.ts";
import type { NodeMapFds } from "./maps.ts";

const NETNS = -8, SOCKET_COOKIE = -16;
const PASS = 1; // Nothing else is allowed here.
const word = (at: number): Field => ({ at, bytes: 4 });

/** @param dnsOnly of a datagram's source only ztunnel's DNS is put right. */
export function nameProgram(maps: NodeMapFds, family: 4 | 6, options: { dnsOnly: boolean }): Uint8Array<ArrayBuffer> {
  return assemble((a) => {
    a.move(R6, R1).load(R1, R6, SOCK_ADDR.port).networkOrder(R1, 16).jumpIf(R1, "==", CAPTURE_PORTS.dns, "ztunnel's");
    if (options.dnsOnly) a.jump("done");
    else a.jumpIf(R1, "!=", CAPTURE_PORTS.outbound, "done");
    a.label("ztunnel's").move(R1, R6).call(Helper.GET_NETNS_COOKIE).store(FRAME, { at: NETNS, bytes: 8 }, R0);
    a.lookup(maps.enrolled, NETNS).jumpIfNull(R0, "done");
    a.move(R1, R6).call(Helper.GET_SOCKET_COOKIE).store(FRAME, { at: SOCKET_COOKIE, bytes: 8 }, R0);
    a.lookup(maps.byCookie, SOCKET_COOKIE).jumpIfNull(R0, "done").move(R7, R0);
    writeAddress(a, family);
    a.load(R1, R7, { at: ORIGINAL.port, bytes: 2 }).store(R6, SOCK_ADDR.port, R1);
    a.label("done").return(PASS);
  });
}

/** The context's address = the value's. A socket of IPv4 was never meant for IPv6. */
function writeAddress(a: Assembler, family: 4 | 6): void {
  if (family === 6) {
    SOCK_ADDR.ip6.forEach((field, at) => a.load(R1, R7, word(ORIGINAL.address + 4 * at)).store(R6, field, R1));
    return;
  }
  a.load(R1, R7, word(ORIGINAL.address + 8)).jumpIf(R1, "!=", MAPPED, "done");
  a.load(R1, R7, word(ORIGINAL.address + 12)).store(R6, SOCK_ADDR.ip4, R1);
}
