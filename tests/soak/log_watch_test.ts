import { assertEquals } from "@std/assert";
import { LogWatch } from "./log_watch.ts";

const TIME = "2026-01-02T03:04:05.678000Z";

Deno.test("LogWatch takes errors of roles for unexpected, and failed connections for what they are", () => {
  const logs = new LogWatch();
  logs.take("ztunnel node-a", `${TIME}\tinfo\tambit\tready\tport=15021`);
  logs.take("ztunnel node-a", `${TIME}\terror\tagent\ta worker ended\terror="x"`);
  logs.take("istiod", "error: Uncaught TypeError: no");
  logs.take("istiod", "Warning something of the runtime");
  logs.take("ztunnel node-b", `${TIME}\twarn\txds\txds connection lost\terror="reset"`);
  for (const address of ["10.80.1.2:7000", "[fd80:1::2]:80"]) {
    logs.take(
      "ztunnel node-b",
      `${TIME}\terror\taccess\tconnection complete\tsrc.addr=${address} error="connect to ${address} failed (errno 111)"`,
    );
  }
  assertEquals(logs.unexpected, [
    `ztunnel node-a: ${TIME}\terror\tagent\ta worker ended\terror="x"`,
    "istiod: error: Uncaught TypeError: no",
  ]);
  assertEquals([...logs.warnings], [["ztunnel xds: xds connection lost", 1]]);
  assertEquals([...logs.refusals], [["connect to ADDRESS failed (errno N)", 2]]);
});
