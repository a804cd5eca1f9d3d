/** A netlink socket: synchronous requests, each answered by an acknowledgement, an error or a dump. */
import { ignore, MeshError } from "../../base/errors.ts";
import * as libc from "../libc_cold.ts";
import { type Netns, withinNetns } from "../netns.ts";
import {
  Attributes,
  HEADER_BYTES,
  type Message,
  MessageWriter,
  NLM_F,
  NLMSG,
  readMessages,
  REQUEST_BYTES_MAX,
} from "./message.ts";

export const NETLINK = { ROUTE: 0, NETFILTER: 12 } as const;

const ANSWER_BYTES = 64 * 1024; // the kernel makes dump datagrams of at most 32 KiB
const ANSWERS_MAX = 10_000; // datagrams of one dump; more is a table far beyond what a pod or node holds
const RECEIVE_TIMEOUT_S = 5n; // the kernel answers within the call; this only bounds what should not happen
const SOL_SOCKET = 1,
  SO_RCVTIMEO = 20,
  SO_SNDBUF = 7,
  SO_SNDBUFFORCE = 32,
  SOL_NETLINK = 270,
  NETLINK_EXT_ACK = 11,
  NETLINK_CAP_ACK = 10;
const NLMSGERR_ATTR_MSG = 1;

/** A failure that the kernel answered: `errno` is positive, `reason` its own words where it gave any. */
export class NetlinkError extends Error {
  override readonly name = "NetlinkError";
  readonly errno: number;
  /** The message that was refused, where the kernel says which. */
  readonly sequence: number | undefined;

  constructor(errno: number, reason: string, sequence?: number) {
    super(reason === "" ? libc.errnoName(errno) : `${libc.errnoName(errno)} (${reason})`);
    this.errno = errno;
    this.sequence = sequence;
  }
}

/** Belongs for its whole life to the namespace it was opened in, wherever the thread goes afterwards. */
export class NetlinkSocket implements Disposable {
  readonly #fd: number;
  #sequence = 0;
  #open = true;
  readonly #answer = new Uint8Array(ANSWER_BYTES);

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Opens a socket in `netns`, or in the namespace of this thread. Throws AMB7010. */
  static open(protocol: number, netns?: Netns): NetlinkSocket {
    const make = () => libc.socket(libc.AF.NETLINK, libc.SOCK.RAW, protocol);
    const fd = netns === undefined ? make() : withinNetns(netns, make);
    if (fd < 0) {
      throw new MeshError("AMB7010", `cannot open a netlink socket: ${libc.errnoName(fd)}`, {
        remedy: "Check that the kernel has CONFIG_NETFILTER_NETLINK and that no seccomp filter forbids AF_NETLINK.",
      });
    }
    const timeout = new Uint8Array(BigInt64Array.of(RECEIVE_TIMEOUT_S, 0n).buffer); // struct timeval
    ignore(libc.setSocketOption(fd, SOL_SOCKET, SO_RCVTIMEO, timeout), "without it a wait has no bound, no more");
    if (libc.setSocketFlag(fd, SOL_SOCKET, SO_SNDBUFFORCE, REQUEST_BYTES_MAX) < 0) {
      ignore(libc.setSocketFlag(fd, SOL_SOCKET, SO_SNDBUF, 1 << 20), "the default holds all but huge transactions");
    }
    ignore(libc.setSocketFlag(fd, SOL_NETLINK, NETLINK_EXT_ACK, 1), "an old kernel gives no reasons");
    ignore(libc.setSocketFlag(fd, SOL_NETLINK, NETLINK_CAP_ACK, 1), "an old kernel echoes the request");
    return new NetlinkSocket(fd);
  }

