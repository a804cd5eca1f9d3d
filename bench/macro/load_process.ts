/** A run's end of a load process: commands out, answers in. */
import { MeshError } from "../../base/errors.ts";
import { spawnWithin } from "../../os/process.ts";
import type { Cleanup } from "./cleanup.ts";
import type { Answer, Command, Snapshot } from "./load/messages.ts";
import { killChild, RAISE_LIMIT } from "./process.ts";
import type { Place } from "./topology.ts";

// An answer that takes this long means that the path does not carry traffic: 10,000 connections stand within seconds.
const ANSWER_MS_MAX = 30_000;

export class LoadProcess {
  readonly name: string;
  readonly pid: number;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #reader: ReadableStreamDefaultReader<string>;
  #text = "";

  private constructor(name: string, child: Deno.ChildProcess) {
    this.name = name;
    this.pid = child.pid;
    this.#writer = child.stdin.getWriter();
    this.#reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  static start(name: string, place: Place, cleanup: Cleanup): LoadProcess {
    const entry = new URL("./load/entry.ts", import.meta.url).pathname;
    const child = spawnWithin(place.netns, "sh", {
      args: ["-c", `${RAISE_LIMIT} exec "$@"`, "sh", Deno.execPath(), "run", "-A", "--quiet", entry],
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    });
    const started = new LoadProcess(name, child);
    cleanup.add(`end ${name}`, () => killChild(child));
    return started;
  }

  /** Counters now, together with the CPU time of `pids`. */
  async snapshot(pids: readonly number[], options: { reset?: boolean } = {}): Promise<Snapshot> {
    const answer = await this.#ask({ do: "snapshot", pids, reset: options.reset });
    if (answer.is === "snapshot") return answer.snapshot;
    throw this.#failure("a snapshot", JSON.stringify(answer));
  }

  /** Obeys a command; resolves when it has taken effect. Throws AMB9004, with the first failed connection's reason. */
  async command(command: Command): Promise<void> {
    let answer: Answer;
    try {
      answer = await this.#ask(command);
    } catch (error) {
      if (!(error instanceof DOMException && error.name === "TimeoutError")) throw error;
      const state = await this.snapshot([]);
      const why = `${state.failures} connections failed${state.firstFailure && `, the first: ${state.firstFailure}`}`;
      throw this.#failure(command.do, `not within ${ANSWER_MS_MAX} ms; ${why}`);
    }
    if (answer.is !== "ready") throw this.#failure(command.do, "why" in answer ? answer.why : answer.is);
  }

  #failure(what: string, why: string): MeshError {
    return new MeshError("AMB9004", `${this.name}: ${what}: ${why}`, {
      remedy: "Look at the proxies' logs in the run's folder (--keep keeps it).",
    });
  }

  async #ask(command: Command): Promise<Answer> {
    await this.#writer.write(new TextEncoder().encode(JSON.stringify(command) + "\n"));
    const { promise, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(() => reject(new DOMException("no answer", "TimeoutError")), ANSWER_MS_MAX);
    try {
      return await Promise.race([this.#line(), promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  #pending: Promise<Answer> | undefined;

  /** The next line. One that nobody waited for any longer is handed to whoever asks next. */
  #line(): Promise<Answer> {
    this.#pending ??= this.#read().finally(() => this.#pending = undefined);
    return this.#pending;
  }

  async #read(): Promise<Answer> {
    for (;;) {
      const end = this.#text.indexOf("\n");
      if (end >= 0) {
        const line = this.#text.slice(0, end);
        this.#text = this.#text.slice(end + 1);
        return JSON.parse(line);
      }
      const { value, done } = await this.#reader.read();
      if (done) throw this.#failure("answer", "the load process has ended");
      this.#text += value;
    }
  }
}
