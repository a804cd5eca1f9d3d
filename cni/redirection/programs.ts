/** Runs programs of the node inside network namespaces, on a thread of their own. */
import { MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Netns } from "../../os/netns.ts";

/** What the thread is asked. */
export interface ProgramRequest {
  readonly id: number;
  /** Where it runs; the thread closes it. Absent: where this process is. */
  readonly netnsFd?: number;
  readonly program: string;
  readonly args: readonly string[];
  readonly input: string;
  readonly env: Record<string, string>;
}

/** What became of it: it ended with a code (-1: by a signal or past its time), is not installed, or did not start. */
export type ProgramAnswer =
  | { readonly id: number; readonly code: number; readonly stdout: string; readonly stderr: string }
  | { readonly id: number; readonly absent: true }
  | { readonly id: number; readonly failure: string };

export interface ProgramOptions {
  readonly input?: string;
  readonly env?: Record<string, string>;
}

export interface ProgramOutcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Something that runs programs; tests have their own. */
export interface ProgramRunner extends Disposable {
  /** Runs to the end. @returns undefined when the program is not installed. Throws AMB7141 when it cannot be started. */
  run(
    netns: Netns | undefined,
    program: string,
    args: readonly string[],
    options?: ProgramOptions,
  ): Promise<ProgramOutcome | undefined>;
}

/** The thread starts with the first program. */
export class ProgramThread implements ProgramRunner {
  readonly #log: Logger;
  readonly #waiting = new Map<number, PromiseWithResolvers<ProgramAnswer>>();
  #thread: Worker | undefined;
  #lastId = 0;

  constructor(log: Logger) {
    this.#log = log;
  }

  async run(
    netns: Netns | undefined,
    program: string,
    args: readonly string[],
    { input = "", env = {} }: ProgramOptions = {},
  ): Promise<ProgramOutcome | undefined> {
    const id = ++this.#lastId, answered = Promise.withResolvers<ProgramAnswer>();
    this.#waiting.set(id, answered);
    const thread = this.#thread ??= this.#start();
    const netnsFd = netns?.duplicateFd(); // The caller may close his own while the thread has not come to it yet.
    thread.postMessage({ id, netnsFd, program, args, input, env } satisfies ProgramRequest);
    const answer = await answered.promise;
    if ("absent" in answer) return undefined;
    if ("code" in answer) return answer;
    throw new MeshError("AMB7141", `could not run ${program}: ${answer.failure}`, {
      remedy:
        "See that it may be executed, with CAP_SYS_ADMIN and CAP_NET_ADMIN; or choose --redirect=nft, which needs no program.",
    });
  }

  /** Nothing may be running any more. */
  [Symbol.dispose](): void {
    this.#thread?.terminate();
    this.#thread = undefined;
  }

  #start(): Worker {
    const thread = new Worker(new URL("./program_thread.ts", import.meta.url), { type: "module" });
    thread.onmessage = ({ data }: MessageEvent<ProgramAnswer | { readonly lacking?: string }>) => {
      if ("id" in data) {
        this.#waiting.get(data.id)?.resolve(data);
        this.#waiting.delete(data.id);
      } else if (data.lacking !== undefined) {
        this.#log.warn("programs run in pods with the node's name services", { lacking: data.lacking });
      }
    };
    thread.onerror = (event) => {
      event.preventDefault(); // Whoever waits is told.
      for (const [id, answered] of this.#waiting) answered.resolve({ id, failure: event.message });
      this.#waiting.clear();
      this.#thread = undefined;
    };
    return thread;
  }
}
