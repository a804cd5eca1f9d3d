/** Certificates by identity: fetched once for all pods, renewed at half their life, retried without end (ZT-153 to ZT-158). */
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { WorkloadCertificate } from "./workload_certificate.ts";

/** Why a certificate is wanted; higher goes first (ZT-154). */
export const Priority = { REAL_TIME: 0, WARM_UP: 1, BACKGROUND: 2 } as const;
export type Priority = (typeof Priority)[keyof typeof Priority];

export interface CertificatesOptions {
  /** Fetches a certificate. @throws MeshError if there is none to be had now. */
  readonly fetch: (identity: string) => Promise<WorkloadCertificate>;
  readonly onCertificate: (identity: string, certificate: WorkloadCertificate) => void;
  /** No valid certificate, and the last try failed. */
  readonly onUnavailable: (identity: string, error: MeshError) => void;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** From 0 to 1. */
  readonly random: () => number;
  /** Calls back once after so many milliseconds. @returns What cancels it. */
  readonly schedule: (callback: () => void, ms: number) => () => void;
  readonly log: Logger;
}

export type CertificateState = "queued" | "fetching" | "available" | "unavailable";

/** One identity for the admin page (ZT-214); the key is not in it. */
export interface CertificateStatus {
  readonly identity: string;
  readonly state: CertificateState;
  readonly certificate: Omit<WorkloadCertificate, "privateKeyPem"> | undefined;
  readonly error: string | undefined;
}

interface Entry {
  readonly identity: string;
  certificate: WorkloadCertificate | undefined;
  error: MeshError | undefined;
  priority: Priority | undefined; // set while queued
  fetching: boolean;
  forgotten: boolean;
  failures: number;
  firstFailureAtMs: number;
  cancelTimer: (() => void) | undefined;
  waiters: { resolve: (certificate: WorkloadCertificate) => void; reject: (error: MeshError) => void }[];
}

const PARALLEL_MAX = 8; // ZT-153
const RETRY_FIRST_MS = 1_000; // ZT-157, with the next three
const RETRY_MAX_MS = 150_000;
const RETRY_JITTER = 0.2;
const PERSISTENT_FAILURE_MS = 15 * 60_000;
const TIMER_MS_MAX = 86_400_000; // timers overflow past 2^31 ms, and clocks are set: look again at least daily

export class Certificates {
  readonly #options: CertificatesOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #queues: readonly Set<Entry>[] = [new Set(), new Set(), new Set()];
  #inFlight = 0;
  #stopped = false;

  constructor(options: CertificatesOptions) {
    this.#options = options;
  }

  /** Sees to it that the identity has a certificate; a waiting request of lower priority is raised (ZT-154). */
  want(identity: string, priority: Priority): void {
    const entry = this.#entries.get(identity);
    if (entry === undefined) {
      const fresh = newEntry(identity);
      this.#entries.set(identity, fresh);
      this.#enqueue(fresh, priority);
    } else if (entry.priority !== undefined && priority < entry.priority) this.#enqueue(entry, priority);
    this.#startFetches();
  }

  /** The certificate, once there is one. Rejects at once if the last try failed (ZT-156), or when the identity is forgotten. */
  get(identity: string): Promise<WorkloadCertificate> {
    this.want(identity, Priority.REAL_TIME);
    const entry = this.#entries.get(identity)!;
    const valid = this.#validOf(entry);
    if (valid !== undefined) return Promise.resolve(valid);
    if (entry.error !== undefined) return Promise.reject(entry.error);
    return new Promise((resolve, reject) => entry.waiters.push({ resolve, reject }));
  }

  /** The valid certificate there is now. */
  current(identity: string): WorkloadCertificate | undefined {
    const entry = this.#entries.get(identity);
    return entry === undefined ? undefined : this.#validOf(entry);
  }

  /** Why there is none, if the last try failed. */
  failure(identity: string): MeshError | undefined {
    return this.current(identity) === undefined ? this.#entries.get(identity)?.error : undefined;
  }

  /** Drops an identity; an answer in flight for it is discarded (ZT-158). */
  forget(identity: string): void {
    const entry = this.#entries.get(identity);
    if (entry === undefined) return;
    this.#entries.delete(identity);
    this.#retire(entry, new MeshError("AMB0312", "the identity is no longer needed", { remedy: "none is needed" }));
  }

  /** Ends all timers and waits; nothing is called back afterwards. */
  stop(): void {
    this.#stopped = true;
    for (const identity of [...this.#entries.keys()]) this.forget(identity);
  }

  status(): CertificateStatus[] {
    return [...this.#entries.values()].map((entry) => {
      const valid = this.#validOf(entry);
      const { privateKeyPem: _, ...shown } = valid ?? { privateKeyPem: "" };
      const waiting = entry.fetching ? "fetching" : entry.priority !== undefined ? "queued" : "unavailable";
      return {
        identity: entry.identity,
        state: valid !== undefined ? "available" : entry.error !== undefined ? "unavailable" : waiting,
        certificate: valid === undefined ? undefined : shown as Omit<WorkloadCertificate, "privateKeyPem">,
        error: entry.error === undefined ? undefined : chain(entry.error),
      };
    });
  }

  #validOf(entry: Entry): WorkloadCertificate | undefined {
    const { certificate } = entry;
    return certificate !== undefined && this.#options.now() < certificate.notAfterMs ? certificate : undefined;
  }

