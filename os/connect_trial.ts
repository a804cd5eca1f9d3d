/** Tries one TCP connection from inside a network namespace, and says how it went; nothing is sent on it. */
import { ipToBytes, parseIp } from "../base/address.ts";
import { assert } from "../base/assert.ts";
import * as libc from "./libc_cold.ts";
import { type Netns, withinNetns } from "./netns.ts";

export type TrialOutcome = "connected" | "refused" | "silent" | "unreachable";

const SOL_SOCKET = 1, SO_LINGER = 13, SO_SNDTIMEO = 21;
const RESET_ON_CLOSE = new Uint8Array(Int32Array.of(1, 0).buffer); // struct linger: on, for no time
const EINPROGRESS = 115; // The limit has passed.

/** Waits at most `limitMs`, blocking this thread, and resets what was connected. Throws never but for an address that is none. */
export function tryConnection(
  netns: Netns,
  to: { readonly ip: string; readonly port: number },
  limitMs: number,
): TrialOutcome {
  const v6 = to.ip.includes(":"), words = parseIp(to.ip);
  assert(words !== undefined, "a trial has an address");
  const address = new Uint8Array(v6 ? 28 : 16), view = new DataView(address.buffer);
  view.setUint16(0, v6 ? libc.AF.INET6 : libc.AF.INET, true);
  view.setUint16(2, to.port);
  if (v6) words.forEach((word, at) => view.setUint32(8 + at * 4, word));
  else address.set(ipToBytes(words), 4);
  const fd = withinNetns(netns, () => libc.socket(v6 ? libc.AF.INET6 : libc.AF.INET, libc.SOCK.STREAM, 0));
  if (fd < 0) return "unreachable"; // No such family here.
  libc.setSocketOption(fd, SOL_SOCKET, SO_LINGER, RESET_ON_CLOSE);
  const limit = new BigInt64Array([BigInt(Math.floor(limitMs / 1000)), BigInt((limitMs % 1000) * 1000)]);
  libc.setSocketOption(fd, SOL_SOCKET, SO_SNDTIMEO, new Uint8Array(limit.buffer));
  const result = libc.connect(fd, address);
  libc.close(fd);
  if (result >= 0) return "connected";
  if (result === -libc.Errno.ECONNREFUSED) return "refused";
  return result === -EINPROGRESS || result === -libc.Errno.EAGAIN || result === -libc.Errno.EINTR
    ? "silent"
    : "unreachable";
}
