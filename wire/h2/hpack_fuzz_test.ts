/** HPACK under random blocks: never throws, stays in bounds, and agrees with a slow plain model. */
import { assertEquals } from "@std/assert";
import { H2Error } from "./frame_rules.ts";
import { STATIC_TABLE } from "./header_names.ts";
import { HpackDecoder } from "./hpack_decoder.ts";
import { RequestHead } from "./request_check.ts";
import { HeaderTexts, hex, Seeded, seeds } from "./testing.ts";

const BLOCKS = [
  "828684418cf1e3c2e5f23a6ba0ab90f4ff",
  "828684be5886a8eb10649cbf",
  "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
  "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
  "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f36",
  "3fe11f 02 07 434f4e4e454354 01 05 61 3a 38 30 30 00 07 62616767616765 03 613d62 7e 01 31 be bf",
].map(hex);

/** A plain model of HPACK for blocks without Huffman strings: lists of strings, nothing shared with what is tested. */
class Model {
  entries: [string, string][] = [];
  limit: number;
  constructor(readonly limitMax: number) {
    this.limit = limitMax;
  }

  #evict(): void {
    const size = () => this.entries.reduce((sum, [name, value]) => sum + name.length + value.length + 32, 0);
    while (size() > this.limit) this.entries.pop();
  }

  decode(bytes: readonly number[]): string[] | undefined {
    const out: string[] = [];
    let at = 0, fields = 0;
    const integer = (bits: number): number => {
      const mask = 2 ** bits - 1;
      let value = bytes[at++]! & mask;
      if (value < mask) return value;
      for (let power = 1;; power *= 128) {
        const octet = bytes[at++];
        if (octet === undefined || power > 128 ** 3) return NaN;
        value += (octet % 128) * power;
        if (octet < 128) return value;
      }
    };
    const text = (): string | undefined => {
      if (at >= bytes.length) return undefined;
      assertEquals(bytes[at]! < 128, true, "the model knows no Huffman");
      const length = integer(7);
      if (!(at + length <= bytes.length)) return undefined;
      return String.fromCharCode(...bytes.slice(at, at += length));
    };
    const entry = (index: number) => index <= 61 ? STATIC_TABLE[index - 1] : this.entries[index - 62];
    while (at < bytes.length) {
      const first = bytes[at]!;
      if (first >= 128) {
        const found = entry(integer(7));
        if (found === undefined) return undefined;
        out.push(found.join(": "));
        fields++;
      } else if (first >= 32 && first < 64) {
        const size = integer(5);
        if (!(size <= this.limitMax) || fields > 0) return undefined;
        this.limit = size;
        this.#evict();
      } else {
        const index = integer(first >= 64 ? 6 : 4);
        const name = index === 0 ? text() : entry(index)?.[0];
        const value = name === undefined ? undefined : text();
        if (name === undefined || value === undefined) return undefined;
        out.push(`${name}: ${value}`);
        fields++;
        if (first < 64) continue;
        this.entries.unshift([name, value]);
        this.#evict();
      }
    }
    return out;
  }
}

Deno.test("HpackDecoder never throws and takes bounded time, whatever comes (seeded, 100,000 blocks)", () => {
  for (const seed of seeds(5)) {
    const random = new Seeded(seed), head = new RequestHead(16_384);
    let decoder = new HpackDecoder(4_096, 16_384), refused = 0;
    for (let run = 0; run < 100_000; run++) {
      const bytes = BLOCKS[random.next(BLOCKS.length)]!.slice();
      for (let change = random.next(4); change > 0; change--) bytes[random.next(bytes.length)] = random.next(256);
      const start = random.next(8) === 0 ? random.next(bytes.length) : 0;
      head.begin();
      const result = decoder.decode(bytes, start, bytes.length, head);
      if (result !== 0 && result !== -H2Error.COMPRESSION_ERROR) {
        throw new Error(`result ${result} in run ${run} of seed ${seed}`);
      }
      if (decoder.tableBytes > 4_096) throw new Error(`table of ${decoder.tableBytes} in run ${run} of seed ${seed}`);
      head.verdict();
      if (result === 0) continue;
      refused++;
      decoder = new HpackDecoder(4_096, 16_384);
    }
    assertEquals(refused > 5_000 && refused < 95_000, true, `${refused} refused: the mutations reach both outcomes`);
  }
});

Deno.test("HpackDecoder agrees with a plain model on random plain blocks, small tables, long lives (seeded)", () => {
  for (const seed of seeds(99)) {
    const random = new Seeded(seed);
    let agreed = 0, refused = 0;
    for (let life = 0; life < 400; life++) {
      const limit = [0, 40, 70, 100, 200, 4_096][random.next(6)]!;
      const decoder = new HpackDecoder(limit, 1 << 20), model = new Model(limit);
      for (let blockIndex = 0; blockIndex < 60; blockIndex++) {
        const bytes: number[] = [];
        const text = () => {
          const length = random.next(12) === 0 ? random.next(120) : random.next(6);
          bytes.push(length, ...Array.from({ length }, () => 97 + random.next(4)));
        };
        if (random.next(6) === 0) bytes.push(0x20 + random.next(30));
        for (let fields = random.next(6); fields > 0; fields--) {
          const kind = random.next(10);
          if (kind < 3) bytes.push(0x80 + 1 + random.next(random.next(12) === 0 ? 65 : 61));
          else if (kind < 6) {
            bytes.push(0x40);
            text();
            text();
          } else if (kind < 8) {
            bytes.push(0x40 + 1 + random.next(random.next(6) === 0 ? 62 : 61));
            text();
          } else if (kind < 9) {
            bytes.push(0x7e);
            text();
          } else {
            bytes.push(random.next(2) * 16 + random.next(15));
            if (bytes.at(-1)! % 16 === 0) text();
            text();
          }
        }
        const sink = new HeaderTexts();
        const result = decoder.decode(Uint8Array.from(bytes), 0, bytes.length, sink);
        const expected = model.decode(bytes);
        assertEquals(
          result,
          expected === undefined ? -H2Error.COMPRESSION_ERROR : 0,
          `seed ${seed} life ${life} block ${bytes}`,
        );
        if (expected === undefined) {
          refused++;
          break;
        }
        assertEquals(sink.texts, expected);
        agreed++;
      }
    }
    assertEquals(agreed > 1_000 && refused > 100, true, `${agreed} agreed, ${refused} refused`);
  }
});
