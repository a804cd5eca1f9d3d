/** Elects one of several control planes to do what must be done once (CP-650 to CP-654), by an object that all of them can see. */
import { assert } from "../../base/assert.ts";
import { chain } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { aborted } from "../../base/waiting.ts";
import { type KubeApi, KubeError, type KubeObject, KubeUnreachable } from "../../kube/api.ts";
import { type Clock, SYSTEM_CLOCK, within } from "./clock.ts";
import { rankKey, takesOver } from "./election_rank.ts";
import { type ElectionRecord, lockType, microTime, readRecord, writeRecord } from "./election_record.ts";
import type { Lock } from "./locks.ts";

/** How long a lock is held without renewal, how long its holder tries to renew, how often all try (CP-650). */
export interface ElectionTiming {
  readonly leaseMs: number;
  readonly renewDeadlineMs: number;
  readonly retryMs: number;
}

export const ELECTION_TIMING: ElectionTiming = Object.freeze({
  leaseMs: 30_000,
  renewDeadlineMs: 15_000,
  retryMs: 7_500,
});

/** What is known of one lock, for metrics and debug pages. */
export interface ElectionStatus {
  readonly lock: string;
  readonly leading: boolean;
  /** As last seen; empty when nobody holds it or nothing was seen yet. */
  readonly holder: string;
  /** Times that this process began to lead, and stopped against its will. */
  readonly won: number;
  readonly lost: number;
  /** Attempts that the API server did not let through, and why the last one failed; empty while all is well. */
  readonly failures: number;
  readonly trouble: string;
}

export interface ElectionOptions {
  readonly api: KubeApi;
  readonly lock: Lock;
  /** Names this process; no other candidate may bear it. The pod's name in a cluster. */
  readonly identity: string;
  /** Where the lock lies: the system namespace. */
  readonly namespace: string;
  /** Empty counts as `default`. */
  readonly revision: string;
  /** The leader's work, until the signal. It may end before; should it throw, the lock is given up and tried for again. */
  readonly onLead: (signal: AbortSignal) => Promise<void>;
  readonly log: Logger;
  readonly onStatus?: (status: ElectionStatus) => void;
  /** Runs outside the cluster whose lock it is. */
  readonly remote?: boolean;
  /** The revision that is the mesh's default now, if that is known. */
  readonly defaultRevision?: () => string | undefined;
  /** False: every process leads, for installations with just one (`ENABLE_LEADER_ELECTION=false`). */
  readonly enabled?: boolean;
  readonly clock?: Clock;
  /** From 0 up to 1; spreads the attempts of several candidates. */
  readonly random?: () => number;
  readonly timing?: ElectionTiming;
}

/** `conflict`: another wrote between our look and our write, so look again. */
type Outcome = "held" | "other" | "conflict" | "failed";

const JITTER = 0.2; // of the retry period; small enough that a lock that ran out is taken within two periods
const RELEASE_MS_MAX = 3_000; // a shutdown waits no longer for the API server
const CONFLICTS_MAX = 3; // looks at once, before it counts as a failure

/** Takes part in the election until the signal, leading whenever it wins. Resolves once the work has ended and the lock is released. */
export async function runElection(options: ElectionOptions, signal: AbortSignal): Promise<void> {
  await new Election(options).run(signal);
}

class Election {
  readonly #options: ElectionOptions;
  readonly #clock: Clock;
  readonly #timing: ElectionTiming;
  #object: KubeObject | undefined;
  #record: ElectionRecord | undefined;
  /** When the record as it stands was first seen, by our own clock: a holder's clock may be wrong (CP-650). */
  #seenAtMs = 0;
  /** When the attempt began that last renewed it. */
  #renewedAtMs = 0;
  /** An attempt that outlived its time limit: the next one waits for it, so that no two write at once. */
  #pending: Promise<unknown> | undefined;
  #status: ElectionStatus;

  constructor(options: ElectionOptions) {
    const timing = options.timing ?? ELECTION_TIMING;
    assert(timing.retryMs * (1 + JITTER) < timing.renewDeadlineMs, "a renewal is tried more than once");
    assert(timing.retryMs + timing.renewDeadlineMs < timing.leaseMs, "a holder gives up before others take over");
    this.#options = options;
    this.#timing = timing;
    this.#clock = options.clock ?? SYSTEM_CLOCK;
    const lock = options.lock.name;
    this.#status = { lock, leading: false, holder: "", won: 0, lost: 0, failures: 0, trouble: "" };
  }

