import { assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { healthPages, jsonPage, metricsPage, servePages } from "./pages.ts";
import { podRows } from "./pod_table.ts";

Deno.test("servePages() answers what there is, and says what is missing until the node is ready (CNI-052, CNI-290, CNI-293)", async () => {
  const stop = new AbortController(), missing = ["the plugin is not installed"];
  const address = { host: "127.0.0.1", port: 0 }, options = { signal: stop.signal, flag: "--health-address" };
  const pages = {
    ...healthPages(() => missing),
    "/metrics": metricsPage(() => "x 1\n"),
    "/debug/pods": jsonPage(() => Promise.resolve({ pods: [] })),
  };
  const server = servePages(address, pages, options), { port } = server.addr as Deno.NetAddr;
  const get = async (path: string, method = "GET") => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { method });
    return `${response.status} ${(await response.text()).trim()}`;
  };
  try {
    assertEquals(await get("/healthz"), "200 ok");
    assertEquals(await get("/readyz"), "503 the plugin is not installed");
    missing.length = 0;
    assertEquals(await get("/readyz"), "200 ok");
    assertEquals(await get("/metrics"), "200 x 1");
    assertEquals(await get("/debug/pods"), `200 ${JSON.stringify({ pods: [] }, undefined, 2)}`);
    assertEquals(await get("/readyz", "POST"), "405 only GET");
    assertEquals((await get("/toString")).slice(0, 3), "404");
    const taken = assertThrows(() => servePages({ ...address, port }, pages, options), MeshError);
    assertEquals([taken.code, /--health-address/.test(taken.remedy)], ["AMB7123", true]);
  } finally {
    stop.abort();
    await server.finished;
  }
});

Deno.test("podRows() gives pods of equal rules one fingerprint, and others another (CNI-293)", async () => {
  const row = (rules: object) => ({ pod: "a/b", uid: "u", ips: [], state: "enrolled" as const, netnsInode: 1, rules });
  const [one, same, dns] = await podRows([row({}), row({}), row({ dnsCapture: true })]);
  assertEquals([one!.fingerprint?.length, one!.fingerprint === same!.fingerprint], [16, true]);
  assertEquals(one!.fingerprint === dns!.fingerprint, false);
  assertEquals(await podRows([{ pod: "a/c", uid: "v", ips: [], state: "failed" }]), [
    { pod: "a/c", uid: "v", ips: [], state: "failed" },
  ]);
});
