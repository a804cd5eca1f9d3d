/** Exchanges with nameservers over sockets that are made in a pod's network namespace, with its mark (ZT-186). */
import type { IpWords } from "../../../base/address.ts";
import { MeshError } from "../../../base/errors.ts";
import type { Response } from "../../../wire/dns/message.ts";
import { withLength } from "../../../wire/dns/message_writer.ts";
import { connectInet, connectOutcome } from "../../../os/inet.ts";
import * as libc from "../../../os/libc_cold.ts";
import { type Netns, withinNetns } from "../../../os/netns.ts";
import { type Poller, READABLE, type Watched, WRITABLE } from "../../../os/poller.ts";
import { closeFd } from "../../../os/sockets.ts";
import type { Exchanged, ExchangeOptions, UpstreamSockets } from "./forwarder.ts";

const DNS_PORT = 53;
/** Far more than we say that we take: a nameserver that sends more has not read our query. */
const DATAGRAM_BYTES_MAX = 4_096;
/** Datagrams that are no response to our query, from the nameserver's own address: then something is wrong there. */
const STRANGERS_MAX = 16;

export interface PodUpstreamOptions {
  readonly netns: Netns;
  readonly mark: number;
  readonly poller: Poller;
  /** Another port than 53, for tests. */
  readonly port?: number;
}

/** What an exchange does when its socket is ready. `settle` ends it, with what was accepted or nothing. */
type Step = (fd: number, settle: (exchanged: Exchanged | undefined) => void) => void;

/** A socket for each exchange: its port is the kernel's random choice, and only the nameserver's datagrams arrive. */
export class PodUpstreamSockets implements UpstreamSockets {
  readonly #options: PodUpstreamOptions;

  constructor(options: PodUpstreamOptions) {
    this.#options = options;
  }

  exchangeUdp(
    nameserver: IpWords,
    query: Uint8Array<ArrayBuffer>,
    options: ExchangeOptions,
  ): Promise<Exchanged | undefined> {
    let strangers = 0;
    const read: Step = (fd, settle) => {
      const target = new Uint8Array(DATAGRAM_BYTES_MAX);
      const count = libc.receive(fd, target);
      if (count < 0) return isTransient(count) ? undefined : settle(undefined);
      const bytes = target.slice(0, count), response = options.accept(bytes);
      if (response !== undefined) settle({ bytes, response });
      else if (++strangers >= STRANGERS_MAX) settle(undefined);
    };
    return this.#exchange("udp", nameserver, options, (fd, settle, watched) => {
      if (libc.send(fd, query) === query.length) watched(READABLE, read);
      else settle(undefined);
    });
  }

  exchangeTcp(
    nameserver: IpWords,
    query: Uint8Array<ArrayBuffer>,
    options: ExchangeOptions,
  ): Promise<Exchanged | undefined> {
    const framed = withLength(query);
    const reader = new FramedReader();
    const read: Step = (fd, settle) => {
      const state = reader.read(fd);
      if (state === "more") return;
      const response: Response | undefined = state === "whole" ? options.accept(reader.message) : undefined;
      settle(response === undefined ? undefined : { bytes: reader.message, response });
    };
    return this.#exchange("tcp", nameserver, options, (_, __, watched) => {
      watched(WRITABLE, (fd, settle) => {
        // The query is far smaller than an empty socket buffer: it goes in one piece, or something is wrong.
        if (connectOutcome(fd) < 0 || libc.send(fd, framed) !== framed.length) return settle(undefined);
        watched(READABLE, read);
      });
    });
  }

  #exchange(
    transport: "udp" | "tcp",
    nameserver: IpWords,
    { timeoutMs, signal }: ExchangeOptions,
    begin: (
      fd: number,
      settle: (exchanged: Exchanged | undefined) => void,
      watch: (events: number, step: Step) => void,
    ) => void,
  ): Promise<Exchanged | undefined> {
    const { netns, mark, poller, port } = this.#options;
    if (signal.aborted) return Promise.resolve(undefined);
    const fd = withinNetns(netns, () => connectInet(nameserver, port ?? DNS_PORT, { transport, mark }));
    if (fd < 0) return Promise.resolve(undefined);
    const { promise, resolve } = Promise.withResolvers<Exchanged | undefined>();
    let watched: Watched | undefined, settled = false;
    const settle = (exchanged: Exchanged | undefined) => {
      if (settled) return;
      settled = true;
      clearTimeout(timer);
      signal.removeEventListener("abort", giveUp);
      watched?.end();
      closeFd(fd);
      resolve(exchanged);
    };
    const giveUp = () => settle(undefined);
    const timer = setTimeout(giveUp, timeoutMs);
    signal.addEventListener("abort", giveUp);
    try {
      begin(fd, settle, (events, step) => {
        watched?.end();
        watched = poller.watch(fd, events, () => step(fd, settle));
      });
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      settle(undefined); // The kernel watches no more descriptors: a nameserver that cannot be asked.
    }
    return promise;
  }
}

/** Collects one message of TCP. */
class FramedReader {
  readonly #length = new Uint8Array(2);
  #lengthBytes = 0;
  message = new Uint8Array(0);
  #messageBytes = 0;

  /** @returns `broken` when the stream ends or fails first. */
  read(fd: number): "more" | "whole" | "broken" {
    if (this.#lengthBytes < 2) {
      const part = new Uint8Array(2 - this.#lengthBytes);
      const count = libc.receive(fd, part);
      if (count <= 0) return count !== 0 && isTransient(count) ? "more" : "broken";
      this.#length.set(part.subarray(0, count), this.#lengthBytes);
      this.#lengthBytes += count;
      if (this.#lengthBytes < 2) return "more";
      this.message = new Uint8Array((this.#length[0]! << 8) | this.#length[1]!);
      if (this.message.length === 0) return "broken";
    }
    const count = libc.receive(fd, this.message.subarray(this.#messageBytes));
    if (count <= 0) return count !== 0 && isTransient(count) ? "more" : "broken";
    this.#messageBytes += count;
    return this.#messageBytes === this.message.length ? "whole" : "more";
  }
}

function isTransient(result: number): boolean {
  return result === -libc.Errno.EAGAIN || result === -libc.Errno.EINTR;
}
