/** State-of-the-world streams: tools ask their questions on them; a data plane that opens one is told nothing (CP-021, CP-413). */
import { decodeDiscoveryRequest, type DiscoveryRequest, encodeDiscoveryResponse } from "../../mesh/proto/sotw_codec.ts";
import type { Caller } from "../ca/caller.ts";
import type { DebugAccess } from "../debug/access.ts";
import type { GrpcCall } from "../grpc/call.ts";
import { OutgoingMessage } from "../grpc/outgoing_message.ts";
import { type CallOptions, serveCall } from "./ads_call.ts";
import { type DebugSource, isDebugType } from "./debug_types.ts";
import { identityFits, parseNode } from "./node.ts";
import { ResponseWriter } from "./response_writer.ts";
import { DebugDesk } from "./stream.ts";

export interface ToolStreamOptions extends Pick<CallOptions<DiscoveryRequest>, "admit" | "refuse" | "onFailure"> {
  readonly accessOf: (caller: Caller) => DebugAccess;
  readonly debug: DebugSource;
  readonly controlPlane: string;
  readonly nextNonce: () => string;
}

/** Serves one such stream until it ends. */
export function serveTools(call: GrpcCall, options: ToolStreamOptions): void {
  const { admit, refuse, onFailure, debug, nextNonce, controlPlane } = options;
  let desk: DebugDesk | undefined;
  const writer = new ResponseWriter(call, {
    next: () => {
      const answer = desk?.next(debug, nextNonce);
      if (answer === undefined) return undefined;
      if ("status" in answer) return refuse(answer.status, answer.details);
      const bytes = encodeDiscoveryResponse({ ...answer, versionInfo: answer.nonce, controlPlane });
      return { message: new OutgoingMessage([bytes]) };
    },
    onFailure: (error) => {
      onFailure(error);
      refuse("INTERNAL", "internal error");
    },
  });
  const onRequest = (request: DiscoveryRequest, caller: Caller) => {
    desk ??= openDesk(request, caller, options);
    if (desk === undefined || !isDebugType(request.typeUrl)) return;
    const question = { typeUrl: request.typeUrl, names: request.resourceNames };
    desk.receive(question, { nonce: request.responseNonce, rejects: request.errorDetail !== undefined });
    writer.pump();
  };
  serveCall(call, { admit, refuse, onFailure, decode: decodeDiscoveryRequest, onRequest, onEnd: () => writer.end() });
}

/** The first request says who asks, as on any stream (CP-400). */
function openDesk(request: DiscoveryRequest, caller: Caller, options: ToolStreamOptions): DebugDesk | undefined {
  const node = parseNode(request.node);
  if ("invalid" in node) return options.refuse("INVALID_ARGUMENT", node.invalid);
  if (caller.identities.length > 0 && !identityFits(node, caller.identities)) {
    return options.refuse("PERMISSION_DENIED", `no identity of ${node.name} was presented`);
  }
  return new DebugDesk(options.accessOf(caller));
}
