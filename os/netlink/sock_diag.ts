/** On which TCP ports a network namespace listens, and whose a UDP port is, asked of the kernel (sock_diag(7)). */
import * as libc from "../libc_cold.ts";
import type { Netns } from "../netns.ts";
import { Attributes, NLM_F } from "./message.ts";
import { NetlinkError, NetlinkSocket } from "./socket.ts";

const NETLINK_SOCK_DIAG = 4, SOCK_DIAG_BY_FAMILY = 20;
const IPPROTO_TCP = 6, IPPROTO_UDP = 17, TCP_CLOSE = 7, TCP_LISTEN = 10; // A UDP socket that is bound and not connected is closed.
const REQUEST_BYTES = 56, ASKED_PORT_AT = 8; // struct inet_diag_req_v2, whose socket id is any where it is zero
const MESSAGE_BYTES = 72, CGROUP_ID = 21; // struct inet_diag_msg; INET_DIAG_CGROUP_ID
const SOURCE_PORT_AT = 4; // struct inet_diag_msg: u8 family, state, timer, retrans; then be16 source port

/** @returns undefined where the kernel has no such question. Throws AMB7010. */
export function listeningPorts(netns?: Netns): ReadonlySet<number> | undefined {
  using socket = NetlinkSocket.open(NETLINK_SOCK_DIAG, netns);
  const ports = new Set<number>();
  try {
    for (const family of [libc.AF.INET, libc.AF.INET6]) {
      const request = new Uint8Array(REQUEST_BYTES);
      request.set([family, IPPROTO_TCP]);
      new DataView(request.buffer).setUint32(4, 1 << TCP_LISTEN, true);
      for (const { payload } of socket.request(SOCK_DIAG_BY_FAMILY, NLM_F.DUMP, (writer) => void writer.raw(request))) {
        if (payload.length < SOURCE_PORT_AT + 2) continue;
        ports.add(payload[SOURCE_PORT_AT]! << 8 | payload[SOURCE_PORT_AT + 1]!);
      }
    }
  } catch (error) {
    if (error instanceof NetlinkError) return undefined; // A kernel without the module for it.
    throw error;
  }
  return ports;
}

/**
 * The ids of the control groups (version 2) whose sockets wait for datagrams at a UDP port; none where the kernel has no such
 * question, or is older than 5.8. Throws AMB7010.
 */
export function groupsAtUdpPort(port: number, netns?: Netns): ReadonlySet<number> {
  using socket = NetlinkSocket.open(NETLINK_SOCK_DIAG, netns);
  const ids = new Set<number>();
  try {
    for (const family of [libc.AF.INET, libc.AF.INET6]) {
      const request = new Uint8Array(REQUEST_BYTES), view = new DataView(request.buffer);
      request.set([family, IPPROTO_UDP]);
      view.setUint32(4, 1 << TCP_CLOSE, true);
      view.setUint16(ASKED_PORT_AT, port);
      for (const { payload } of socket.request(SOCK_DIAG_BY_FAMILY, NLM_F.DUMP, (writer) => void writer.raw(request))) {
        if (payload.length < MESSAGE_BYTES) continue;
        if ((payload[SOURCE_PORT_AT]! << 8 | payload[SOURCE_PORT_AT + 1]!) !== port) continue;
        const id = Attributes.read(payload.subarray(MESSAGE_BYTES))?.bytes(CGROUP_ID);
        if (id?.length === 8) ids.add(Number(new DataView(id.buffer, id.byteOffset).getBigUint64(0, true)));
      }
    }
  } catch (error) {
    if (error instanceof NetlinkError) return ids;
    throw error;
  }
  return ids;
}
