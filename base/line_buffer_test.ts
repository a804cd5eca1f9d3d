import { assertEquals } from "@std/assert";
import { LineBuffer } from "./line_buffer.ts";

/** Takes a part of what it is given, as a full pipe does. */
class Slow {
  calls = 0;
  text = "";

  writeSync(bytes: Uint8Array): number {
    this.calls++;
    const taken = Math.min(bytes.length, 65_536);
    this.text += new TextDecoder().decode(bytes.subarray(0, taken));
    return taken;
  }
}

Deno.test("LineBuffer writes lines together, whole and in order, also where the output takes parts (ZT-200)", () => {
  const output = new Slow(), buffer = new LineBuffer(output);
  const lines = Array.from({ length: 9_999 }, (_, at) => `line ${at} ${"x".repeat(40)}`);
  for (const line of lines) buffer.write(line);
  assertEquals(output.calls, 0, "nobody has waited for the output yet");
  buffer.flush();
  assertEquals(output.text, lines.join("\n") + "\n");
  assertEquals(output.calls, Math.ceil(output.text.length / 65_536));
});

Deno.test("LineBuffer holds 10,000 lines at most: whoever writes the last one waits for the output (ZT-200)", () => {
  const output = new Slow(), buffer = new LineBuffer(output);
  for (let at = 0; at < 10_000; at++) buffer.write("a line");
  assertEquals(output.text.length, 70_000);
  buffer.flush();
  assertEquals(output.text.length, 70_000, "nothing is left");
});
