/** SOCKS version 5 as far as a proxy without authentication needs it: the client's two messages and our answers (RFC 1928 §3 to §6). */
import { readUint16, readUint32, writeUint32 } from "./bytes.ts";

/** Why a request is not carried out; the values of RFC 1928 §6 that are used (ZT-190). */
export const SocksReply = { SUCCEEDED: 0, GENERAL_FAILURE: 1, HOST_UNREACHABLE: 4, COMMAND_NOT_SUPPORTED: 7 } as const;
export type SocksReply = (typeof SocksReply)[keyof typeof SocksReply];

const VERSION = 5, CONNECT = 1, NO_AUTHENTICATION = 0;
const AddressType = { IPV4: 1, NAME: 3, IPV6: 4 } as const;

/** The longest message: a request for a name of 255 bytes, or a greeting with 255 methods. */
export const SOCKS_MESSAGE_BYTES_MAX = 262;
/** Our choice of method: none. */
export const SOCKS_METHOD_CHOSEN: Uint8Array = Uint8Array.of(VERSION, NO_AUTHENTICATION);

/** How long the greeting of `bytes[0..have)` is, as far as can be told: never more than is certain. */
export function greetingBytes(bytes: Uint8Array, have: number): number {
  return have < 2 || bytes[0] !== VERSION ? 2 : 2 + bytes[1]!;
}

/** Whether a complete greeting offers what we can do. */
export function checkGreeting(bytes: Uint8Array, end: number): SocksReply {
  if (bytes[0] !== VERSION) return SocksReply.COMMAND_NOT_SUPPORTED;
  for (let at = 2; at < end; at++) if (bytes[at] === NO_AUTHENTICATION) return SocksReply.SUCCEEDED;
  return SocksReply.COMMAND_NOT_SUPPORTED;
}

/** How long the request of `bytes[0..have)` is, as far as can be told: never more than is certain. */
export function requestBytes(bytes: Uint8Array, have: number): number {
  if (have < 5) return 5; // A name has a length byte and a port at least, an address more.
  if (bytes[3] === AddressType.IPV4) return 10;
  if (bytes[3] === AddressType.IPV6) return 22;
  return bytes[3] === AddressType.NAME ? 7 + bytes[4]! : 5;
}

/**
 * Reads a complete request to connect to an address, or to a name ({@link requestName}).
 * @param target takes the address' four words, unless it is a name, and the port. @returns SUCCEEDED, or what to answer.
 */
export function readRequest(bytes: Uint8Array, end: number, target: Uint32Array): SocksReply {
  if (bytes[0] !== VERSION || bytes[1] !== CONNECT || bytes[2] !== 0) return SocksReply.COMMAND_NOT_SUPPORTED;
  if (bytes[3] === AddressType.NAME) target.fill(0, 0, 4);
  else if (bytes[3] === AddressType.IPV4) target.set([0, 0, 0xffff, readUint32(bytes, 4)]);
  else if (bytes[3] !== AddressType.IPV6) return SocksReply.COMMAND_NOT_SUPPORTED;
  else for (let word = 0; word < 4; word++) target[word] = readUint32(bytes, 4 + 4 * word);
  target[4] = readUint16(bytes, end - 2);
  return SocksReply.SUCCEEDED;
}

/** The name that a complete, well-formed request asks for as it was sent, or undefined where it has an address. */
export function requestName(bytes: Uint8Array): string | undefined {
  if (bytes[3] !== AddressType.NAME) return undefined;
  return String.fromCharCode(...bytes.subarray(5, 5 + bytes[4]!));
}

/** The answer to a request. It names no address of ours: nothing is connected yet. */
export function replyMessage(reply: SocksReply): Uint8Array {
  const bytes = new Uint8Array(10);
  writeUint32(bytes, 0, (VERSION << 24) | (reply << 16) | AddressType.IPV4);
  return bytes;
}
