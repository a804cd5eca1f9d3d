import { assertEquals } from "@std/assert";
import { parsePrefix } from "./values.ts";

Deno.test("parsePrefix() takes addresses and prefixes of both families, and no prefix of an IPv4 address in the form of IPv6", () => {
  const taken = (text: string) =>
    parsePrefix(text)?.prefixLength ?? (parsePrefix(text) === undefined ? "refused" : "whole");
  for (
    const [text, expected] of [
      ["10.0.0.1", "whole"],
      ["10.0.0.0/8", 8],
      ["10.0.0.0/33", "refused"],
      ["fd00::/8", 8],
      ["fd00::/129", "refused"],
      ["10.0.0.0/08", "refused"],
      ["::ffff:10.0.0.1", "whole"],
      // Whoever reads it as one of 10.0.0.0, or as one of 128 bits, means another range; no policy may hang on that.
      ["::ffff:10.0.0.0/104", "refused"],
      ["::ffff:10.0.0.0/8", "refused"],
      ["010.0.0.1", "refused"],
    ] as const
  ) assertEquals(taken(text), expected, text);
});
