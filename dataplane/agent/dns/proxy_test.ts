import { assertEquals } from "@std/assert";
import { workload } from "../../../mesh/testing.ts";
import type { Workload } from "../../../mesh/workload.ts";
import { clientFinder } from "./proxy.ts";

const CLIENT = workload("client", "10.0.0.1");

Deno.test("clientFinder() gives a known workload at once, and waits for one that becomes known (ZT-177)", async () => {
  const known: { workload?: Workload } = {};
  const find = clientFinder(() => known.workload, new AbortController().signal);
  const waiting = [find(), find()];
  assertEquals(waiting[0] === waiting[1], true, "those who wait share one wait");
  known.workload = CLIENT;
  assertEquals(await Promise.all(waiting), [CLIENT, CLIENT]);
  assertEquals(find(), CLIENT);
});

Deno.test("clientFinder() gives up after its time, or when the pod goes (ZT-177)", async () => {
  assertEquals(await clientFinder(() => undefined, new AbortController().signal, 20)(), undefined);
  const stop = new AbortController(), waiting = clientFinder(() => undefined, stop.signal)();
  stop.abort();
  assertEquals(await waiting, undefined);
});
