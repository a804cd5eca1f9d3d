import { assertEquals } from "@std/assert";
import { readShortText, SHORT_TEXT_BYTES } from "./short_text.ts";

const ascii = (text: string) => new TextEncoder().encode(text);

Deno.test("readShortText() gives every text back, however many share a slot", () => {
  for (let round = 0; round < 2; round++) {
    for (let number = 0; number < 20_000; number++) {
      const text = `name-${number}`.padEnd(number % SHORT_TEXT_BYTES, "x").slice(0, SHORT_TEXT_BYTES);
      const bytes = ascii(`<${text}>`);
      assertEquals(readShortText(bytes, 1, bytes.length - 1), text);
    }
  }
  assertEquals(readShortText(new Uint8Array(0), 0, 0), "");
});

Deno.test("readShortText() leaves to others what is not ASCII", () => {
  assertEquals(readShortText(ascii("größe"), 0, 7), undefined);
});
