/** Judges the head of a gRPC request (gRPC over HTTP/2, "Requests"): what is served, and how anything else is answered. */
import { parseTimeoutMs } from "../../wire/grpc/timeout.ts";
import { type StatusName, trailerBlock } from "../../wire/grpc/status.ts";
import { writeField, writeResponseBlock } from "../../wire/h2/hpack_encoder.ts";
import type { RequestFields } from "../../wire/h2/request_fields.ts";

/** A call of this path; `timeoutMs` is undefined if its caller waits for ever. */
export interface Served {
  readonly path: string;
  readonly timeoutMs: number | undefined;
}

/** The end of a call that was not served: by a status of gRPC, or by one of HTTP for what is no gRPC. */
export interface NotServed {
  readonly httpStatus: number;
  readonly status: StatusName | undefined;
  readonly details: string;
}

/** Timers count to 2^31 ms; who waits longer waits for ever. */
const TIMEOUT_MS_MAX = 0x7fffffff;
const GRPC_CONTENT = /^application\/grpc(?:[+;].*)?$/i;
const HEADER_BYTES_MAX = 256;

/** @param fields undefined if the head was too large to be read. */
export function judgeHead(fields: RequestFields | undefined): Served | NotServed {
  if (fields === undefined) return { httpStatus: 431, status: undefined, details: "" };
  if (fields.first(":method") !== "POST") return { httpStatus: 405, status: undefined, details: "" };
  if (!GRPC_CONTENT.test(fields.first("content-type") ?? "")) {
    return { httpStatus: 415, status: undefined, details: "" };
  }
  const path = fields.first(":path")!, encoding = fields.first("grpc-encoding") ?? "identity";
  if (encoding !== "identity") return refused("UNIMPLEMENTED", `messages compressed by ${encoding} are not taken`);
  const timeout = fields.first("grpc-timeout");
  if (timeout === undefined) return { path, timeoutMs: undefined };
  const timeoutMs = parseTimeoutMs(timeout);
  if (timeoutMs === undefined) return refused("INTERNAL", "malformed grpc-timeout");
  return { path, timeoutMs: timeoutMs > TIMEOUT_MS_MAX ? undefined : timeoutMs };
}

/** A call ends with this status. */
export function refused(status: StatusName, details: string): NotServed {
  return { httpStatus: 200, status, details };
}

/** The header block that is the whole answer. */
export function refusalBlock({ httpStatus, status, details }: NotServed): Uint8Array {
  const head = new Uint8Array(HEADER_BYTES_MAX);
  let end = writeResponseBlock(head, 0, httpStatus, "");
  if (status === undefined) return head.slice(0, end);
  end = writeField(head, end, "content-type", "application/grpc");
  end = writeField(head, end, "grpc-accept-encoding", "identity");
  const trailers = trailerBlock(status, details), whole = new Uint8Array(end + trailers.length);
  whole.set(head.subarray(0, end));
  whole.set(trailers, end);
  return whole;
}
