/** Programs of a run: started inside a namespace, measured through /proc, ended by their id. */
import { ignore, MeshError } from "../../base/errors.ts";
import type { Netns } from "../../os/netns.ts";
import { spawnWithin } from "../../os/process.ts";
import type { Cleanup } from "./cleanup.ts";

const TICKS_PER_SECOND = 100; // USER_HZ, the unit of /proc/PID/stat on every Linux architecture.

export interface ProgramOptions {
  readonly command: string;
  readonly args: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  /** Both output streams go there: access logs are part of what is measured. */
  readonly logPath: string;
  readonly folder?: string;
}

/** A proxy or a control process, writing to a file. */
export class Program {
  readonly name: string;
  readonly pid: number;
  readonly #logPath: string;
  readonly stop: () => void;
  #exit: Deno.CommandStatus | undefined;

  private constructor(name: string, child: Deno.ChildProcess, logPath: string, cleanup: Cleanup) {
    this.name = name;
    this.pid = child.pid;
    this.#logPath = logPath;
    this.stop = cleanup.add(`end ${name}`, () => killChild(child));
    child.status.then((status) => this.#exit = status);
  }

  /** Starts a program in `netns`. It is killed by `cleanup` unless {@link stop} came first. */
  static start(name: string, netns: Netns, options: ProgramOptions, cleanup: Cleanup): Program {
    const child = spawnWithin(netns, "sh", {
      args: ["-c", `${RAISE_LIMIT} exec "$@" >>"$LOG_PATH" 2>&1`, "sh", options.command, ...options.args],
      env: { ...options.environment, LOG_PATH: options.logPath },
      cwd: options.folder,
      stdin: "null",
      stdout: "null",
      stderr: "null",
    });
    return new Program(name, child, options.logPath, cleanup);
  }

  /** Waits until `ready` answers true. Throws AMB9001 with the log's end when the program ends first or the time is up. */
  async ready(what: string, ready: () => boolean | Promise<boolean>, timeoutMs = 20_000): Promise<void> {
    const deadlineMs = performance.now() + timeoutMs;
    while (!await ready()) {
      if (this.#exit === undefined && performance.now() < deadlineMs) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        continue;
      }
      const fate = this.#exit === undefined ? `not within ${timeoutMs} ms` : `it ended with status ${this.#exit.code}`;
      throw new MeshError("AMB9001", `${this.name}: ${what} did not come about, ${fate}\n${this.logTail()}`, {
        remedy: "Read the program's last lines above, then leave the peer out with --only if it cannot run here.",
      });
    }
  }

  /** How many lines of what it wrote hold `text`. Logs may be long: only what is new since the last call is read. */
  logLines(text: string): number {
    using file = Deno.openSync(this.#logPath);
    file.seekSync(this.#readBytes, Deno.SeekMode.Start);
    const chunk = new Uint8Array(1 << 20);
    for (let count = file.readSync(chunk); count !== null; count = file.readSync(chunk)) {
      const end = chunk.subarray(0, count).lastIndexOf(10) + 1; // Half a line is read again, once it is whole.
      if (end === 0) break;
      this.#readBytes += end;
      file.seekSync(this.#readBytes, Deno.SeekMode.Start);
      this.#lineCount += new TextDecoder().decode(chunk.subarray(0, end)).split(text).length - 1;
    }
    return this.#lineCount;
  }

  #readBytes = 0;
  #lineCount = 0;

  /** The last lines of what it wrote. */
  logTail(lines = 15): string {
    try {
      return Deno.readTextFileSync(this.#logPath).trimEnd().split("\n").slice(-lines).join("\n");
    } catch (error) {
      return `(no log: ${error instanceof Error ? error.message : String(error)})`;
    }
  }
}

/** Shell: as many descriptors as we may have; 10,000 idle connections need them. The shell then replaces itself. */
export const RAISE_LIMIT = 'ulimit -S -n "$(ulimit -H -n)";';

/** Ends a child at once. One that has ended by itself is no failure. */
export function killChild(child: Deno.ChildProcess): void {
  try {
    Deno.kill(child.pid, "SIGKILL");
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    ignore(error, "it has ended by itself");
  }
}

/** CPU seconds a process has used so far, all its threads, in user and kernel mode; from the text of /proc/PID/stat. */
export function parseCpuSeconds(stat: string): number {
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" "); // The name before it may hold blanks and brackets.
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** CPU seconds of a live process. Throws Deno.errors.NotFound when it is gone. */
export function cpuSeconds(pid: number): number {
  return parseCpuSeconds(Deno.readTextFileSync(`/proc/${pid}/stat`));
}

export interface MemoryUse {
  readonly residentMib: number;
  /** Shared pages divided among their users; undefined where the kernel does not say. */
  readonly proportionalMib: number | undefined;
}

/** Resident memory of a live process. */
export function memoryUse(pid: number): MemoryUse {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  return {
    residentMib: kibField(status, "VmRSS")! / 1024,
    proportionalMib: proportional(pid),
  };
}

function proportional(pid: number): number | undefined {
  try {
    const kib = kibField(Deno.readTextFileSync(`/proc/${pid}/smaps_rollup`), "Pss");
    return kib === undefined ? undefined : kib / 1024;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.PermissionDenied) return undefined;
    throw error;
  }
}

/** The value of a `Name:  123 kB` line. */
export function kibField(text: string, name: string): number | undefined {
  const match = new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text);
  return match === null ? undefined : Number(match[1]);
}
