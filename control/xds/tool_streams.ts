/** State-of-the-world streams: tools ask their questions on them; a data plane that opens one is told nothing (CP-021, CP-413). */
import type { Buffer } from "node:buffer";
import type { Logger } from "../../base/log.ts";
import { decodeDiscoveryRequest, type DiscoveryRequest, encodeDiscoveryResponse } from "../../mesh/proto/sotw_codec.ts";
import { WireFormatError } from "../../mesh/proto/wire_format_error.ts";
import type { Caller } from "../ca/caller.ts";
import type { DebugAccess } from "../debug/access.ts";
import { type DebugSource, isDebugType } from "./debug_types.ts";
import { identityFits, parseNode } from "./node.ts";
import { ResponseWriter } from "./response_writer.ts";
import { DebugDesk, toBuffer } from "./stream.ts";
import type { AdsCall } from "./stream_gate.ts";

export interface ToolStreamOptions {
  /** @returns Who calls, or undefined if the call was refused. */
  readonly admit: () => Promise<Caller | undefined>;
  readonly refuse: (
    status: "INVALID_ARGUMENT" | "PERMISSION_DENIED" | "UNAUTHENTICATED" | "INTERNAL",
    details: string,
  ) => undefined;
  readonly accessOf: (caller: Caller) => DebugAccess;
  readonly debug: DebugSource;
  readonly controlPlane: string;
  readonly nextNonce: () => string;
  readonly log: Logger;
}

/** Serves one such stream until it ends. */
export function serveTools(call: AdsCall, options: ToolStreamOptions): void {
  const { refuse, debug, nextNonce, controlPlane } = options;
  let desk: DebugDesk | undefined, over = false;
  const writer = new ResponseWriter(call, () => {
    const answer = desk?.next(debug, nextNonce);
    if (answer === undefined) return undefined;
    if ("status" in answer) return refuse(answer.status, answer.details);
    return { bytes: toBuffer(encodeDiscoveryResponse({ ...answer, versionInfo: answer.nonce, controlPlane })) };
  });
  const leave = () => {
    over = true;
    writer.end();
  };
  call.on("cancelled", leave);
  call.on("error", leave);
  call.on("end", () => {
    leave();
    call.end();
  });
  const onRequest = (request: DiscoveryRequest, caller: Caller) => {
    desk ??= openDesk(request, caller, options);
    if (desk === undefined || !isDebugType(request.typeUrl)) return;
    const question = { typeUrl: request.typeUrl, names: request.resourceNames };
    desk.receive(question, { nonce: request.responseNonce, rejects: request.errorDetail !== undefined });
    writer.pump();
  };
  options.admit().then(
    (caller) => {
      if (caller === undefined) return;
      call.on("data", (bytes: Buffer) => {
        if (over) return;
        const request = decode(bytes);
        if ("invalid" in request) refuse("INVALID_ARGUMENT", request.invalid);
        else onRequest(request, caller);
      });
    },
    (error) => {
      options.log.error("xds stream failed", { error: String(error) });
      refuse("INTERNAL", "internal error");
    },
  );
}

function decode(bytes: Buffer): DiscoveryRequest | { invalid: string } {
  try {
    return decodeDiscoveryRequest(bytes);
  } catch (error) {
    if (!(error instanceof WireFormatError)) throw error;
    return { invalid: error.message };
  }
}

/** The first request says who asks, as on any stream (CP-400). */
function openDesk(request: DiscoveryRequest, caller: Caller, options: ToolStreamOptions): DebugDesk | undefined {
  const node = parseNode(request.node);
  if ("invalid" in node) return options.refuse("INVALID_ARGUMENT", node.invalid);
  if (caller.identities.length > 0 && !identityFits(node, caller.identities)) {
    return options.refuse("PERMISSION_DENIED", `no identity of ${node.name} was presented`);
  }
  options.log.debug("xds stream of a tool opened", { node: node.name });
  return new DebugDesk(options.accessOf(caller));
}