  #enqueue(entry: Entry, priority: Priority): void {
    if (entry.priority !== undefined) this.#queues[entry.priority]!.delete(entry);
    entry.priority = priority;
    this.#queues[priority]!.add(entry);
  }

  #startFetches(): void {
    while (this.#inFlight < PARALLEL_MAX && !this.#stopped) {
      const entry = this.#takeNext();
      if (entry === undefined) return;
      entry.fetching = true;
      this.#inFlight++;
      this.#options.fetch(entry.identity).then(
        (certificate) => this.#settle(entry, certificate),
        (error) => {
          if (!(error instanceof MeshError)) throw error; // Our own mistake.
          this.#settle(entry, error);
        },
      );
    }
  }

  #takeNext(): Entry | undefined {
    for (const queue of this.#queues) {
      for (const entry of queue) {
        queue.delete(entry);
        entry.priority = undefined;
        return entry;
      }
    }
    return undefined;
  }

  #settle(entry: Entry, result: WorkloadCertificate | MeshError): void {
    entry.fetching = false;
    this.#inFlight--;
    if (!entry.forgotten && !this.#stopped) {
      if (result instanceof MeshError) this.#onFailure(entry, result);
      else this.#onSuccess(entry, result);
    }
    this.#startFetches();
  }

  #onSuccess(entry: Entry, certificate: WorkloadCertificate): void {
    const { now, onCertificate, log } = this.#options;
    entry.certificate = certificate;
    entry.error = undefined;
    entry.failures = 0;
    onCertificate(entry.identity, certificate);
    for (const { resolve } of entry.waiters.splice(0)) resolve(certificate);
    const halfLifeMs = certificate.notBeforeMs + (certificate.notAfterMs - certificate.notBeforeMs) / 2; // ZT-155
    // A CA that hands out certificates past their half must not be asked in a tight loop.
    const dueMs = Math.max(halfLifeMs, now() + RETRY_FIRST_MS);
    this.#refreshAt(entry, dueMs);
    const facts = { serial: certificate.serial, notAfter: new Date(certificate.notAfterMs).toISOString() };
    log.info("certificate received", { identity: entry.identity, ...facts });
  }

  #onFailure(entry: Entry, error: MeshError): void {
    const { now, random, onUnavailable, log } = this.#options;
    const nowMs = now();
    if (entry.failures++ === 0) entry.firstFailureAtMs = nowMs;
    const persistent = nowMs - entry.firstFailureAtMs >= PERSISTENT_FAILURE_MS;
    const plainMs = persistent ? RETRY_MAX_MS : Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** (entry.failures - 1));
    const jittered = plainMs * (1 - RETRY_JITTER + 2 * RETRY_JITTER * random());
    const valid = this.#validOf(entry);
    const retryAtMs = valid === undefined ? nowMs + jittered : Math.min(nowMs + jittered, valid.notAfterMs);
    if (valid === undefined) { // ZT-156: the valid one stays in use; without one everybody hears of it at once.
      entry.error = error;
      for (const { reject } of entry.waiters.splice(0)) reject(error);
      onUnavailable(entry.identity, error);
    }
    const facts = { identity: entry.identity, error: chain(error), retryMs: Math.round(retryAtMs - nowMs) };
    log.warn(valid === undefined ? "no certificate" : "certificate not renewed yet", facts);
    this.#refreshAt(entry, retryAtMs);
  }

  #refreshAt(entry: Entry, atMs: number): void {
    const { now, schedule } = this.#options;
    entry.cancelTimer?.();
    const waitMs = Math.max(0, atMs - now());
    entry.cancelTimer = schedule(() => {
      entry.cancelTimer = undefined;
      if (waitMs > TIMER_MS_MAX) return this.#refreshAt(entry, atMs);
      const priority = this.#validOf(entry) === undefined ? Priority.REAL_TIME : Priority.BACKGROUND;
      this.#enqueue(entry, priority);
      this.#startFetches();
    }, Math.min(waitMs, TIMER_MS_MAX));
  }

  #retire(entry: Entry, error: MeshError): void {
    entry.forgotten = true;
    entry.cancelTimer?.();
    entry.cancelTimer = undefined;
    if (entry.priority !== undefined) this.#queues[entry.priority]!.delete(entry);
    entry.priority = undefined;
    for (const { reject } of entry.waiters.splice(0)) reject(error);
  }
}

function newEntry(identity: string): Entry {
  return {
    identity,
    certificate: undefined,
    error: undefined,
    priority: undefined,
    fetching: false,
    forgotten: false,
    failures: 0,
    firstFailureAtMs: 0,
    cancelTimer: undefined,
    waiters: [],
  };
}
