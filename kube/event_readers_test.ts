import { assertEquals, assertThrows } from "@std/assert";
import { KubeError, KubeUnreachable, type WatchEvent } from "./api.ts";
import { ProtoEventReader } from "./event_readers.ts";
import { message, protoFields, text, textMap } from "./proto_fields.ts";
import { envelope, field, frame, joined, named, statusBytes } from "./proto_testing.ts";

const FIELDS = protoFields({
  1: message("metadata", {
    1: text("name"),
    3: text("namespace"),
    6: text("resourceVersion"),
    12: textMap("annotations"),
  }),
});
const LIST_END = field(12, joined(field(1, "k8s.io/initial-events-end"), field(2, "true")));
const STREAM = joined(
  frame("ADDED", "Pod", named("a", "5")),
  frame("MODIFIED", "Pod", joined(named("b", "6"), field(2, "x".repeat(70_000)))),
  frame("BOOKMARK", "Pod", field(1, joined(field(6, "7"), LIST_END))),
  frame("DELETED", "Pod", named("a", "8")),
);
const object = (name: string, resourceVersion: string) => ({ metadata: { name, namespace: "n", resourceVersion } });
const EVENTS: readonly WatchEvent[] = [
  { type: "ADDED", object: object("a", "5") },
  { type: "MODIFIED", object: object("b", "6") },
  { type: "BOOKMARK", resourceVersion: "7", initialEventsEnd: true },
  { type: "DELETED", object: object("a", "8") },
];

function read(stream: Uint8Array, pieceBytes: number, frameBytesMax = 1 << 20) {
  const reader = new ProtoEventReader(FIELDS, frameBytesMax), events: WatchEvent[] = [];
  for (let at = 0; at < stream.length; at += pieceBytes) {
    // The buffer is used again, as a socket's is.
    const piece = stream.slice(at, at + pieceBytes);
    for (const event of reader.push(piece)) events.push(event);
    piece.fill(0xff);
  }
  return { events, pendingBytes: reader.pendingBytes };
}

Deno.test("ProtoEventReader gives the same events wherever the bytes are cut (CP-101)", () => {
  for (const pieceBytes of [1, 2, 3, 5, 7, 64, 1_000, 65_536, STREAM.length]) {
    assertEquals(read(STREAM, pieceBytes), { events: EVENTS, pendingBytes: 0 }, `pieces of ${pieceBytes}`);
  }
  for (const cut of [1, 3, 4, 5, 20]) {
    assertEquals(read(STREAM.subarray(0, cut), 100), { events: [], pendingBytes: cut });
  }
});

Deno.test("ProtoEventReader refuses what cannot be read, and says so (CP-101)", () => {
  const refused: Record<string, Uint8Array> = {
    "a frame that is too long": new Uint8Array([0x7f, 0xff, 0xff, 0xff]),
    "an object without its envelope": joined(new Uint8Array([0, 0, 0, 4]), field(2, field(1, "")).subarray(0, 4)),
    "no name": frame("ADDED", "Pod", field(1, field(6, "5"))),
    "no version": frame("ADDED", "Pod", field(1, field(1, "a"))),
    "an event of no known type": frame("SEEN", "Pod", named("a", "5")),
    "JSON": new TextEncoder().encode('{"type":"ADDED","object":{}}'),
  };
  for (const [what, bytes] of Object.entries(refused)) {
    const error = assertThrows(() => read(bytes, bytes.length), KubeUnreachable, undefined, what);
    assertEquals(error.undecodable, true, what);
  }
  const gone = assertThrows(() => read(frame("ERROR", "Status", statusBytes(410, "Expired")), 100), KubeError);
  assertEquals([gone.status, gone.reason], [410, "Expired"]);
  assertThrows(() => read(frame("ERROR", "Pod", named("a", "5")), 100), KubeUnreachable);
  assertEquals(envelope("Pod", named("a", "5")).subarray(0, 3), new TextEncoder().encode("k8s"));
});
