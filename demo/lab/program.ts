/** A program in a namespace of the lab: its lines are kept, it is ended by its id. */
import { ignore, MeshError } from "../../base/errors.ts";
import { spawnWithin } from "../../os/process.ts";
import type { Place } from "./network.ts";
import { Hopeless, until } from "./until.ts";

const LINES_KEPT_MAX = 4_000;
const STOP_GRACE_MS = 4_000;
const LINE_TIMEOUT_MS = 120_000; // Also for the first line of a program that has to load on a busy machine.

export interface ProgramOptions {
  readonly command: string;
  readonly args: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly folder?: string;
  /** Whether it is given lines on its standard input, by {@link Program.write}. */
  readonly interactive?: boolean;
  /** Called with every line that it writes, of both streams. */
  readonly onLine?: (line: string) => void;
}

const ROOT = new URL("../../", import.meta.url);

/** What `deno task ambit` gives to the engine: a role is shown and measured as people run it. */
export function engineFlags(): string[] {
  const { tasks } = JSON.parse(Deno.readTextFileSync(new URL("deno.json", ROOT)));
  return `${tasks.ambit.command}`.split(" ").filter((word) => word.startsWith("--v8-flags="));
}

/** The program that runs us, for programs of this repository. */
export function denoProgram(file: URL | string, args: readonly string[] = []): { command: string; args: string[] } {
  const path = file instanceof URL ? file.pathname : file;
  const flags = path === new URL("main.ts", ROOT).pathname ? engineFlags() : [];
  // Namespaces have no way out: what is not in the cache already cannot be had.
  return {
    command: Deno.execPath(),
    args: ["run", "-A", "--quiet", "--cached-only", "--unstable-worker-options", ...flags, path, ...args],
  };
}

/** A running, or ended, child. Disposing ends it. */
export class Program implements AsyncDisposable {
  readonly name: string;
  readonly pid: number;
  /** Resolves at its end. */
  readonly status: Promise<Deno.CommandStatus>;
  readonly #child: Deno.ChildProcess;
  readonly #lines: string[] = [];
  readonly #onLine: ((line: string) => void) | undefined;
  readonly #pumps: Promise<void>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array> | undefined;
  #exit: Deno.CommandStatus | undefined;
  #lineCount = 0;

  constructor(name: string, place: Place, options: ProgramOptions) {
    this.name = name;
    this.#onLine = options.onLine;
    this.#child = spawnWithin(place.netns, options.command, {
      args: [...options.args],
      env: { DENO_NO_UPDATE_CHECK: "1", NO_COLOR: "1", ...options.environment },
      cwd: options.folder,
      stdin: options.interactive ? "piped" : "null",
      stdout: "piped",
      stderr: "piped",
    });
    this.pid = this.#child.pid;
    this.#writer = options.interactive ? this.#child.stdin.getWriter() : undefined;
    this.#pumps = Promise.all([this.#pump(this.#child.stdout), this.#pump(this.#child.stderr)]).then(() => {});
    this.status = this.#child.status.then((status) => this.#exit = status);
  }

  get ended(): boolean {
    return this.#exit !== undefined;
  }

  /** The newest lines, oldest first. */
  get lines(): readonly string[] {
    return this.#lines;
  }

  /** How many lines there were altogether: where to begin with {@link linesSince}. */
  get lineCount(): number {
    return this.#lineCount;
  }

  /** The lines after the first `count`, as far as they are kept. */
  linesSince(count: number): string[] {
    return this.#lines.slice(Math.max(0, this.#lines.length - (this.#lineCount - count)));
  }

  /** Waits for a line that `matches`, from `since` on. Throws AMB9102, with the last lines, if it ends or the time is up. */
  async line(
    what: string,
    matches: (line: string) => boolean,
    timeoutMs = LINE_TIMEOUT_MS,
    since = 0,
  ): Promise<string> {
    try {
      return await until(`${this.name}: ${what}`, timeoutMs, () => {
        const found = this.linesSince(since).find(matches);
        if (found === undefined && this.ended) throw new Hopeless(`it ended with status ${this.#exit?.code}`);
        return found;
      });
    } catch (cause) {
      throw new MeshError("AMB9102", `${this.name} says:\n${this.tail()}`, {
        remedy: "Its last lines above tell why.",
        cause,
      });
    }
  }

  /** What it wrote last, for a message. */
  tail(count = 15): string {
    return this.#lines.slice(-count).join("\n");
  }

  /** Gives it a line. */
  async write(line: string): Promise<void> {
    await this.#writer?.write(new TextEncoder().encode(`${line}\n`));
  }

  kill(signal: Deno.Signal): void {
    if (this.#exit !== undefined) return;
    try {
      this.#child.kill(signal);
    } catch (error) {
      ignore(error, "it has ended by itself in the meantime");
    }
  }

  /** Asks it to end, and makes it end when it does not within a few seconds. */
  async stop(graceMs = STOP_GRACE_MS): Promise<void> {
    this.kill("SIGTERM");
    const timer = setTimeout(() => this.kill("SIGKILL"), graceMs);
    await this.status;
    clearTimeout(timer);
    await this.#pumps;
    try {
      await this.#writer?.close();
    } catch (error) {
      ignore(error, "its end of the pipe is gone already");
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #pump(stream: ReadableStream<Uint8Array>): Promise<void> {
    let partial = "";
    for await (const text of stream.pipeThrough(new TextDecoderStream() as never) as ReadableStream<string>) {
      const lines = (partial + text).split("\n");
      partial = lines.pop() ?? "";
      for (const line of lines) this.#take(line);
    }
    if (partial !== "") this.#take(partial);
  }

  #take(line: string): void {
    this.#lineCount++;
    this.#lines.push(line);
    if (this.#lines.length > LINES_KEPT_MAX) this.#lines.splice(0, LINES_KEPT_MAX / 4);
    this.#onLine?.(line);
  }
}
