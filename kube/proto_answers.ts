/** What an API server answers in protobuf, as the plain data that its JSON would be: objects, lists, watch events, a Status. */
import { bytes, int, message, messagesOf, type ProtoFields, protoFields, text, textAlways } from "./proto_fields.ts";
import { readProto } from "./proto_reader.ts";

/** Every object begins with these: `k8s`, 0. */
const MAGIC = [0x6b, 0x38, 0x73, 0x00];
const UNKNOWN = protoFields({ 1: message("type", { 2: text("kind") }), 2: bytes("raw") });
const EVENT = protoFields({ 1: text("type"), 2: message("object", { 1: bytes("raw") }) });
const STATUS = protoFields({ 3: text("message"), 4: text("reason"), 6: int("code") });
const LIST_METADATA = { 2: textAlways("resourceVersion"), 3: text("continue") };
const NOTHING = new Uint8Array(0);

/** Of the list of a type: what is read of it, by the fields that are read of each object. */
export function listFieldsOf(fields: ProtoFields): ProtoFields {
  return protoFields({ 1: message("metadata", LIST_METADATA), 2: messagesOf("items", fields) });
}

/** An object; a Status as such, whatever was asked for. @throws RangeError. */
export function readProtoObject(whole: Uint8Array, fields: ProtoFields): unknown {
  if (!MAGIC.every((byte, at) => whole[at] === byte)) throw new RangeError("it is no object of Kubernetes");
  const { type, raw = NOTHING } = readProto(whole.subarray(MAGIC.length), UNKNOWN) as {
    readonly type?: { readonly kind?: string };
    readonly raw?: Uint8Array;
  };
  return type?.kind === "Status" ? { ...readProto(raw, STATUS), kind: type.kind } : readProto(raw, fields);
}

/** One frame of a watch. @throws RangeError. */
export function readProtoEvent(frame: Uint8Array, fields: ProtoFields): unknown {
  const { type, object } = readProto(frame, EVENT) as {
    readonly type?: string;
    readonly object?: { readonly raw?: Uint8Array };
  };
  return { type, object: readProtoObject(object?.raw ?? NOTHING, fields) };
}
