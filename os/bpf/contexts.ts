/** What each kind of program is handed in R1, as linux/bpf.h lays it out. Addresses and ports are in network order unless said otherwise. */
import type { Field } from "./assembler.ts";

const word = (at: number): Field => ({ at, bytes: 4 });
const words = (
  at: number,
): readonly [Field, Field, Field, Field] => [word(at), word(at + 4), word(at + 8), word(at + 12)];
const pointer = (at: number): Field => ({ at, bytes: 8 });

/** struct bpf_sock_addr: connect, sendmsg, recvmsg, getpeername. */
export const SOCK_ADDR = {
  ip4: word(4),
  ip6: words(8),
  port: word(24),
  protocol: word(36),
  socket: pointer(64),
} as const;

/** struct bpf_sock_ops. */
export const SOCK_OPS = {
  operation: word(0),
  oldState: word(4),
  newState: word(8),
  family: word(20),
  remoteIp4: word(24),
  localIp4: word(28),
  remoteIp6: words(32),
  localIp6: words(48),
  /** The port in the upper half, in network order: swapped, it is the number. */
  remotePort: word(64),
  /** A number. */
  localPort: word(68),
} as const;

/** struct bpf_sockopt. */
export const SOCKOPT = {
  socket: pointer(0),
  value: pointer(8),
  valueEnd: pointer(16),
  level: word(24),
  name: word(28),
  length: word(32),
  result: word(36),
} as const;

/** struct bpf_sk_lookup. */
export const SK_LOOKUP = {
  family: word(8),
  protocol: word(12),
  remoteIp4: word(16),
  remoteIp6: words(20),
  localIp4: word(40),
  localIp6: words(44),
  /** A number. */
  localPort: word(60),
  interface: word(64),
} as const;

/** struct __sk_buff, as far as programs of an interface need it. */
export const PACKET = {
  mark: word(8),
  protocol: word(16),
} as const;

/** struct bpf_sock, which contexts point to. */
export const SOCKET = {
  family: word(4),
  mark: word(16),
  /** The other end's port, 16 bits. */
  remotePort: { at: 48, bytes: 2 },
  remoteIp4: word(52),
  remoteIp6: words(56),
} as const satisfies Record<string, Field | readonly Field[]>;

/** What sock_ops tells of (BPF_SOCK_OPS_…). */
export const SocketEvent = { CONNECTING: 3, STATE: 10 } as const;
/** Asks sock_ops to tell of changes of state. */
export const STATE_EVENTS = 4;
export const TCP_CLOSED = 7;
export const FAMILY = { INET: 2, INET6: 10 } as const;
export const PROTOCOL = { TCP: 6, UDP: 17 } as const;
