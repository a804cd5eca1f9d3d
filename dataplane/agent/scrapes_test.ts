import { assert, assertEquals, assertStrictEquals } from "@std/assert";
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
    return [response.status, await response.text()] as const;
  };
  return { ask, pass: (ms: number) => void (nowMs += ms) };
}

Deno.test("Scrapes makes a page for who asks now and then, and takes a fifth of the time of who asks in a loop (ZT-191)", async () => {
  const { ask, pass } = slowPages(100);
  assertEquals([await ask(), await ask({}, "/stats/prometheus")], [[200, "page 1\n"], [200, "page 2\n"]]);
  for (let asked = 0; asked < 6_000; asked++) {
    await ask();
    pass(10);
  }
  const made = Number((await ask())[1].slice("page ".length)); // In 60 s of waiting and 100 ms for each page.
  assert(made >= 150 && made <= 160, `${made} pages in ${60 + made / 10} s`);
  assertEquals(await ask({ "accept-encoding": "gzip" }), [200, `page ${made}\n`]);
  pass(2_500);
  assertEquals([await ask(), await ask()], [[200, `page ${made + 1}\n`], [200, `page ${made + 2}\n`]]);
  assertEquals((await ask({}, "/other"))[0], 404);
});

Deno.test("Scrapes gives no page that is older than 5 s", async () => {
  const { ask, pass } = slowPages(3_000);
  await ask();
  pass(1_999);
  assertEquals((await ask())[1], "page 1\n");
  pass(1);
  assertEquals((await ask())[1], "page 2\n");
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
