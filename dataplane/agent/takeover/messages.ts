/** What a ztunnel and its successor say to each other: one packet each, a kind and a record; descriptors travel beside them. */
import { list, maybe, record, recordCodec, type ValueOf } from "../../../base/record_codec.ts";

/** No packet is larger; the state itself travels as memory files. */
export const PACKET_BYTES_MAX = 16_384;

const SHAPES = {
  /** Successor: which format it reads. Stays as it is for ever, so that versions can tell each other apart. */
  hello: record({ version: "u32", hash: "u32", program: "text" }),
  /** Predecessor: no takeover, and why. */
  refused: record({ reason: "text" }),
  /** Predecessor: how much is to come; so many pods follow. `edition` names the set of pods. */
  welcome: record({ workers: "u32", pods: "u32", descriptors: "u32", edition: "text", program: "text" }),
  /** Predecessor: one pod, beside it its network namespace and the sockets at which it is served DNS. */
  pod: record({
    row: "u32",
    uid: "text",
    name: "text",
    namespace: "text",
    serviceAccount: "text",
    transparent: "flag",
    certified: "flag",
    shared: maybe(
      record({ outboundPort: "u32", plaintextPort: "u32", inboundPorts: list("u32"), address: "text", dnsPort: "u32" }),
    ),
  }),
  /** Successor: it knows these pods, and asks for the connections. */
  freeze: record({ edition: "text" }),
  /** Predecessor: what one worker wrote down, a memory file beside it; so many descriptors follow. */
  state: record({ handles: "u32", sessions: "u32", connections: "u32", left: "u32", frozenAtMs: "f64" }),
  /** Predecessor: descriptors of the worker named last. */
  handles: record({ count: "u32" }),
  /** Predecessor: that was all. Beside it the token: whoever reads it owns the connections. */
  token: record({ workers: "u32" }),
  /** Successor: it has read the token, and serves. */
  live: record({ pauseMs: "f64" }),
} as const;

type Shapes = typeof SHAPES;
/** Any message, told apart by its kind. */
export type Message = { [Kind in keyof Shapes]: { readonly kind: Kind } & ValueOf<Shapes[Kind]> }[keyof Shapes];

const KINDS = Object.keys(SHAPES) as (keyof Shapes)[];
const CODECS = new Map(KINDS.map((kind) => [kind, recordCodec(SHAPES[kind])]));

export function encodeMessage(message: Message): Uint8Array<ArrayBuffer> {
  const body = CODECS.get(message.kind)!.encode(message as never), bytes = new Uint8Array(1 + body.length);
  bytes[0] = KINDS.indexOf(message.kind);
  bytes.set(body, 1);
  return bytes;
}

/** @returns undefined for anything that is no message. */
export function decodeMessage(bytes: Uint8Array): Message | undefined {
  const kind = KINDS[bytes[0] ?? KINDS.length];
  const value = kind && CODECS.get(kind)!.decode(bytes.slice(1));
  return value && { kind, ...value } as Message;
}
