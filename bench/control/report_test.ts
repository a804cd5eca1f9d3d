import { assertMatch } from "@std/assert";
import { type ControlSeries, toControlMarkdown, toControlTable } from "./report.ts";

const FACTS = { date: "d", machine: "m", commit: "c", command: "b", peers: {}, othersMax: 0, stolenMax: 0 };

function series(peer: string, ...latencies: number[]): ControlSeries {
  const rounds = latencies.map((value) => new Map([["latency.p50", value]]));
  return { peer, pods: 1, proxies: 1, rounds, notes: peer === "istiod" ? ["no change arrived"] : [] };
}

Deno.test("a figure of which there was nothing to measure is a dash, with the note that says so", () => {
  const none = [series("ours", 30), series("istiod", NaN)];
  assertMatch(
    toControlTable(FACTS, none),
    /change to proxy, p50, ms +30\.0 +– +–\n[^]*note: istiod[^]*no change arrived/,
  );
  assertMatch(toControlMarkdown(FACTS, none), /\| change to proxy, p50, ms \| 30\.0 \| – \| – \|/);
});

Deno.test("a round with nothing to measure does not count where another has a figure", () => {
  const some = [series("ours", 30), series("istiod", NaN, 60)];
  assertMatch(toControlTable(FACTS, some), /change to proxy, p50, ms +30\.0 +60\.0 +0\.50\n/);
});
