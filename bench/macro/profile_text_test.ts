import { assertAlmostEquals, assertEquals } from "@std/assert";
import { parsePerfReport, parsePerfStat, parseStraceSummary } from "./profile_text.ts";

Deno.test("parsePerfReport() sorts samples by kind of code", () => {
  const { shares, functions } = parsePerfReport(`
    30.00%|[kernel.kallsyms]  |[k] copy_user
    20.50% |libcrypto.so.3     |[.] aes_gcm_enc
    10.00%|perf-1234.map      |[.] JS:*pull file:///x.ts:1
     5.00%|deno               |[.] epoll
     1.00%|[unknown]          |[k] 0xffff
# a comment
`);
  assertEquals([...shares.keys()], ["kernel", "libcrypto", "compiled JavaScript", "runtime"]);
  assertAlmostEquals(shares.get("kernel")!, 0.31);
  assertEquals(functions[0], { place: "kernel", name: "copy_user", share: 0.3 });
});

Deno.test("parsePerfStat() counts what was not counted by name, and leaves out calls that were not made", () => {
  const named = "12,,syscalls:sys_enter_recvfrom,100,100.00,,\n0,,syscalls:sys_enter_read,100,100.00,,\n";
  const counts = parsePerfStat(named + "15,,raw_syscalls:sys_enter,100,100.00,,\n");
  assertEquals(counts, new Map([["recvfrom", 12], ["others", 3]]));
});

Deno.test("parseStraceSummary() reads lines with and without errors", () => {
  const text = ` 50.00    0.001000          10       100         3 recvfrom
 50.00    0.001000          10        50           sendto
100.00    0.002000                    150         3 total`;
  assertEquals(parseStraceSummary(text), new Map([["recvfrom", 100], ["sendto", 50]]));
});
