/** The enrolment socket: HTTP over a unix socket that only its owner can open (CNI-270). */
import { chain, MeshError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import {
  type EnrolmentStatus,
  type EnrolRequest,
  type EnrolTarget,
  type NodeStatus,
  parseEnrolRequest,
  parseEnrolTarget,
  TARGET_FORMS,
} from "../mesh/enrolment.ts";
import { effectiveUserId } from "../os/process.ts";
import { removeOldSocket } from "../os/seqpacket.ts";
import { serveUnixHttp, type UnixHttpServer } from "./unix_http.ts";

const BODY_BYTES_MAX = 16 * 1024;

/** What the socket lets people do. */
export interface EnrolOperations {
  enrol(request: EnrolRequest, signal: AbortSignal): Promise<EnrolmentStatus>;
  unenrol(target: EnrolTarget): Promise<EnrolmentStatus>;
  status(): NodeStatus;
}

/** Serves until its `shutdown` is called. Throws AMB7107 when it cannot, or when others may replace the socket. */
export async function serveEnrolSocket(
  path: string,
  operations: EnrolOperations,
  log: Logger,
): Promise<UnixHttpServer> {
  removeOldSocket(path);
  checkFolder(path);
  const cradle = `${path}.new`; // Born in a folder of ours alone, so that at no time anyone else can connect.
  try {
    Deno.mkdirSync(cradle, { recursive: true, mode: 0o700 });
    const server = await serveUnixHttp(`${cradle}/s`, log, async (request, signal) => {
      try {
        return await answer(request, signal, operations);
      } catch (error) {
        if (!(error instanceof MeshError)) throw error;
        log.debug("request refused", { error: chain(error) });
        return failed(500, error.code, chain(error), error.remedy);
      }
    });
    Deno.chmodSync(`${cradle}/s`, 0o600);
    Deno.renameSync(`${cradle}/s`, path);
    Deno.removeSync(cradle);
    return server;
  } catch (cause) {
    throw new MeshError("AMB7107", `cannot serve ${path}`, {
      remedy: "Choose another --enrol-socket, in a folder that exists and is writable.",
      cause,
    });
  }
}

async function answer(request: Request, signal: AbortSignal, operations: EnrolOperations): Promise<Response> {
  const { pathname } = new URL(request.url);
  if (request.method === "GET" && pathname === "/status") return Response.json(operations.status());
  if (request.method !== "POST" || (pathname !== "/enrol" && pathname !== "/unenrol")) {
    return failed(
      404,
      "AMB7108",
      `there is no ${request.method} ${pathname}`,
      "Use GET /status, POST /enrol or /unenrol.",
    );
  }
  const body = await readJson(request);
  if ("wrong" in body) return badRequest(body.wrong);
  if (pathname === "/enrol") {
    const parsed = parseEnrolRequest(body.value);
    if ("wrong" in parsed) return badRequest(parsed.wrong);
    return Response.json(await operations.enrol(parsed, signal));
  }
  const text = (body.value as { target?: unknown } | null)?.target;
  const target = typeof text === "string" ? parseEnrolTarget(text) : undefined;
  if (target === undefined) return badRequest(`target is none of ${TARGET_FORMS}`);
  return Response.json(await operations.unenrol(target));
}

async function readJson(request: Request): Promise<{ readonly value: unknown } | { readonly wrong: string }> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of request.body ?? []) {
    length += chunk.length;
    if (length > BODY_BYTES_MAX) return { wrong: `the body is longer than ${BODY_BYTES_MAX} bytes` };
    chunks.push(chunk);
  }
  try {
    return { value: JSON.parse(await new Blob(chunks as BlobPart[]).text()) };
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return { wrong: "the body is not JSON" };
  }
}

const badRequest = (wrong: string) => failed(400, "AMB7108", wrong, "Correct the request.");

function failed(status: number, code: string, message: string, remedy: string): Response {
  return Response.json({ error: { code, message, remedy } }, { status });
}

/** Who can write to the folder can put a socket of their own in our place. */
function checkFolder(path: string): void {
  const folder = path.slice(0, Math.max(path.lastIndexOf("/"), 1));
  const { uid, mode } = Deno.statSync(folder);
  const owned = uid === 0 || uid === effectiveUserId();
  const STICKY = 0o1000, WRITABLE_BY_OTHERS = 0o022;
  const safe = ((mode ?? 0) & WRITABLE_BY_OTHERS) === 0 || ((mode ?? 0) & STICKY) !== 0;
  if (owned && safe) return;
  throw new MeshError("AMB7107", `the folder ${folder} belongs to someone else or is writable by others`, {
    remedy: `Run chmod go-w on it, or choose another --enrol-socket.`,
  });
}
