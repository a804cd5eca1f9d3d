import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { cpuSamples, Profiler } from "./profiler.ts";
import { encodePprof } from "./pprof.ts";

const frame = (functionName: string) => ({ functionName, url: "file:///a.ts", lineNumber: 6 });

Deno.test("encodePprof() writes profile.proto: strings, functions, locations, samples (ZT-218)", () => {
  const samples = [{ frames: [frame("f"), frame("")], values: [2, 300] }, { frames: [frame("")], values: [1, 5] }];
  const bytes = encodePprof(samples, {
    types: [["samples", "count"], ["cpu", "microseconds"]],
    period: 10_000,
    startedAtMs: 1,
    durationMs: 2,
  });
  assertEquals(
    bytes.toHex(),
    "0a0408011002" + "0a0408031004" + // sample types: string 1 in 2, 3 in 4
      "1209" + "0a020102" + "120302ac02" + // a sample: locations 1 2, values 2 300
      "1207" + "0a0102" + "12020105" +
      "2208" + "0801" + "2204" + "08011007" + "2a0a" + "0801" + "1005" + "1805" + "2006" + "2807" +
      "2208" + "0802" + "2204" + "08021007" + "2a0a" + "0802" + "1007" + "1807" + "2006" + "2807" +
      "48c0843d" + "5080897a" + "5a0408031004" + "60904e" +
      ["", "samples", "count", "cpu", "microseconds", "f", "file:///a.ts", "(anonymous)"].map((text) =>
        "32" + text.length.toString(16).padStart(2, "0") + new TextEncoder().encode(text).toHex()
      ).join(""),
  );
});

Deno.test("cpuSamples() sums up samples by stack, innermost first, without the time nothing ran", () => {
  const nodes = [
    { id: 1, callFrame: frame("(root)"), children: [2, 4] },
    { id: 2, callFrame: frame("outer"), children: [3] },
    { id: 3, callFrame: frame("inner") },
    { id: 4, callFrame: frame("(idle)") },
  ];
  const found = cpuSamples({ nodes, samples: [3, 4, 3, 2], timeDeltas: [10, 20, 30, 40] });
  assertEquals(found, [
    { frames: [frame("inner"), frame("outer")], values: [2, 40] },
    { frames: [frame("outer")], values: [1, 40] },
  ]);
});

Deno.test("Profiler takes one CPU profile at a time, and ends it with its signal (ZT-218)", async () => {
  using profiler = new Profiler();
  const stop = new AbortController();
  const running = profiler.cpu({ seconds: 300, frequency: 1000, signal: stop.signal });
  assertEquals(await profiler.cpu({ seconds: 1, frequency: 100, signal: stop.signal }), undefined);
  stop.abort();
  const bytes = (await running)!;
  assertStringIncludes(new TextDecoder().decode(bytes), "microseconds");
});

Deno.test("Profiler tells who holds memory, once it was switched on (ZT-218)", async () => {
  using profiler = new Profiler();
  assertEquals(await profiler.heap(), undefined);
  await profiler.activateHeap(true);
  const held: number[][] = [];
  function holdsMuch() {
    for (let at = 0; at < 20_000; at++) held.push([at, at + 1, at + 2]);
  }
  holdsMuch();
  const text = new TextDecoder().decode(await profiler.heap());
  assertStringIncludes(text, "inuse_space");
  assertStringIncludes(text, "holdsMuch");
  assert(held.length > 0);
});