  /** Sends one request and waits for its end. @returns The messages of a dump; empty for an acknowledgement. Throws NetlinkError. */
  request(type: number, flags: number, body: (writer: MessageWriter) => void): Message[] {
    const sequence = ++this.#sequence;
    this.#send(new MessageWriter().message(type, flags | NLM_F.REQUEST | NLM_F.ACK, sequence, body).finish());
    const messages: Message[] = [];
    for (let count = 0; count < ANSWERS_MAX; count++) {
      for (const message of this.#receive()) {
        if (message.sequence !== sequence) continue; // What is left of an earlier, failed request.
        if (message.type === NLMSG.ERROR) {
          throwIfFailed(message);
          return messages;
        }
        if (message.type === NLMSG.DONE) {
          throwIfFailed(message); // Its payload begins as that of an error does.
          return messages;
        }
        messages.push(message);
      }
    }
    throw new NetlinkError(libc.Errno.ENOBUFS, "the dump has no end");
  }

  /** The next unused sequence number, for a transaction of several messages. */
  nextSequence(): number {
    return ++this.#sequence;
  }

  /**
   * Sends a batch and waits until its `last` message was acknowledged, which alone asks for that: answers to each of thousands
   * would not fit where they wait for us. What fails is answered unasked. Throws the first error, after all answers were read.
   * @param first of the batch's sequence numbers.
   */
  transact(bytes: Uint8Array<ArrayBuffer>, { first, last }: { readonly first: number; readonly last: number }): void {
    this.#send(bytes);
    let failure: NetlinkError | undefined, answered = false;
    for (let count = 0; count < ANSWERS_MAX && !answered; count++) {
      for (const message of this.#receive()) {
        if (message.type !== NLMSG.ERROR || message.sequence < first) continue; // What is left of an earlier, failed request.
        try {
          throwIfFailed(message);
        } catch (error) {
          failure ??= error as NetlinkError;
        }
        answered ||= message.sequence === last;
      }
      if (failure !== undefined && this.#nothingWaits()) break; // A batch that was refused itself acknowledges nothing.
    }
    if (failure !== undefined) throw failure;
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    libc.close(this.#fd);
  }

  #send(bytes: Uint8Array<ArrayBuffer>): void {
    const sent = libc.send(this.#fd, bytes);
    if (sent < 0) throw new NetlinkError(-sent, "sending the request");
  }

  #nothingWaits(): boolean {
    return libc.receive(this.#fd, this.#answer, libc.MSG.DONTWAIT | libc.MSG.PEEK) === -libc.Errno.EAGAIN;
  }

  #receive(): Message[] {
    const count = libc.receive(this.#fd, this.#answer, libc.MSG.TRUNC);
    if (count === -libc.Errno.EINTR) return [];
    if (count < 0) throw new NetlinkError(-count, "waiting for the answer");
    if (count > ANSWER_BYTES) throw new NetlinkError(libc.Errno.EMSGSIZE, "the answer was cut");
    const messages = readMessages(this.#answer.subarray(0, count));
    if (messages === undefined) throw new NetlinkError(libc.Errno.EINVAL, "the answer is malformed");
    return messages;
  }
}

/** Throws what an NLMSG_ERROR or NLMSG_DONE reports; code 0 is an acknowledgement, or the end of a dump. */
function throwIfFailed(message: Message): void {
  if (message.payload.length < 4) throw new NetlinkError(libc.Errno.EINVAL, "the answer is malformed");
  const view = new DataView(message.payload.buffer);
  const code = view.getInt32(0, true);
  if (code === 0) return;
  const EXTENDED = 0x200; // NLM_F_ACK_TLVS: attributes follow the header of the refused request
  const CAPPED = 0x100; // NLM_F_CAPPED: of the refused request there is just the header
  let reason = "";
  if ((message.flags & EXTENDED) !== 0 && message.payload.length >= 4 + HEADER_BYTES) {
    const at = 4 + ((message.flags & CAPPED) !== 0 ? HEADER_BYTES : view.getUint32(4, true));
    reason = Attributes.read(message.payload, (at + 3) & ~3)?.string(NLMSGERR_ATTR_MSG) ?? "";
  }
  throw new NetlinkError(-code, reason, message.sequence);
}
