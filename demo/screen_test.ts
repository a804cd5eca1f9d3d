import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { readRefusal, shortIdentity } from "./observer.ts";
import { fit, humanBytes, renderScreen, type ScreenState, wrap } from "./screen.ts";

const STATE: ScreenState = {
  seconds: 12,
  roles: [{ name: "istiod", pid: 7, up: true }, { name: "ztunnel node-a", pid: 8, up: false }],
  edges: [{
    source: "shopper",
    destination: "store",
    sourceIdentity: "shop/shopper",
    destinationIdentity: "shop/store",
    mutualTls: true,
    connections: 10,
    bytes: 12_000,
    connectionsPerSecond: 5,
    bytesPerSecond: 6_000,
    refusedBy: "shop/deny-shopper",
  }],
  report: {
    intervalMs: 500,
    targets: [{ target: "store", succeeded: 10, failed: 2, p50Ms: 1, p99Ms: 2, error: "reset" }],
  },
  chapter: "2 of 7: Policies",
  story: "A story that is told in more words than fit into one narrow line of a terminal.",
  now: "DENY",
  results: Array.from({ length: 40 }, (_, at) => ({ name: `check ${at}`, ok: at % 2 === 0, detail: "found" })),
  footer: "q ends it",
};
// deno-lint-ignore no-control-regex -- the escape sequences are what is looked for
const plain = (line: string) => line.replace(/\x1b\[\d+m/g, "");

Deno.test("renderScreen() fits whatever size the terminal has, with and without colour", () => {
  for (const columns of [20, 40, 80, 99, 100, 200]) {
    for (const rows of [1, 5, 24, 60]) {
      for (const color of [false, true]) {
        const lines = renderScreen(STATE, { columns, rows, color });
        assert(lines.length <= rows, `${lines.length} lines in ${rows} rows`);
        if (columns >= 80) { for (const line of lines) assert(plain(line).length <= columns, plain(line)); }
      }
    }
  }
});

Deno.test("renderScreen() without colour has no escape sequences, and says in words what colour would", () => {
  const text = renderScreen(STATE, { columns: 140, rows: 60, color: false }).join("\n");
  assertEquals(text.includes("\x1b"), false);
  for (const words of ["shopper → store", "shop/shopper → shop/store", "mTLS", "refused: shop/deny-shopper", "DOWN"]) {
    assertStringIncludes(text, words);
  }
  assertStringIncludes(text, "2 failed: reset");
});

Deno.test("renderScreen() shows the newest checks and the footer", () => {
  const lines = renderScreen(STATE, { columns: 100, rows: 24, color: false });
  assertStringIncludes(lines.at(-1)!, "q ends it");
  assert(lines.some((line) => line.includes("check 39")));
  assert(!lines.some((line) => line.includes("check 0 ")));
});

Deno.test("fit(), wrap() and humanBytes() keep to their width", () => {
  assertEquals([fit("abcdef", 4), fit("ab", 4), fit("ab", 0)], ["abc…", "ab  ", ""]);
  assertEquals(wrap("one two three", 7), ["one two", "three"]);
  assertEquals([950, 12_345, 4_500_000].map(humanBytes), ["950 B", "12.3 kB", "4.5 MB"]);
});

Deno.test("readRefusal() names who was refused and by which policy", () => {
  const line = 'error access connection complete src.workload="shopper" dst.workload="store" ' +
    'error="connection closed due to policy rejection: explicitly denied by: shop/deny-shopper"';
  assertEquals(readRefusal(line), { source: "shopper", destination: "store", policy: "shop/deny-shopper" });
  assertEquals(readRefusal("info access connection complete"), undefined);
  assertEquals(shortIdentity("spiffe://cluster.local/ns/shop/sa/store"), "shop/store");
  assertEquals(shortIdentity("unknown"), "");
});
