import { assert, assertEquals } from "@std/assert";
import { LineBuffer } from "./line_buffer.ts";

/** Takes a part of what it is given, as a full pipe does, once it is let to. */
class Slow {
  calls = 0;
  text = "";
  gone = false;
  readonly opened = Promise.withResolvers<void>();

  async write(bytes: Uint8Array): Promise<number> {
    await this.opened.promise;
    this.calls++;
    if (this.gone) throw new Deno.errors.BrokenPipe("nobody reads");
    const taken = Math.min(bytes.length, 16_384);
    this.text += new TextDecoder().decode(bytes.subarray(0, taken));
    return taken;
  }
}

const LINES = Array.from({ length: 10_000 }, (_, at) => `line ${at} ${"x".repeat(40)}`);

Deno.test("LineBuffer writes lines together, whole and in order, also where the output takes parts (ZT-200)", async () => {
  const output = new Slow(), buffer = new LineBuffer(output, () => {});
  for (const line of LINES) buffer.write(line);
  assertEquals(output.text, "", "nobody has waited for the output yet");
  output.opened.resolve();
  await buffer.flush();
  assertEquals(output.text, LINES.join("\n") + "\n");
  assert(output.calls < 100, `${output.calls} writes`);
});

Deno.test("LineBuffer drops and counts what is beyond 10,000 lines, and tells when there is room again (ZT-200)", async () => {
  const output = new Slow();
  const buffer = new LineBuffer(output, (count) => buffer.write(`${count} lines dropped`));
  for (const line of LINES) buffer.write(line);
  const flushed = buffer.flush(); // A part of them is on its way.
  for (let at = 0; at < 77; at++) buffer.write("too many");
  output.opened.resolve();
  await flushed;
  assertEquals(output.text, [...LINES, "77 lines dropped", ""].join("\n"));
  buffer.write("and on");
  await buffer.flush();
  assertEquals(output.text.split("\n").slice(-3), ["77 lines dropped", "and on", ""]);
});

Deno.test("LineBuffer outlives an output that is gone, and tells of the loss should it come back", async () => {
  const output = new Slow(), told: number[] = [], buffer = new LineBuffer(output, (count) => told.push(count));
  output.opened.resolve();
  output.gone = true;
  for (let at = 0; at < 700; at++) buffer.write("lost");
  await buffer.flush();
  assertEquals(told, []);
  output.gone = false;
  buffer.write("heard");
  await buffer.flush();
  assertEquals([output.text, told], ["heard\n", [700]]);
});

/** What a role does that logs 30,000 lines while nobody reads them; on stderr it says that it is through. */
const CHILD = `
import { LineBuffer } from "${new URL("line_buffer.ts", import.meta.url)}";
const lines = new LineBuffer(Deno.stdout, (count) => lines.write("dropped " + count));
for (let at = 0; at < 30_000; at++) {
  lines.write("line " + at + " " + "x".repeat(100));
  if (at % 1_000 === 0) await new Promise((resolve) => setTimeout(resolve, 1)); // As an event loop goes on.
}
Deno.stderr.writeSync(new TextEncoder().encode("through"));
await lines.flush();
`;

Deno.test("a process whose output nobody reads goes on, and tells later what was dropped (ZT-200)", async () => {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-config", "--no-lock", "-"],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const input = child.stdin.getWriter();
  await input.write(new TextEncoder().encode(CHILD));
  await input.close();
  // It gets there while its standard output, a pipe of 64 KiB, is full.
  let said = "";
  for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
    said += text;
    if (said.endsWith("through")) break;
  }
  const output = await new Response(child.stdout).text();
  assert(said.endsWith("through"), said);
  assertEquals((await child.status).success, true);
  const lines = output.trimEnd().split("\n"), notes = lines.filter((line) => line.startsWith("dropped "));
  const kept = lines.filter((line) => line.startsWith("line ")).map((line) => Number(line.split(" ")[1]));
  assertEquals(kept, kept.toSorted((a, b) => a - b), "the order is kept");
  assert(kept.length >= 10_000 && kept.length < 20_000, `${kept.length} kept`);
  assertEquals(kept.length + notes.reduce((sum, note) => sum + Number(note.slice(8)), 0), 30_000);
});
