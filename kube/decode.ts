/** What an API server answers, to the types of `api.ts`: lists, objects, watch events, and the Status that it refuses with. */
import { isFields } from "../base/plain.ts";
import { readProtoObject } from "./proto_answers.ts";
import type { ProtoFields } from "./proto_fields.ts";
import { KubeError, type KubeObject, KubeUnreachable, type ListPage, type WatchEvent } from "./api.ts";

const MESSAGE_LETTERS_MAX = 1_000;

export function undecodable(wrong: string, cause?: unknown): KubeUnreachable {
  return new KubeUnreachable(`an answer that no API server gives: ${wrong}`, { undecodable: true, cause });
}

/** @throws KubeUnreachable. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw undecodable("no JSON"); // The parser's message would quote it, and it may be a Secret.
  }
}

/** An object, a list or a Status in protobuf. @throws KubeUnreachable. */
export function readObjectProto(bytes: Uint8Array, fields: ProtoFields): unknown {
  try {
    return readProtoObject(bytes, fields);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw undecodable(error.message);
  }
}

/** Whether it has what every object must have: then the rest is for whoever knows the kind. */
function isObject(value: unknown): value is KubeObject {
  if (!isFields(value) || !isFields(value.metadata)) return false;
  const { name, namespace, uid, resourceVersion } = value.metadata;
  const textOrNone = (it: unknown) => it === undefined || typeof it === "string";
  return typeof name === "string" && textOrNone(namespace) && textOrNone(uid) && textOrNone(resourceVersion);
}

/** @throws KubeUnreachable. */
export function readObject(value: unknown): KubeObject {
  if (isObject(value)) return value;
  // A review has no name, and is stored nowhere.
  if (isFields(value) && typeof value.kind === "string" && value.kind.endsWith("Review")) {
    return { ...value, metadata: { ...isFields(value.metadata) ? value.metadata : {}, name: "" } };
  }
  throw undecodable("an object without a name");
}

/** @throws KubeUnreachable. */
export function readList(value: unknown): ListPage {
  if (!isFields(value) || !isFields(value.metadata)) throw undecodable("a list without metadata");
  const { resourceVersion, continue: continueToken } = value.metadata, items = value.items ?? [];
  if (typeof resourceVersion !== "string" || !Array.isArray(items) || !items.every(isObject)) {
    throw undecodable("a list of something else");
  }
  return { items, resourceVersion, continueToken: typeof continueToken === "string" ? continueToken : "" };
}

/** One line of a watch. @throws KubeError for an error event, KubeUnreachable. */
export function readWatchEvent(line: string): WatchEvent {
  return watchEventOf(parseJson(line));
}

/** Of plain data, whatever it came in. @throws KubeError for an error event, KubeUnreachable. */
export function watchEventOf(event: unknown): WatchEvent {
  if (!isFields(event)) throw undecodable("a watch event that is no object");
  const { type, object } = event;
  if (type === "ADDED" || type === "MODIFIED" || type === "DELETED") {
    // Without a version nobody knows where to go on from.
    if (!isObject(object) || (object.metadata.resourceVersion ?? "") === "") {
      throw undecodable("an event without an object");
    }
    return { type, object };
  }
  if (type === "BOOKMARK") {
    const metadata = isFields(object) && isFields(object.metadata) ? object.metadata : {};
    const { resourceVersion, annotations } = metadata;
    if (typeof resourceVersion !== "string" || resourceVersion === "") {
      throw undecodable("a bookmark without a version");
    }
    const initialEventsEnd = isFields(annotations) && annotations["k8s.io/initial-events-end"] === "true";
    return { type, resourceVersion, initialEventsEnd };
  }
  if (type === "ERROR") throw readStatus(object, 0);
  throw undecodable("a watch event of no known type");
}

/** A Status object, or whatever came instead of it, as the error it tells of. @param httpStatus 0: that of the object. */
export function readStatus(value: unknown, httpStatus: number): KubeError | KubeUnreachable {
  const of = isFields(value) && value.kind === "Status" ? value : {};
  const code = httpStatus !== 0 ? httpStatus : of.code;
  if (typeof code !== "number" || !Number.isInteger(code) || code < 100 || code > 599) {
    return undecodable("an error without a code");
  }
  const message = typeof of.message === "string" && of.message !== "" ? of.message : `the API server answered ${code}`;
  return new KubeError(code, typeof of.reason === "string" ? of.reason : "", message.slice(0, MESSAGE_LETTERS_MAX));
}
