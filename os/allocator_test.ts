import { assert, assertEquals } from "@std/assert";

Deno.test("returnFreeMemory() gives pages back that free() kept", async () => {
  const program = new URL("./allocator_testing.ts", import.meta.url).pathname;
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", program],
    stdout: "piped",
    stderr: "piped",
  }).output();
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  const [before, after] = JSON.parse(new TextDecoder().decode(stdout));
  assert(after < before - 16 * 1024, `from ${before} to ${after} KiB`);
});
