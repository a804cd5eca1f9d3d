/** Asks the nameservers in a pod's name, and remembers what they said (ZT-186). */
import type { IpWords } from "../../../base/address.ts";
import { Code, type Query, readResponse, type Response, secondsToKeep } from "../../../wire/dns/message.ts";
import { writeQuery } from "../../../wire/dns/message_writer.ts";
import { lowerCase } from "../../../wire/dns/name.ts";
import { type CacheLimits, type KeptResponse, ResponseCache } from "./cache.ts";
import type { UpstreamSettings } from "./resolv_conf.ts";

/** Looks at what came. @returns undefined if it is not the response: the exchange goes on. */
export type Accept = (bytes: Uint8Array<ArrayBuffer>) => Response | undefined;

/** A response with its bytes. */
export interface Exchanged {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly response: Response;
}

/** Ways to a nameserver, from the pod's namespace and with its mark. Each exchange has a socket of its own. */
export interface UpstreamSockets {
  /** @returns undefined at the deadline, when it is refused, or after too much of what was not accepted. */
  exchangeUdp(
    nameserver: IpWords,
    query: Uint8Array<ArrayBuffer>,
    options: ExchangeOptions,
  ): Promise<Exchanged | undefined>;
  exchangeTcp(
    nameserver: IpWords,
    query: Uint8Array<ArrayBuffer>,
    options: ExchangeOptions,
  ): Promise<Exchanged | undefined>;
}

export interface ExchangeOptions {
  readonly timeoutMs: number;
  readonly accept: Accept;
  readonly signal: AbortSignal;
}

export interface ForwarderOptions {
  readonly settings: UpstreamSettings;
  readonly sockets: UpstreamSockets;
  readonly now: () => number;
  /** 16 random bits that nobody can guess: the ids of queries. */
  readonly randomId: () => number;
  readonly signal: AbortSignal;
  /** What may be in flight, and be kept. */
  readonly limits?: ForwarderLimits;
}

export interface ForwarderLimits extends CacheLimits {
  readonly inFlightMax: number;
}

/** Different questions that a pod may have in flight; one more is answered with SERVFAIL. */
const IN_FLIGHT_MAX = 128;
/** What one pod's answers may take: 250 pods of a node fill 64 MiB at most. */
const POD_LIMITS: ForwarderLimits = { entriesMax: 1_024, bytesMax: 256 * 1024, inFlightMax: IN_FLIGHT_MAX };
/** A resolver in the pod asks again after five seconds: by then the second nameserver must have had its chance. */
const TRY_MS_MAX = 2_000;
const TCP_MS_MAX = 5_000; // ZT-186
const TOTAL_MS_MAX = 10_000;

/** Forwards for one pod. */
export class Forwarder {
  readonly #options: ForwarderOptions;
  readonly #limits: ForwarderLimits;
  readonly #cache: ResponseCache;
  /** Equal questions share an exchange, also so that nobody can have many ids in flight to guess from. */
  readonly #inFlight = new Map<string, Promise<KeptResponse | undefined>>();
  #first = 0;

  constructor(options: ForwarderOptions) {
    this.#options = options;
    this.#limits = options.limits ?? POD_LIMITS;
    this.#cache = new ResponseCache(this.#limits);
  }

  /** @returns What a nameserver said, now or before, or undefined: to be answered with SERVFAIL. Never rejects. */
  async forward(query: Query): Promise<KeptResponse | undefined> {
    const key = keyOf(query);
    const known = this.#cache.get(key, this.#options.now()) ?? this.#inFlight.get(key);
    if (known !== undefined) return await known;
    if (this.#inFlight.size >= this.#limits.inFlightMax) return undefined;
    const exchanging = this.#ask(query, key);
    this.#inFlight.set(key, exchanging);
    try {
      return await exchanging;
    } finally {
      this.#inFlight.delete(key);
    }
  }

  /** Goes through the nameservers until one gives a usable answer; else the last unusable one stands. */
  async #ask(query: Query, key: string): Promise<KeptResponse | undefined> {
    const { settings, signal, now } = this.#options;
    const { nameservers } = settings, deadline = now() + TOTAL_MS_MAX;
    let refusal: KeptResponse | undefined;
    const first = settings.rotate ? this.#first++ : 0;
    for (let at = 0; at < settings.attempts * nameservers.length; at++) {
      const left = deadline - now();
      if (left <= 0 || signal.aborted) break;
      const nameserver = nameservers[(first + at) % nameservers.length]!;
      const exchanged = await this.#askOne(nameserver, query, left);
      if (exchanged === undefined) continue;
      const kept: KeptResponse = { ...exchanged, receivedAtMs: now() };
      if (!isFinal(exchanged.response)) {
        refusal = kept;
        continue;
      }
      this.#cache.put(key, kept, secondsToKeep(exchanged.bytes, exchanged.response));
      return kept;
    }
    return refusal;
  }

  /** With EDNS, and without where the nameserver does not understand it (RFC 6891 §7). */
  async #askOne(nameserver: IpWords, query: Query, leftMs: number): Promise<Exchanged | undefined> {
    const startedAtMs = this.#options.now();
    const exchanged = await this.#exchange(nameserver, query, { leftMs, edns: true });
    if (exchanged?.response.code !== Code.FORMERR && exchanged?.response.code !== Code.NOTIMP) return exchanged;
    const stillLeftMs = leftMs - (this.#options.now() - startedAtMs);
    if (stillLeftMs <= 0) return exchanged;
    return await this.#exchange(nameserver, query, { leftMs: stillLeftMs, edns: false }) ?? exchanged;
  }

  /** By UDP, and by TCP what does not fit. */
  async #exchange(
    nameserver: IpWords,
    query: Query,
    { leftMs, edns }: { readonly leftMs: number; readonly edns: boolean },
  ): Promise<Exchanged | undefined> {
    const { settings, sockets, randomId, signal } = this.#options;
    const id = randomId(), bytes = writeQuery(id, query, edns);
    const accept: Accept = (received) => readResponse(received, id, query.question);
    const timeoutMs = Math.min(settings.timeoutMs, TRY_MS_MAX, leftMs);
    const exchanged = await sockets.exchangeUdp(nameserver, bytes, { timeoutMs, accept, signal });
    if (exchanged === undefined || !exchanged.response.truncated) return exchanged;
    const whole = await sockets.exchangeTcp(nameserver, bytes, {
      timeoutMs: Math.min(TCP_MS_MAX, leftMs),
      accept,
      signal,
    });
    return whole ?? exchanged; // What there is, and its flag says that there is more.
  }
}

/** Whether it is an answer, and not a nameserver's inability: then another may know. */
function isFinal({ code }: Response): boolean {
  return code === Code.NOERROR || code === Code.NXDOMAIN;
}

/** Questions are equal but for the case of letters; DO and CD change what an upstream says. */
function keyOf({ question, edns, flags }: Query): string {
  const CHECKING_DISABLED = 0x10;
  let key = `${edns?.dnssecOk === true ? "d" : ""}${(flags & CHECKING_DISABLED) === 0 ? "" : "c"}:`;
  const nameEnd = question.length - 4; // Type and class are no letters.
  for (const [at, byte] of question.entries()) key += String.fromCharCode(at < nameEnd ? lowerCase(byte) : byte);
  return key;
}
