/** What is written by hand against what the codec writes, byte for byte. */
import { assertEquals } from "@std/assert";
import { encodeDeltaDiscoveryResponse } from "./discovery_codec.ts";
import { type EncodedMessage, encodeResourceFields } from "./resource_fields.ts";

const TYPE = "type.googleapis.com/istio.workload.Address";
const NOTHING = { systemVersionInfo: "", typeUrl: "", nonce: "", removedResources: [] };

function check(resources: readonly EncodedMessage[], typeUrl = TYPE): void {
  const expected = encodeDeltaDiscoveryResponse({
    ...NOTHING,
    resources: resources.map((it) => ({ ...it, typeUrl })),
  });
  assertEquals(encodeResourceFields(resources, typeUrl), new Uint8Array(expected));
}

const message = (name: string, size: number, aliases: string[] = [], version = "0123456789abcdef") => ({
  name,
  version,
  aliases,
  bytes: new Uint8Array(size).fill(7),
});

Deno.test("encodeResourceFields() writes what the codec does: lengths of one byte and of more, empty fields, many at once (CP-658)", () => {
  check([]);
  check([message("a", 1)]);
  check([message("", 0, [], "")]);
  for (const size of [0, 1, 126, 127, 128, 129, 16_250, 16_383, 16_384, 70_000, 2_100_000]) {
    check([message("name", size)]);
  }
  check([
    message("ns/host.example", 300, ["n1/10.0.0.1", "n1/fd00::1", ""]),
    message("b", 2),
    message("c", 200, ["x".repeat(200)]),
  ]);
  check(Array.from({ length: 500 }, (_, at) => message(`c1//Pod/shop/cart-${at}`, at, [`/10.0.0.${at}`])));
});

Deno.test("encodeResourceFields() writes names of any letters as the codec does", () => {
  for (const name of ["ä", "漢字", "😀", "a😀b", "\u07ff\u0800", "x".repeat(130) + "é"]) {
    check([message(name, 3, [name, `${name}/${name}`], name)]);
  }
});
