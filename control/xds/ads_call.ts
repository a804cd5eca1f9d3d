/** One discovery call from its beginning to its end: admitted, read message by message, and left once (CP-400). */
import type { Buffer } from "node:buffer";
import type * as grpc from "@grpc/grpc-js";
import { WireFormatError } from "../../mesh/proto/wire_format_error.ts";
import type { Caller } from "../ca/caller.ts";
import type { AdsCall } from "./stream_gate.ts";

export interface CallOptions<R> {
  /** @returns Who calls, or undefined if the call was refused. */
  readonly admit: () => Promise<Caller | undefined>;
  readonly refuse: (status: keyof typeof grpc.status, details: string) => undefined;
  /** @throws WireFormatError */
  readonly decode: (bytes: Buffer) => R;
  /** Called with every request, the first one included, but never after {@link onEnd}. */
  readonly onRequest: (request: R, caller: Caller) => void;
  /** The call is over, whoever ended it. */
  readonly onEnd: () => void;
  /** Our own mistake; the call is over. */
  readonly onFailure: (error: unknown) => void;
}

/** Serves a call until it ends. */
export function serveCall<R>(
  call: AdsCall,
  { admit, refuse, decode, onRequest, onEnd, onFailure }: CallOptions<R>,
): void {
  let over = false; // What is still buffered of a call that is over must not open a stream that nobody ends.
  const leave = () => {
    if (over) return;
    over = true;
    onEnd();
  };
  const fail = (error: unknown) => {
    onFailure(error);
    refuse("INTERNAL", "internal error");
  };
  call.on("cancelled", leave);
  call.on("error", leave); // Ours (a refusal), or the transport's: the client sees its connection end.
  call.on("end", () => {
    leave();
    call.end();
  });
  const onData = (bytes: Buffer, caller: Caller) => {
    if (over) return;
    let request: R;
    try {
      request = decode(bytes);
    } catch (error) {
      if (!(error instanceof WireFormatError)) return fail(error);
      return refuse("INVALID_ARGUMENT", error.message);
    }
    onRequest(request, caller);
  };
  admit().then((caller) => {
    if (caller !== undefined) call.on("data", (bytes: Buffer) => onData(bytes, caller)); // Nothing is read before.
  }, fail);
}
