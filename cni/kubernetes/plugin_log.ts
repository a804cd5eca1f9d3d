/** The plugin's log lines, said again by the agent: the plugin's own process has nobody who reads it (CNI-291, CNI-292). */
import { isFields } from "../../base/plain.ts";
import { type Facts, LEVELS, type Logger } from "../../base/log.ts";
import { MeshError } from "../../base/errors.ts";
import { removeOldSocket } from "../../os/seqpacket.ts";
import { LOG_PATH } from "../plugin_log_lines.ts";
import { boundedBody } from "../bounded_body.ts";
import { serveUnixHttp, type UnixHttpServer } from "../unix_http.ts";

const BODY_BYTES_MAX = 256 * 1024, LINES_MAX = 1_000, TEXT_CHARS_MAX = 4_096;
const SOCKET_MODE = 0o666; // As the event socket: the runtime calls the plugin as whom it likes.
/** What has a place of its own in a line. */
const OWN_KEYS: readonly string[] = ["level", "time", "msg", "message", "scope"];
const KEY = /^[\w.-]{1,64}$/; // Whoever wrote the line must not be able to forge a field or another line.

/** One line as the plugin wrote it. */
interface PluginLine {
  readonly level: number;
  readonly time: string;
  readonly message: string;
  readonly facts: Facts;
}

/** Serves until its `shutdown` is called. Throws AMB7182. */
export async function servePluginLog(path: string, log: Logger): Promise<UnixHttpServer> {
  try {
    Deno.mkdirSync(path.replace(/\/[^/]*$/, ""), { recursive: true, mode: 0o750 });
    removeOldSocket(path);
    const server = await serveUnixHttp(path, log, async (request) => {
      if (request.method !== "POST" || new URL(request.url).pathname !== LOG_PATH) {
        return new Response(null, { status: 404 });
      }
      const body = await boundedBody(request, BODY_BYTES_MAX);
      // All of one call together: nothing is awaited between its lines.
      for (const { level, time, message, facts } of pluginLines(body ?? "")) log.writeAt(time, level, message, facts);
      return new Response(null, { status: 200 });
    });
    Deno.chmodSync(path, SOCKET_MODE);
    return server;
  } catch (cause) {
    throw new MeshError("AMB7182", `cannot serve ${path}`, {
      remedy: "choose another --cni-agent-run-dir, on a file system where sockets can be made",
      cause,
    });
  }
}

/** Reads a JSON array of lines, each JSON itself. What cannot be read is left out, line by line, or as a whole (CNI-292). */
export function pluginLines(body: string): PluginLine[] {
  const list = parsed(body);
  if (!Array.isArray(list)) return [];
  return list.slice(0, LINES_MAX).flatMap((item) => {
    const line = typeof item === "string" ? parsed(item) : undefined;
    return isFields(line) ? lineOf(line) : [];
  });
}

function lineOf(line: Readonly<Record<string, unknown>>): PluginLine[] {
  const { level, time, msg = line.message } = line, rank = LEVELS.indexOf(level as typeof LEVELS[number]);
  if (rank < 1 || typeof msg !== "string" || typeof time !== "string" || Number.isNaN(Date.parse(time))) return [];
  const facts = Object.entries(line).filter(([key]) => KEY.test(key) && !OWN_KEYS.includes(key)).map(([key, value]) => [
    key,
    typeof value === "number" || typeof value === "boolean" ? value : textOf(value),
  ]);
  const message = msg.slice(0, TEXT_CHARS_MAX).replaceAll(/\p{Cc}+/gu, " ");
  return [{ level: rank, time: new Date(time).toISOString(), message, facts: Object.fromEntries(facts) }];
}

function textOf(value: unknown): string {
  return (typeof value === "string" ? value : JSON.stringify(value)).slice(0, TEXT_CHARS_MAX);
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
