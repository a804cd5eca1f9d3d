/** One discovery call from its beginning to its end: admitted, read message by message, and left once (CP-400). */
import type { StatusName } from "../../wire/grpc/status.ts";
import { WireFormatError } from "../../mesh/proto/wire_format_error.ts";
import type { Caller } from "../ca/caller.ts";
import type { GrpcCall } from "../grpc/call.ts";

export interface CallOptions<R> {
  /** @returns Who calls, or undefined if the call was refused. */
  readonly admit: () => Promise<Caller | undefined>;
  readonly refuse: (status: StatusName, details: string) => undefined;
  /** @throws WireFormatError */
  readonly decode: (bytes: Uint8Array) => R;
  /** Called with every request, the first one included, but never after {@link onEnd}. */
  readonly onRequest: (request: R, caller: Caller) => void;
  /** The call is over, whoever ended it. */
  readonly onEnd: () => void;
  /** Our own mistake; the call is over. */
  readonly onFailure: (error: unknown) => void;
}

/** Serves a call until it ends. */
export function serveCall<R>(
  call: GrpcCall,
  { admit, refuse, decode, onRequest, onEnd, onFailure }: CallOptions<R>,
): void {
  const fail = (error: unknown) => {
    onFailure(error);
    refuse("INTERNAL", "internal error");
  };
  const onMessage = (bytes: Uint8Array, caller: Caller) => {
    try {
      onRequest(decode(bytes), caller);
    } catch (error) {
      if (!(error instanceof WireFormatError)) return fail(error);
      refuse("INVALID_ARGUMENT", error.message);
    }
  };
  call.whenOver(onEnd);
  admit().then((caller) => {
    if (caller === undefined || call.over) return;
    // Nothing is read before.
    call.start({ onMessage: (bytes) => onMessage(bytes, caller), onHalfClosed: () => call.finish("OK") });
  }).catch(fail);
}
