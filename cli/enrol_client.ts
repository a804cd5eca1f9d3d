/** Asks the node agent over its enrolment socket, after looking at whose socket it is. */
import { MeshError } from "../base/errors.ts";
import { effectiveUserId } from "../os/process.ts";

export const ENROL_SOCKET = "/run/ambit/enrol.sock";

const TIMEOUT_MS = 15_000; // The node agent waits at most 4 s for ztunnel, then 5 s for its answer.

/**
 * One request. @returns The decoded answer. Throws AMB7501 when the node agent cannot be asked, or what it answered as
 * an error, under its own code.
 */
export async function askNodeAgent(
  socket: string,
  request: { readonly method: "GET" | "POST"; readonly path: string; readonly body?: unknown },
): Promise<unknown> {
  checkSocket(socket);
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path: socket } });
  let response: Response, text: string;
  try {
    response = await fetch(`http://localhost${request.path}`, {
      client,
      method: request.method,
      body: request.body === undefined ? undefined : JSON.stringify(request.body),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    text = await response.text();
  } catch (cause) {
    throw notReached(`the node agent does not answer at ${socket}`, cause);
  }
  const answer = parseJson(text);
  if (response.ok && answer !== undefined) return answer;
  const { code, message, remedy } = (answer as { error?: Record<string, unknown> } | undefined)?.error ?? {};
  if (typeof code === "string" && typeof message === "string" && typeof remedy === "string") {
    throw new MeshError(code, message, { remedy });
  }
  throw notReached(`what answers at ${socket} is no node agent (status ${response.status})`);
}

/** A socket that someone else put there could learn what is enrolled, and answer as it likes. */
function checkSocket(path: string): void {
  let stat: Deno.FileInfo;
  try {
    stat = Deno.statSync(path);
  } catch (cause) {
    throw notReached(`there is no enrolment socket ${path}`, cause);
  }
  if (stat.isSocket !== true) throw notReached(`${path} is not a socket`);
  if (stat.uid === 0 || stat.uid === effectiveUserId()) return;
  throw notReached(`${path} belongs to user ${stat.uid}, not to root or to you`);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function notReached(message: string, cause?: unknown): MeshError {
  return new MeshError("AMB7501", message, {
    remedy:
      "Start it (systemctl start ambit-cni, or ambit cni --node-mode), run this command as the same user, or name its " +
      "--enrol-socket.",
    cause,
  });
}
