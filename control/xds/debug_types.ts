/** Debug types: what tools ask of istiod over ADS, on either of its methods (CP-021). */
import { CLIENT_CONFIG_TYPE_URL, encodeClientConfig } from "../../mesh/proto/client_status_codec.ts";
import type { ClientConfig } from "../../mesh/proto/client_status_codec.ts";
import type { DiscoveryResource } from "../../mesh/proto/discovery_codec.ts";
import type { DebugAccess } from "../debug/access.ts";

/** One resource name: the path of a debug page behind `/debug/`, query included. The answer is the page. */
const PAGE_TYPE = "istio.io/debug";
/** Every connected data plane and how far it is, a ClientConfig each. */
const SYNCHRONIZATION_TYPE = `${PAGE_TYPE}/syncz`;
/** One resource name: a proxy. The answer is what it would be sent. */
const CONFIG_DUMP_TYPE = `${PAGE_TYPE}/config_dump`;
const NAME_LENGTH_MAX = 2_048; // a page with its query; what browsers put into a URL

/** Whether a type is asked by tools, and answered once for each request. */
export function isDebugType(typeUrl: string): boolean {
  return typeUrl === PAGE_TYPE || typeUrl === SYNCHRONIZATION_TYPE || typeUrl === CONFIG_DUMP_TYPE;
}

/** Where answers come from. `access` bounds what they show. */
export interface DebugSource {
  /** A page as its bytes, whatever its status: tools show the text, as they do over HTTP. */
  page(pathAndQuery: string, access: DebugAccess): string;
  clients(access: DebugAccess): readonly ClientConfig[];
  /** What a connected proxy would be sent, or undefined if it is not connected here or not to be shown. */
  configOf(proxyId: string, access: DebugAccess): readonly DiscoveryResource[] | undefined;
}

export interface DebugQuestion {
  readonly typeUrl: string;
  readonly names: readonly string[];
}

/** The end of a stream that asked for what it may not have, or not in a form that means anything. */
export interface DebugRefusal {
  readonly status: "UNAUTHENTICATED" | "INVALID_ARGUMENT" | "PERMISSION_DENIED";
  readonly details: string;
}

/** Answers one question. Pages that a caller may see for its own namespace alone are bounded by the source. */
export function answerDebug(
  { typeUrl, names }: DebugQuestion,
  access: DebugAccess,
  source: DebugSource,
): readonly DiscoveryResource[] | DebugRefusal {
  if (access === "nobody") return { status: "UNAUTHENTICATED", details: "authentication required" };
  if (typeUrl === SYNCHRONIZATION_TYPE) {
    return source.clients(access).map((client) =>
      resource(client.node.id, CLIENT_CONFIG_TYPE_URL, encodeClientConfig(client))
    );
  }
  const [name] = names;
  if (name === undefined || names.length > 1 || name.length > NAME_LENGTH_MAX) {
    return { status: "INVALID_ARGUMENT", details: "exactly one debug request is required" };
  }
  if (typeUrl === CONFIG_DUMP_TYPE) return source.configOf(name, access) ?? [];
  const path = name.split("?")[0] ?? "";
  if (!access.allows(path)) {
    return { status: "PERMISSION_DENIED", details: "the debug info is not available to this identity" };
  }
  return [resource(name, PAGE_TYPE, new TextEncoder().encode(source.page(name, access)))];
}

function resource(name: string, typeUrl: string, bytes: Uint8Array): DiscoveryResource {
  return { name, version: "", aliases: [], typeUrl, bytes };
}

/** Tells a stream's questions from what only acknowledges an answer. Keeps a nonce and a name for each type. */
export class DebugConversation {
  readonly #asked = new Map<string, { nonce: string; name: string | undefined }>();

  /** @returns Whether the request is to be answered: neither an ACK, a NACK nor stale. */
  asks({ typeUrl, names }: DebugQuestion, { nonce, rejects }: { nonce: string; rejects: boolean }): boolean {
    const last = this.#asked.get(typeUrl);
    if (last === undefined) return !rejects; // The first of its type, whatever its nonce says.
    if (rejects || (nonce !== "" && nonce !== last.nonce)) return false;
    return nonce === "" || (names.length > 0 && names[0] !== last.name);
  }

  answered({ typeUrl, names }: DebugQuestion, nonce: string): void {
    this.#asked.set(typeUrl, { nonce, name: names[0] });
  }
}