  async run(signal: AbortSignal): Promise<void> {
    const { enabled = true, random = Math.random } = this.#options;
    this.#note({});
    while (!signal.aborted) {
      const attempt = enabled ? this.#attempt(signal) : Promise.resolve("held");
      if (await within(attempt, this.#timing.leaseMs, { clock: this.#clock, signal }) === "held") {
        await this.#lead(signal);
        if (!signal.aborted) await this.#release();
      }
      // After a loss too: whoever took the lock has it for a while.
      if (!signal.aborted) await this.#clock.wait(this.#timing.retryMs * (1 + JITTER * random()), signal);
    }
    await this.#release(); // Also what an attempt that is still under way may get.
  }

  /** Works and renews. Returns once the work has ended, because of the signal, a lost lock, or its own failure. */
  async #lead(signal: AbortSignal): Promise<void> {
    const { log, lock, enabled = true } = this.#options;
    const lost = new AbortController();
    const leading = AbortSignal.any([signal, lost.signal]);
    log.info("leading", { lock: lock.name });
    this.#note({ leading: true, won: this.#status.won + 1 });
    const work = this.#work(leading, () => lost.abort());
    if (enabled) await this.#renew(leading);
    else await aborted(leading);
    lost.abort();
    const unwanted = !signal.aborted;
    this.#note({ leading: false, lost: this.#status.lost + (unwanted ? 1 : 0) });
    if (unwanted) log.warn("no longer leading", { lock: lock.name, holder: this.#status.holder });
    await work; // Nothing is released or tried for again while it might still write.
  }

  async #work(leading: AbortSignal, stop: () => void): Promise<void> {
    try {
      await this.#options.onLead(leading);
    } catch (error) {
      if (leading.aborted) return; // Being stopped is not a failure.
      this.#options.log.error("the leader's work failed", { lock: this.#options.lock.name, error: chain(error) });
      stop();
    }
  }

  /** Returns when the lock is lost or the signal is aborted. */
  async #renew(leading: AbortSignal): Promise<void> {
    const { retryMs, renewDeadlineMs } = this.#timing, clock = this.#clock;
    let pauseMs = retryMs;
    for (;;) {
      const deadlineAtMs = this.#renewedAtMs + retryMs + renewDeadlineMs;
      await clock.wait(Math.min(pauseMs, deadlineAtMs - clock.monotonicMs()), leading);
      const leftMs = deadlineAtMs - clock.monotonicMs(); // Negative after a sleep of the whole machine, too.
      if (leading.aborted || leftMs <= 0) return;
      const outcome = await within(this.#attempt(leading), leftMs, { clock, signal: leading });
      if (outcome === "other") return; // Taken by another: stop now, not at the deadline (CP-652).
      // A failed renewal is tried again soon: most failures are short, and giving up costs a whole lease.
      pauseMs = outcome === "held" ? retryMs : retryMs / 4;
    }
  }

  /** One look at the lock, and a write if it is ours, free or to be taken. Never throws but for our own mistakes. */
  async #attempt(signal: AbortSignal): Promise<Outcome> {
    await this.#pending;
    return signal.aborted ? "failed" : await this.#alone(this.#tryOften());
  }

