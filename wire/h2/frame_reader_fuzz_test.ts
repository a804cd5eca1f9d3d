/** FrameReader under mutated streams. */
import { assertEquals } from "@std/assert";
import { FrameReader } from "./frame_reader.ts";
import { FRAME_HEADER_BYTES, H2Error } from "./frame_rules.ts";
import { EVERY_KIND_OF_FRAME, joined, Seeded, seeds, Transcript } from "./testing.ts";

Deno.test("FrameReader never throws and never reads past its bytes, whatever comes (seeded, 100,000 runs)", () => {
  const all = joined(...EVERY_KIND_OF_FRAME);
  for (const seed of seeds(7)) {
    const random = new Seeded(seed);
    let failures = 0;
    for (let run = 0; run < 100_000; run++) {
      const bytes = all.slice(random.next(2) * FRAME_HEADER_BYTES, 40 + random.next(all.length - 40));
      for (let change = random.next(6); change > 0; change--) bytes[random.next(bytes.length)] = random.next(256);
      const reader = new FrameReader(16_384, 1_024, false);
      const sink = new Transcript(), cut = random.next(bytes.length);
      const result = reader.read(bytes, 0, cut, sink) || reader.read(bytes, cut, bytes.length, sink);
      if (result > 0 || result < -H2Error.HTTP_1_1_REQUIRED) {
        throw new Error(`result ${result} in run ${run} of seed ${seed}`);
      }
      if (result !== 0) failures++;
    }
    assertEquals(
      failures > 10_000 && failures < 100_000,
      true,
      `${failures} refused: the mutations reach both outcomes`,
    );
  }
});
