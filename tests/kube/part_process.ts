/** One program of a test: it writes to a file, ends with us whatever happens, and can be stopped, killed and started again. */
import { MeshError } from "../../base/errors.ts";

const READY_MS_MAX = 180_000; // Seconds as a rule; machines that do much else take their time.
const STOP_MS = 15_000;
const POLL_MS = 25;
const TAIL_CHARS = 3_000;

export interface PartOptions {
  readonly command: string;
  readonly args: readonly string[];
  readonly logPath: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Whether it serves now. */
  readonly isReady: () => Promise<boolean>;
  readonly readyMs?: number;
}

/** A program that may run or not; every start is of the same program with the same arguments. */
export class PartProcess {
  readonly name: string;
  readonly #options: PartOptions;
  #child: Deno.ChildProcess | undefined;
  #status: Promise<Deno.CommandStatus> | undefined;
  #ended = false;

  constructor(name: string, options: PartOptions) {
    this.name = name;
    this.#options = options;
  }

  /** The running process; whoever kills it by hand leaves this where it is. */
  get child(): Deno.ChildProcess | undefined {
    return this.#child;
  }

  /** The id of the running process. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Starts it and waits until it serves. @throws MeshError AMB0282 with the end of its log. */
  async start(): Promise<void> {
    const { command, args, logPath, env, cwd } = this.#options;
    // The kernel ends it should this process die without a word.
    this.#child = new Deno.Command("setpriv", {
      args: ["--pdeathsig", "KILL", "sh", "-c", 'exec "$@" >>"$AMBIT_LOG" 2>&1', "sh", command, ...args],
      env: { ...env, AMBIT_LOG: logPath },
      cwd,
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    this.#ended = false;
    this.#status = this.#child.status.then((status) => {
      this.#ended = true;
      return status;
    });
    await this.#untilReady();
  }

  async #untilReady(): Promise<void> {
    const readyMs = this.#options.readyMs ?? READY_MS_MAX, deadlineMs = performance.now() + readyMs;
    while (!this.#ended && performance.now() < deadlineMs) {
      if (await this.#options.isReady()) return;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    const fate = this.#ended ? "ended" : `does not serve after ${readyMs} ms`;
    const log = await this.log();
    await this.kill();
    throw new MeshError("AMB0282", `${this.name} ${fate}\n${log.slice(-TAIL_CHARS)}`, {
      remedy: "Read the end of its log above.",
    });
  }

  /** Everything it has written. */
  log(): Promise<string> {
    return Deno.readTextFile(this.#options.logPath);
  }

  /** Asks it to end, and kills it if it does not. */
  async stop(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    const timer = setTimeout(() => this.#signal("SIGKILL"), STOP_MS);
    this.#signal("SIGTERM");
    await this.#status;
    clearTimeout(timer);
    this.#child = undefined;
  }

  /** As a machine that loses its power. */
  async kill(): Promise<void> {
    this.#signal("SIGKILL");
    await this.#status;
    this.#child = undefined;
  }

  /** Stops the clock for it, as a machine that hangs. */
  pause(): void {
    this.#signal("SIGSTOP");
  }

  resume(): void {
    this.#signal("SIGCONT");
  }

  #signal(signal: Deno.Signal): void {
    if (this.#child === undefined || this.#ended) return;
    try {
      this.#child.kill(signal);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // It has ended meanwhile.
    }
  }
}
