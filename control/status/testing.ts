/** For tests of the controllers: a clock that they move, and a way to the API server with everything that goes wrong on it. */
import { type KubeApi, KubeError, KubeUnreachable } from "../../kube/api.ts";
import type { Clock } from "./clock.ts";

/** A clock that stands until it is advanced. */
export class SimulatedClock implements Clock {
  #nowMs = 0;
  readonly #waits = new Set<{ atMs: number; end: () => void }>();

  monotonicMs(): number {
    return this.#nowMs;
  }

  epochMs(): number {
    return 1_700_000_000_000 + this.#nowMs;
  }

  wait(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal.aborted) return resolve();
      const end = () => {
        this.#waits.delete(entry);
        signal.removeEventListener("abort", end);
        resolve();
      };
      const entry = { atMs: this.#nowMs + Math.max(ms, 0), end };
      this.#waits.add(entry);
      signal.addEventListener("abort", end, { once: true });
    });
  }

  /** Lets that much time pass, wait by wait, and all that follows from each. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms;
    for (;;) {
      await settle();
      const next = [...this.#waits].reduce((least, { atMs }) => Math.min(least, atMs), Infinity);
      if (next > untilMs) break;
      this.#nowMs = Math.max(this.#nowMs, next);
      for (const wait of [...this.#waits]) if (wait.atMs <= this.#nowMs) wait.end();
    }
    this.#nowMs = untilMs;
  }

  /** As {@link advance}, but nothing runs meanwhile: the machine slept. */
  sleepThrough(ms: number): void {
    this.#nowMs += ms;
  }

  /** Waits that nobody has ended; a test that is over leaves none. */
  get waiting(): number {
    return this.#waits.size;
  }
}

/** Runs everything that waits for nothing but other code. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 200; turn++) await Promise.resolve();
}

/** One network path to the API server: cut, silent or refused, as the test says. */
export class Path {
  /** `cut` fails each call, `silent` never answers until it is mended, `refused` is a lost permission. */
  state: "open" | "cut" | "silent" | "refused" = "open";
  readonly calls: string[] = [];
  readonly #held: (() => void)[] = [];

  mend(): void {
    this.state = "open";
    for (const go of this.#held.splice(0)) go();
  }

  /** The same objects by this path. Lists and watches go past it. */
  through(api: KubeApi): KubeApi {
    const pass = async <T>(name: string, call: () => Promise<T>): Promise<T> => {
      this.calls.push(name);
      if (this.state === "cut") throw new KubeUnreachable("connection refused");
      if (this.state === "refused") throw new KubeError(403, "Forbidden", "leases is forbidden");
      if (this.state === "silent") await new Promise<void>((resolve) => this.#held.push(resolve));
      return await call();
    };
    return {
      get: (type, place) => pass("get", () => api.get(type, place)),
      create: (type, namespace, object, options) => pass("create", () => api.create(type, namespace, object, options)),
      replace: (type, place, object) => pass("replace", () => api.replace(type, place, object)),
      apply: (type, place, object, options) => pass("apply", () => api.apply(type, place, object, options)),
      patch: (type, place, patch) => pass("patch", () => api.patch(type, place, patch)),
      delete: (type, place, guard) => pass("delete", () => api.delete(type, place, guard)),
      list: (type, scope, page) => api.list(type, scope, page),
      watch: (type, scope, options) => api.watch(type, scope, options),
    };
  }
}
