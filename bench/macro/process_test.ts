import { assert, assertEquals } from "@std/assert";
import { cpuSeconds, kibField, memoryUse, parseCpuSeconds } from "./process.ts";

Deno.test("parseCpuSeconds() adds user and kernel time, whatever the program's name holds", () => {
  const stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 900 0 0 0 150 50 7 9 20 0 4 0 100 1000 10 18446744073709551615";
  assertEquals(parseCpuSeconds(stat), 2);
});

Deno.test("kibField() reads one line of a /proc file", () => {
  assertEquals(kibField("VmPeak:\t  9 kB\nVmRSS:\t   2048 kB\n", "VmRSS"), 2048);
  assertEquals(kibField("VmPeak:\t  9 kB\n", "VmRSS"), undefined);
});

Deno.test("cpuSeconds() and memoryUse() measure this very process", () => {
  assert(cpuSeconds(Deno.pid) > 0);
  assert(memoryUse(Deno.pid).residentMib > 1);
});
