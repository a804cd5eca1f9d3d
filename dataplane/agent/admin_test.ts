import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { brotliDecompressSync, gunzipSync, zstdDecompressSync } from "node:zlib";
import { MeshError } from "../../base/errors.ts";
import { LogFilter, Logger } from "../../base/log.ts";
import { Scrapes } from "./scrapes.ts";
import { adminHosts, type AdminOptions, adminPages, readinessPage, serveAdmin } from "./admin.ts";
import { encodingFor } from "./compression.ts";
import { applyLevels } from "./log_levels.ts";
import { onceFree } from "./takeover/succession.ts";

const METRICS = `${"# HELP istio_build Istio component build info.\n".repeat(20)}# EOF\n`;

/** Pages with a filter of their own; `shutDown` counts. */
function pages(defaultLevel = "warn,access=info") {
  const filter = new LogFilter(), stop = new AbortController(), state = { shutDowns: 0 };
  applyLevels(filter, defaultLevel);
  const options: AdminOptions = {
    adminPort: 0,
    statsPort: 0,
    readinessPort: 0,
    ipv6: true,
    log: new Logger("test", { filter, sink: () => {} }),
    filter,
    defaultLevel,
    metrics: () => METRICS,
    configDump: () => `{"workloads":[]}`,
    traffic: () => ({}),
    pending: () => [],
    shutDown: () => state.shutDowns++,
  };
  const answer = adminPages(options, stop.signal);
  const ask = async (path: string, method = "GET") => {
    const response = await answer(new Request(`http://localhost:15000${path}`, { method }));
    return { status: response.status, type: response.headers.get("content-type"), response };
  };
  return { filter, state, ask, stop, options };
}

Deno.test("the admin endpoint has an index, the pages it names, and nothing else (ZT-207)", async () => {
  const { ask, stop } = pages();
  const index = await ask("/");
  assertEquals([index.status, index.type], [200, "text/html; charset=utf-8"]);
  const body = await index.response.text();
  const paths = [...body.matchAll(/href="([^"]+)"/g)].map((match) => match[1]!);
  for (const known of ["config_dump", "logging", "quitquitquit", "debug/pprof/profile", "debug/pprof/heap"]) {
    assert(paths.includes(known), `${known} is on the index`);
  }
  const dump = await ask("/config_dump");
  assertEquals([dump.status, dump.type, await dump.response.text()], [200, "application/json", `{"workloads":[]}`]);
  for (const unknown of ["/nothing", "/debug/pprof/none", "/config_dump/"]) {
    assertEquals((await ask(unknown)).status, 404, unknown);
  }
  stop.abort();
});

Deno.test("a port of admin, metrics or readiness that is taken is told of with what to do (ZT-004)", async () => {
  for (const name of ["adminPort", "statsPort", "readinessPort"] as const) {
    const other = Deno.listen({ hostname: name === "adminPort" ? "127.0.0.1" : "0.0.0.0", port: 0 });
    const { port } = other.addr as Deno.NetAddr, { options, stop } = pages();
    const error = await assertRejects(() => serveAdmin({ ...options, [name]: port }, stop.signal), MeshError);
    assertEquals([error.code, error.message.endsWith(` port ${port}`)], ["AMB2423", true], name);
    // With the takeover's own patience it is tried until the predecessor has gone.
    const { stop: later } = pages(),
      serving = onceFree((it) => serveAdmin({ ...options, [name]: port }, it), later.signal);
    other.close();
    const servers = await serving;
    assert(servers.length >= 3, `${servers.length} servers`);
    stop.abort();
    later.abort();
    await Promise.all(servers);
  }
});

Deno.test("POST /quitquitquit begins the shutdown, any other method does not (ZT-217)", async () => {
  const { ask, state } = pages();
  assertEquals([(await ask("/quitquitquit")).status, state.shutDowns], [405, 0]);
  const { status, response } = await ask("/quitquitquit", "POST");
  assertEquals([status, await response.text(), state.shutDowns], [200, "shutdown now\n", 1]);
});

Deno.test("POST /logging shows levels and changes them at once, of all scopes or of one (ZT-216)", async () => {
  const { ask, filter } = pages();
  const log = async (query: string) => {
    const { status, response } = await ask(`/logging${query}`, "POST");
    return [status, await response.text()] as const;
  };
  assertEquals(await log(""), [200, "current log level is warn,access=info\n"]);
  assertEquals(await log("?level=debug"), [200, "current log level is debug,access=info\n"]);
  assertEquals(filter.allows(4, "xds"), true);
  assertEquals(await log("?level=access=off,dns=trace"), [200, "current log level is debug,access=off,dns=trace\n"]);
  assertEquals([filter.allows(3, "access"), filter.allows(5, "dns"), filter.allows(5, "xds")], [false, true, false]);
  assertEquals(await log("?level=info&reset"), [200, "current log level is info,access=info\n"]); // As istioctl resets.
  assertEquals(await log("?reset"), [200, "current log level is warn,access=info\n"]);
  assertEquals(await log("?level="), [200, "current log level is warn,access=info\n"]);
  for (const bad of ["loud", "debug,access=loud", "access:debug", "access"]) {
    const [status, text] = await log(`?level=${bad}&reset`);
    assertEquals(status, 400);
    assertMatch(text, new RegExp(`^Invalid level provided: ${bad}\n.*\nusage: POST /logging`, "s"));
    assertEquals(filter.toString(), "warn,access=info"); // A part of it is not taken either.
  }
  const get = await ask("/logging");
  assertEquals(get.status, 405);
  assertStringIncludes(await get.response.text(), "Invalid HTTP method\n");
});

