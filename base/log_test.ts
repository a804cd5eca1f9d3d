import { assertEquals } from "@std/assert";
import { Bare, Logger } from "./log.ts";

/** What a terminal would act upon: an escape in one byte of Latin-1, a line separator, text that runs backwards. */
const HOSTILE = "a\u009b31mb\u2028c\u202ed\u007f\ne";
const SEEN = String.raw`"a\u009b31mb\u2028c\u202ed\u007f\ne"`;

Deno.test("Logger lets nobody who is quoted steer the terminal that shows the line, plain or JSON", () => {
  const lines: string[] = [], sink = (line: string) => lines.push(line);
  new Logger("test", { sink }).info("said", { text: HOSTILE, bare: new Bare(HOSTILE), address: new Bare("1.2.3.4:5") });
  new Logger("test", { sink, json: true }).info("said", { text: HOSTILE });
  assertEquals(lines[0]!.split("\t").slice(1), ["info", "test", "said", `text=${SEEN} bare=${SEEN} address=1.2.3.4:5`]);
  assertEquals(lines[1]!.includes(`"text":${SEEN}`), true);
  assertEquals(JSON.parse(lines[1]!).text, HOSTILE);
});
