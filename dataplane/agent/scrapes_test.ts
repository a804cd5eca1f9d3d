import { assertEquals, assertStrictEquals } from "@std/assert";
import { Scrapes } from "./scrapes.ts";

/** Pages that take some milliseconds to make, by a clock that stands still otherwise. */
function slowPages(costMs: number) {
  let nowMs = 0, made = 0;
  const scrapes = new Scrapes(() => {
    nowMs += costMs;
    return `page ${++made}\n`;
  }, () => nowMs);
  const ask = async (headers: Record<string, string> = {}, path = "/metrics") => {
    const response = scrapes.answer(new Request(`http://node${path}`, { headers }));
    return [response.status, await response.text()];
  };
  return { ask, pass: (ms: number) => void (nowMs += ms) };
}

Deno.test("Scrapes gives a page again for four times as long as it took, then makes another (ZT-191)", async () => {
  const { ask, pass } = slowPages(100);
  assertEquals(await ask(), [200, "page 1\n"]);
  pass(399);
  assertEquals(await ask({ "accept-encoding": "gzip" }), [200, "page 1\n"]);
  pass(1);
  assertEquals([await ask(), await ask({}, "/stats/prometheus")], [[200, "page 2\n"], [200, "page 2\n"]]);
  assertEquals((await ask({}, "/other"))[0], 404);
});

Deno.test("Scrapes gives no page that is older than 5 s, and a quick one to one scraper only", async () => {
  const slow = slowPages(3_000), quick = slowPages(0);
  await slow.ask();
  slow.pass(2_000);
  assertEquals((await slow.ask())[1], "page 2\n");
  assertEquals([(await quick.ask())[1], (await quick.ask())[1]], ["page 1\n", "page 2\n"]);
});

Deno.test("Scrapes compresses a page once for all who ask for it that way", async () => {
  let nowMs = 0;
  const scrapes = new Scrapes(() => (nowMs += 100, "x".repeat(10_000)), () => nowMs);
  const ask = () => scrapes.answer(new Request("http://node/metrics", { headers: { "accept-encoding": "gzip" } }));
  const [first, second] = [ask(), ask()];
  assertEquals([first.headers.get("content-encoding"), second.headers.get("vary")], ["gzip", "accept-encoding"]);
  const [one, other] = [await first.bytes(), await second.bytes()];
  assertEquals(one, other);
  assertStrictEquals(one.length < 1_000, true);
});