Deno.test("profiles have limits, and a heap profile wants to be switched on before (ZT-218)", async () => {
  const { ask, stop } = pages();
  for (const query of ["seconds=0", "seconds=301", "seconds=x", "frequency=0", "frequency=1001", "frequency=-1"]) {
    const { status, response } = await ask(`/debug/pprof/profile?${query}`);
    const name = query.split("=")[0]!;
    assertEquals([status, (await response.text()).split(";")[0]], [400, `invalid ${name} value`]);
  }
  const heap = await ask("/debug/pprof/heap");
  assertEquals(heap.status, 500);
  assertStringIncludes(await heap.response.text(), "heap profiling not active");
  const toggled = async (query: string) => {
    const { status, response } = await ask(`/debug/pprof/heap/profiling${query}`);
    return [status, await response.text()] as const;
  };
  assertEquals(await toggled("?activate=true"), [200, "heap profiling active: true\n"]);
  assertEquals((await ask("/debug/pprof/heap")).status, 200);
  assertEquals((await toggled("?activate=maybe"))[0], 400);
  assertEquals(await toggled(""), [200, "heap profiling active: true\n"]);
  assertEquals(await toggled("?activate=false"), [200, "heap profiling active: false\n"]);
  stop.abort();
});

Deno.test("readiness is a word, or what is missing in order (ZT-219)", async () => {
  const ask = async (pending: string[], method = "GET", path = "/healthz/ready") => {
    const response = readinessPage({ pending: () => pending }, new Request(`http://h${path}`, { method }));
    return [response.status, await response.text()] as const;
  };
  assertEquals(await ask([]), [200, "ready\n"]);
  assertEquals(await ask(["state manager", "proxy"]), [500, "not ready, pending: proxy, state manager\n"]);
  assertEquals((await ask([], "POST"))[0], 405);
  assertEquals((await ask([], "GET", "/"))[0], 404);
});

Deno.test("metrics are at two paths, of the type and in the encoding that the client asks for (ZT-191)", async () => {
  const ask = (path: string, headers: Record<string, string> = {}) =>
    new Scrapes(() => METRICS).answer(new Request(`http://h${path}`, { headers }));
  for (const path of ["/metrics", "/stats/prometheus"]) {
    const response = ask(path);
    assertEquals([response.status, response.headers.get("content-type"), await response.text()], [
      200,
      "text/plain; charset=utf-8",
      METRICS,
    ]);
  }
  assertEquals(ask("/").status, 404);
  const open = ask("/metrics", { accept: "text/plain;q=0.5, Application/OpenMetrics-Text;version=1.0.0" });
  assertEquals(open.headers.get("content-type"), "application/openmetrics-text;charset=utf-8;version=1.0.0");
  const decoders = { gzip: gunzipSync, br: brotliDecompressSync, zstd: zstdDecompressSync };
  for (const [encoding, decode] of Object.entries(decoders)) {
    const response = ask("/metrics", { "accept-encoding": encoding });
    assertEquals(response.headers.get("content-encoding"), encoding);
    assertEquals(new TextDecoder().decode(decode(new Uint8Array(await response.arrayBuffer()))), METRICS);
  }
});

Deno.test("encodingFor() takes what the client likes best, and nothing it refuses", () => {
  const cases: readonly (readonly [header: string, encoding: string | undefined])[] = [
    ["", undefined],
    ["identity", undefined],
    ["gzip", "gzip"],
    ["deflate, gzip;q=0.5, br", "br"],
    ["gzip;q=0, *", "zstd"],
    ["*;q=0.1, gzip;q=0", "zstd"],
    ["GZIP ; q=1.0", "gzip"],
    ["gzip;q=0", undefined],
    ["gzip;q=x", undefined],
  ];
  for (const [header, encoding] of cases) assertEquals(encodingFor(header), encoding, header);
});

Deno.test("adminHosts() are loopback's, of IPv6 unless settings or kernel have it off (ZT-003)", async () => {
  const file = await Deno.makeTempFile();
  try {
    assertEquals(adminHosts(false, file), ["127.0.0.1"]);
    await Deno.writeTextFile(file, "1\n");
    assertEquals(adminHosts(true, file), ["127.0.0.1"]);
    await Deno.writeTextFile(file, "0\n");
    assertEquals(adminHosts(true, file), ["127.0.0.1", "::1"]);
    assertEquals(adminHosts(true, `${file}.none`), ["127.0.0.1", "::1"]);
  } finally {
    await Deno.remove(file);
  }
});