  async #alone<T>(step: Promise<T>): Promise<T> {
    this.#pending = step.finally(() => this.#pending = undefined);
    return await step;
  }

  async #tryOften(): Promise<Outcome> {
    for (let conflicts = 0; conflicts < CONFLICTS_MAX; conflicts++) {
      const outcome = await this.#try();
      if (outcome !== "conflict") return outcome;
    }
    return "failed";
  }

  async #try(): Promise<Outcome> {
    const { api, lock, namespace, identity } = this.#options;
    const startedAtMs = this.#clock.monotonicMs();
    try {
      const object = await api.get(lockType(lock.store), { namespace, name: lock.name });
      this.#object = object;
      const record = object === undefined ? undefined : readRecord(lock.store, object);
      if (record !== undefined) this.#observe(record);
      const verdict = this.#mayWrite(record);
      if (verdict) await this.#write(this.#ownRecord(record));
      this.#note({ holder: this.#record?.holder ?? "", trouble: "" });
      if (!verdict) return "other";
      this.#renewedAtMs = startedAtMs;
      return "held";
    } catch (error) {
      if (!isRefusal(error)) throw error;
      if (error instanceof KubeError && error.status === 409) return "conflict";
      this.#fail(error, identity);
      return "failed";
    }
  }

  #mayWrite(record: ElectionRecord | undefined): boolean {
    const { identity, lock, remote = false, defaultRevision } = this.#options;
    if (record === undefined || record.holder === "" || record.holder === identity) return true;
    if (this.#clock.monotonicMs() - this.#seenAtMs >= this.#timing.leaseMs) return true;
    return lock.prioritised && takesOver({ revision: this.#revision(), remote }, record.key, defaultRevision?.());
  }

  #ownRecord(seen: ElectionRecord | undefined): ElectionRecord {
    const { identity, lock, remote = false } = this.#options;
    const now = microTime(this.#clock.epochMs()), ours = seen?.holder === identity;
    return {
      holder: identity,
      key: lock.prioritised ? rankKey({ revision: this.#revision(), remote }) : "",
      leaseSeconds: Math.max(1, Math.round(this.#timing.leaseMs / 1_000)),
      acquiredAt: ours && seen.acquiredAt !== "" ? seen.acquiredAt : now,
      renewedAt: now,
      transitions: seen === undefined ? 0 : seen.transitions + (ours ? 0 : 1),
    };
  }

  async #write(record: ElectionRecord): Promise<void> {
    const { api, lock, namespace } = this.#options, type = lockType(lock.store), object = this.#object;
    const body = writeRecord(lock, namespace, { record, object });
    // Guarded by the version we saw, or by its absence: of two who see a free lock one gets it.
    this.#object = object === undefined
      ? await api.create(type, namespace, body)
      : await api.replace(type, { namespace, name: lock.name }, body);
    this.#observe(record);
  }

  #observe(record: ElectionRecord): void {
    if (this.#record !== undefined && JSON.stringify(this.#record) === JSON.stringify(record)) return;
    this.#record = record;
    this.#seenAtMs = this.#clock.monotonicMs();
  }

  /** Leaves the lock to whoever comes next, so that nobody waits for the lease to run out. */
  async #release(): Promise<void> {
    const { log, lock, identity, enabled = true } = this.#options, clock = this.#clock;
    if (!enabled) return;
    const give = async () => {
      const ranOut = clock.monotonicMs() - this.#renewedAtMs >= this.#timing.leaseMs;
      if (this.#record?.holder !== identity || ranOut) return;
      const now = microTime(clock.epochMs());
      try {
        await this.#write({ ...this.#record, holder: "", key: "", leaseSeconds: 1, acquiredAt: now, renewedAt: now });
      } catch (error) {
        if (!isRefusal(error)) throw error;
        log.warn("lock not released; others wait until it runs out", { lock: lock.name, error: chain(error) });
        return;
      }
      this.#note({ holder: "" });
      log.info("lock released", { lock: lock.name });
    };
    const inTurn = async () => {
      await this.#pending;
      await this.#alone(give());
    };
    await within(inTurn(), RELEASE_MS_MAX, { clock, signal: new AbortController().signal });
  }

  #fail(error: Error, identity: string): void {
    const trouble = chain(error), { log, lock, namespace } = this.#options;
    if (trouble !== this.#status.trouble) {
      log.warn("cannot take part in the election", { lock: lock.name, namespace, identity, error: trouble });
    }
    this.#note({ trouble, failures: this.#status.failures + 1 });
  }

  #note(change: Partial<ElectionStatus>): void {
    this.#status = { ...this.#status, ...change };
    this.#options.onStatus?.(this.#status);
  }

  #revision(): string {
    return this.#options.revision || "default";
  }
}

function isRefusal(error: unknown): error is KubeError | KubeUnreachable {
  return error instanceof KubeError || error instanceof KubeUnreachable;
}
