/** What a gRPC server offers, by path; and how a question with one answer is served. */
import type { Logger } from "../../base/log.ts";
import type { StatusName } from "../../wire/grpc/status.ts";
import type { RequestFields } from "../../wire/h2/request_fields.ts";
import { GrpcCall } from "./call.ts";
import type { Peer } from "./carrier.ts";
import type { GrpcMetrics, MethodKind, MethodMetrics } from "./metrics.ts";
import { judgeHead, refusalBlock, refused } from "./request_head.ts";
import type { ServerStream } from "./server_stream.ts";

/** A method. */
export interface Method {
  /** `/package.Service/Method` */
  readonly path: string;
  readonly kind: MethodKind;
  /** The longest message that is taken. */
  readonly messageBytesMax: number;
  /** How long a call may take, whatever its caller says; undefined for as long as it likes. */
  readonly msMax?: number;
  /** Takes a call, and sees to its end. */
  serve(call: GrpcCall): void;
}

/** Open calls of one server, twice as many as streams that are let in (CP-658): each costs memory before anybody is known. */
const CALLS_MAX = 40_000;
const UNARY_MS_MAX = 60_000; // a client has its question at hand, and no answer takes half as long

/** The methods of a server. */
export class Methods {
  readonly #metrics: GrpcMetrics;
  #open = 0;
  readonly #byPath = new Map<string, { readonly method: Method; readonly begin: () => MethodMetrics }>();

  constructor(metrics: GrpcMetrics) {
    this.#metrics = metrics;
  }

  add(method: Method): void {
    this.#byPath.set(method.path, { method, begin: this.#metrics.of(method.path, method.kind) });
  }

  /** Names of the services that there are methods of. */
  services(): readonly string[] {
    return [...new Set([...this.#byPath.keys()].map((path) => path.split("/")[1]!))].sort();
  }

  /** Serves a request, or says why not. @param fields undefined if its head was too large to be read. */
  serve(stream: ServerStream, peer: Peer, fields: RequestFields | undefined): void {
    const head = judgeHead(fields);
    if ("httpStatus" in head) return stream.sendWhole(refusalBlock(head));
    const found = this.#byPath.get(head.path);
    if (found === undefined) return stream.sendWhole(refusalBlock(refused("UNIMPLEMENTED", "unknown method")));
    if (this.#open >= CALLS_MAX) return stream.sendWhole(refusalBlock(refused("RESOURCE_EXHAUSTED", "too many calls")));
    const { method, begin } = found, { messageBytesMax, msMax } = method;
    const call = new GrpcCall(stream, { peer, fields: fields!, messageBytesMax, metrics: begin() });
    this.#open++;
    call.whenOver(() => this.#open--);
    const limitMs = Math.min(head.timeoutMs ?? Infinity, msMax ?? Infinity);
    if (limitMs !== Infinity) call.setDeadline(limitMs);
    method.serve(call);
  }
}

/** An answer, or why there is none. */
export type Answer = { readonly bytes: Uint8Array } | { readonly status: StatusName; readonly details: string };

/** A method of one question and one answer. What `answer` throws is our own mistake: the caller learns nothing of it. */
export function unaryMethod(
  { path, messageBytesMax, log, answer }: {
    readonly path: string;
    readonly messageBytesMax: number;
    readonly log: Logger;
    readonly answer: (question: Uint8Array, call: GrpcCall) => Promise<Answer>;
  },
): Method {
  const reply = async (question: Uint8Array, call: GrpcCall) => {
    try {
      const result = await answer(question, call);
      if ("status" in result) return call.finish(result.status, result.details);
      call.send([result.bytes], () => {});
      call.finish("OK");
    } catch (error) {
      log.error("call failed", { method: path, error: String(error) });
      call.finish("INTERNAL", "internal error");
    }
  };
  const serve = (call: GrpcCall) => {
    let question: Uint8Array | undefined;
    call.start({
      onMessage: (message) => {
        if (question !== undefined) return call.finish("UNIMPLEMENTED", "more than one message for one answer");
        question = message.slice(); // It is borrowed, and what comes before the end is waited for.
      },
      onHalfClosed: () => {
        if (question === undefined) return call.finish("UNIMPLEMENTED", "no message to answer");
        void reply(question, call);
      },
    });
  };
  return { path, kind: "unary", messageBytesMax, msMax: UNARY_MS_MAX, serve };
}
