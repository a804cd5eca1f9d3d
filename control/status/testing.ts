/** For tests of the controllers: a clock that they move, and the objects of locks in memory with everything that goes wrong on the way to them. */
import { type KubeApi, KubeError, type KubeObject, KubeUnreachable, type ObjectPlace } from "../../kube/api.ts";
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

  /** The same objects by this path. Of the API just what is used here. */
  through(api: Pick<KubeApi, "get" | "create" | "replace" | "apply" | "patch" | "delete">): KubeApi {
    const pass = async <T>(name: string, call: () => Promise<T>): Promise<T> => {
      this.calls.push(name);
      if (this.state === "cut") throw new KubeUnreachable("connection refused");
      if (this.state === "refused") throw new KubeError(403, "Forbidden", "leases is forbidden");
      if (this.state === "silent") await new Promise<void>((resolve) => this.#held.push(resolve));
      return await call();
    };
    return {
      get: (type, place) => pass("get", () => api.get(type, place)),
      create: (type, namespace, object) => pass("create", () => api.create(type, namespace, object)),
      replace: (type, place, object) => pass("replace", () => api.replace(type, place, object)),
      apply: (type, place, object, options) => pass("apply", () => api.apply(type, place, object, options)),
      patch: (type, place, patch) => pass("patch", () => api.patch(type, place, patch)),
      delete: (type, place, guard) => pass("delete", () => api.delete(type, place, guard)),
      list: () => Promise.reject(new Error("not used here")),
      watch: () => {
        throw new Error("not used here");
      },
    };
  }
}

/** Lock objects with the guards of the API server. */
export class LockObjects {
  readonly #objects = new Map<string, KubeObject>();
  #version = 0;

  get(name: string): KubeObject | undefined {
    return this.#objects.get(name);
  }

  set(name: string, object: KubeObject): KubeObject {
    const stored = { ...object, metadata: { ...object.metadata, resourceVersion: String(++this.#version) } };
    this.#objects.set(name, stored);
    return structuredClone(stored);
  }

  remove(name: string): void {
    this.#objects.delete(name);
  }

  readonly api = {
    get: async (_type: unknown, { name }: ObjectPlace) => await structuredClone(this.get(name)),
    create: async (_type: unknown, _namespace: string, object: object) => {
      const { metadata: { name } } = object as KubeObject;
      if (this.#objects.has(name)) throw new KubeError(409, "AlreadyExists", `${name} already exists`);
      return await this.set(name, object as KubeObject);
    },
    replace: async (_type: unknown, { name }: ObjectPlace, object: object) => {
      const stored = this.#objects.get(name), given = object as KubeObject;
      if (stored === undefined) throw new KubeError(404, "NotFound", `${name} not found`);
      if (stored.metadata.resourceVersion !== given.metadata.resourceVersion) {
        throw new KubeError(409, "Conflict", "the object has been modified");
      }
      return await this.set(name, given);
    },
    apply: () => Promise.reject(new Error("not used here")),
    patch: () => Promise.reject(new Error("not used here")),
    delete: async (_type: unknown, { name }: ObjectPlace) => await void this.remove(name),
  };
}
