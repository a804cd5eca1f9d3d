/** A program inside a namespace that connects, listens and measures as it is told. */
import { MeshError } from "../../base/errors.ts";
import type { Place } from "./network.ts";
import type { Operations } from "./probe_operations.ts";
import { denoProgram, Program } from "./program.ts";

type Input<K extends keyof Operations> = Parameters<Operations[K]>[0];
type Output<K extends keyof Operations> = Awaited<ReturnType<Operations[K]>>;

interface Answer {
  readonly ready?: boolean;
  readonly id?: number;
  readonly output?: unknown;
  readonly error?: string;
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** What a probe could not do. The message is that of the failure inside. */
export class ProbeFailure extends Error {
  override readonly name = "ProbeFailure";
}

export class Probe implements AsyncDisposable {
  readonly name: string;
  readonly #program: Program;
  readonly #waiting = new Map<number, Waiting>();
  readonly #ready: Promise<void>;
  #last = 0;

  constructor(name: string, place: Place) {
    this.name = name;
    let ready = () => {};
    let failed = (_: Error) => {};
    this.#ready = new Promise((resolve, reject) => [ready, failed] = [resolve, reject]);
    this.#ready.catch(() => this.#failAll()); // Said by whoever asks first.
    this.#program = new Program(`probe in ${name}`, place, {
      ...denoProgram(new URL("./probe_program.ts", import.meta.url)),
      interactive: true,
      onLine: (line) => this.#take(line, ready),
    });
    this.#program.status.then(() => {
      failed(this.#gone());
      this.#failAll();
    });
  }

  /** The process, to tell that it is still the same. */
  get pid(): number {
    return this.#program.pid;
  }

  /** Does one thing inside. Throws ProbeFailure when it fails there, AMB9103 when the probe itself is gone. */
  async do<K extends keyof Operations>(operation: K, input: Input<K>): Promise<Output<K>> {
    await this.#ready;
    if (this.#program.ended) throw this.#gone();
    const id = ++this.#last;
    const answered = new Promise<unknown>((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    await this.#program.write(JSON.stringify({ id, operation, input }));
    return await answered as Output<K>;
  }

  /** As {@link do}, with the failure as a value. */
  async attempt<K extends keyof Operations>(
    operation: K,
    input: Input<K>,
  ): Promise<{ readonly output: Output<K>; readonly failure?: undefined } | { readonly failure: string }> {
    try {
      return { output: await this.do(operation, input) };
    } catch (error) {
      if (!(error instanceof ProbeFailure)) throw error;
      return { failure: error.message };
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#program.stop(0);
  }

  #take(line: string, ready: () => void): void {
    if (!line.startsWith("{")) return; // A warning of the runtime.
    const { ready: up, id, output, error } = JSON.parse(line) as Answer;
    if (up) return ready();
    const waiting = this.#waiting.get(id!);
    this.#waiting.delete(id!);
    if (error === undefined) waiting?.resolve(output);
    else waiting?.reject(new ProbeFailure(error));
  }

  #failAll(): void {
    for (const { reject } of this.#waiting.values()) reject(this.#gone());
    this.#waiting.clear();
  }

  #gone(): MeshError {
    return new MeshError("AMB9103", `the probe in ${this.name} is gone: ${this.#program.tail(5)}`, {
      remedy: "Its last lines tell why; on a machine short of memory run less beside it.",
    });
  }
}
