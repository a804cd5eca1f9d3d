/** Where the plugin's log goes besides standard error: the agent's socket, and a file beside it (CNI-291). */
import { ignore } from "../base/errors.ts";

/** In the agent's run folder. */
export const LOG_SOCKET = "log.sock", LOG_FILE = "istio-cni.log";
export const LOG_PATH = "/log";
const SEND_TIMEOUT_MS = 1_000;
const FILE_BYTES_MAX = 10 * 1024 * 1024, FILE_AGE_MAX_MS = 2 * 24 * 3600 * 1_000; // and one file before it
const FILE_LEVELS: readonly string[] = ["error", "warn", "info"];
const LINES_MAX = 1_000;

/** Gathers the lines of one call, and hands them over at its end. A log that cannot be written fails no call. */
export class PluginLogLines {
  readonly #lines: string[] = [];

  /** A line of our logger, as JSON. */
  add(line: string): void {
    const { message, scope: _, ...rest } = JSON.parse(line);
    if (this.#lines.length < LINES_MAX) this.#lines.push(JSON.stringify({ ...rest, msg: message }));
  }

  /** To the socket if there is one, and to the file. */
  async handOver(runDir: string): Promise<void> {
    if (this.#lines.length === 0) return;
    try {
      appendToFile(`${runDir}/${LOG_FILE}`, this.#lines);
    } catch (error) {
      ignore(error, "there is no such folder, or it is full: the call does not depend on it");
    }
    try {
      Deno.statSync(`${runDir}/${LOG_SOCKET}`);
      using client = Deno.createHttpClient({ proxy: { transport: "unix", path: `${runDir}/${LOG_SOCKET}` } });
      const response = await fetch(`http://localhost${LOG_PATH}`, {
        client,
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(this.#lines),
        signal: AbortSignal.timeout(SEND_TIMEOUT_MS),
      });
      await response.body?.cancel();
    } catch (error) {
      ignore(error, "no agent listens: the lines are on standard error and in the file");
    }
  }
}

function appendToFile(path: string, lines: readonly string[]): void {
  const told = lines.filter((line) => FILE_LEVELS.includes(JSON.parse(line).level));
  if (told.length === 0) return;
  rotate(path);
  Deno.writeTextFileSync(path, told.map((line) => `${line}\n`).join(""), { append: true, mode: 0o600 });
}

function rotate(path: string): void {
  let info: Deno.FileInfo;
  try {
    info = Deno.statSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw error;
  }
  const begunMs = (info.birthtime ?? info.mtime)?.getTime() ?? Date.now();
  if (info.size >= FILE_BYTES_MAX || Date.now() - begunMs > FILE_AGE_MAX_MS) Deno.renameSync(path, `${path}.1`);
}
