/** Whom the HTTP listeners answer, and with what. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { Authenticator, type Credentials } from "../ca/caller.ts";
import { Metrics } from "../../base/metrics.ts";
import { HTTP_LIMITS, type HttpSources, serveHttp } from "./listener.ts";
import type { DebugPages } from "./pages.ts";

/** Tokens are namespaces here: who shows one is of it. */
const AUTHENTICATOR = new Authenticator([{
  authenticate: ({ authorization: [value], forwardedCertificate }: Credentials) =>
    Promise.resolve(
      forwardedCertificate.length > 0
        ? { identities: ["spiffe://cluster.local/ns/istio-system/sa/x"], token: undefined }
        : value === undefined
        ? { refused: "no token" }
        : { identities: [`spiffe://cluster.local/ns/${value}/sa/x`], token: undefined },
    ),
}]);

const PAGES = {
  answer: (name: string, _query: URLSearchParams, access: Parameters<DebugPages["answer"]>[2]) => {
    const status = access === "nobody" ? 401 : access.allows(name) ? 200 : 403;
    return { status, text: `${name} ${status}\n`, json: false };
  },
} as unknown as DebugPages;

function sourcesOf(part: Partial<HttpSources> = {}): HttpSources {
  return {
    ready: () => true,
    metrics: new Metrics(),
    version: "1.2.3",
    pages: PAGES,
    authenticator: AUTHENTICATOR,
    debugRules: () => ({ namespaces: new Set(["istio-system"]), enforced: true }),
    debug: true,
    localMetrics: false,
    log: new Logger("http", { sink: () => {} }),
    ...part,
  };
}

/** Asks as a caller of this machine does, or under another host name, which counts as another machine. */
async function ask(
  part: Partial<HttpSources>,
  path: string,
  { host = "localhost", method = "GET", headers = {} }: {
    host?: string;
    method?: string;
    headers?: Record<string, string>;
  } = {},
): Promise<string> {
  const stop = new AbortController();
  const sources = sourcesOf(part);
  const server = await serveHttp({ host: "127.0.0.1", port: 0 }, sources, { signal: stop.signal });
  try {
    using connection = await Deno.connect({ hostname: "127.0.0.1", port: server.port });
    const lines = Object.entries({ host, connection: "close", ...headers }).map(([name, value]) => `${name}: ${value}`);
    await connection.write(new TextEncoder().encode(`${method} ${path} HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`));
    const text = await new Response(connection.readable).text();
    return `${text.split(" ")[1]} ${text.split("\r\n\r\n")[1]}`;
  } finally {
    stop.abort();
    await server.stopped;
  }
}

const ELSEWHERE = { host: "istiod.example" };

Deno.test("the HTTP listener trusts this machine, and asks everybody else who he is (CP-016, CP-017)", async () => {
  assertStringIncludes(await ask({}, "/debug/syncz"), "200");
  assertStringIncludes(await ask({}, "/debug/syncz", ELSEWHERE), "401");
  const as = (authorization: string) => ({ ...ELSEWHERE, headers: { authorization } });
  assertStringIncludes(await ask({}, "/debug/syncz", as("istio-system")), "200");
  assertStringIncludes(await ask({}, "/debug/syncz", as("shop")), "403");
  assertStringIncludes(await ask({}, "/debug/config_dump", as("shop")), "200");
});

Deno.test("the HTTP listener believes no forwarded certificate of a page that was led to this machine (CP-016)", async () => {
  const headers = { "x-forwarded-client-cert": "URI=spiffe://cluster.local/ns/istio-system/sa/x" };
  assertStringIncludes(await ask({}, "/debug/syncz", { ...ELSEWHERE, headers }), "401");
});

Deno.test("the HTTP listener says its version, and metrics to whom a setting lets (CP-019)", async () => {
  assertStringIncludes(await ask({}, "/version", ELSEWHERE), "200 1.2.3");
  assertStringIncludes(await ask({}, "/metrics", ELSEWHERE), "200");
  assertStringIncludes(await ask({ localMetrics: true }, "/metrics", ELSEWHERE), "403");
  assertStringIncludes(await ask({ localMetrics: true }, "/metrics"), "200");
});

Deno.test("the HTTP listener has no debug pages where a setting says so, and answers GET alone", async () => {
  assertStringIncludes(await ask({ debug: false }, "/debug/syncz"), "404");
  assertStringIncludes(await ask({}, "/nothing"), "404");
  assertStringIncludes(await ask({}, "/debug/syncz", { method: "POST" }), "405");
  assertStringIncludes(await ask({ ready: () => false }, "/ready"), "503");
  const broken = {
    answer: () => {
      throw new Error("of ours");
    },
  } as unknown as DebugPages;
  assertStringIncludes(await ask({ pages: broken }, "/debug/syncz"), "500");
});

/** Says something and reads until the other side closes. @returns What came, and after how long it closed. */
async function converse(port: number, said: string): Promise<{ heard: string; ms: number }> {
  const startedAtMs = performance.now(); // Before the listener can have seen it: its limit lies within what is measured.
  using connection = await Deno.connect({ hostname: "127.0.0.1", port });
  await connection.write(new TextEncoder().encode(said));
  const heard = await new Response(connection.readable).text();
  return { heard, ms: performance.now() - startedAtMs };
}

Deno.test("the HTTP listener closes what is idle and what does not finish its request (CP-007)", async () => {
  const stop = new AbortController(), limits = { idleMsMax: 50, requestMsMax: 2_000 };
  const server = await serveHttp({ host: "127.0.0.1", port: 0 }, sourcesOf(), { signal: stop.signal, limits });
  const [idle, half] = await Promise.all([
    converse(server.port, "GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    converse(server.port, "GET /version HTTP/1.1\r\nho"),
  ]);
  assertStringIncludes(idle.heard, "1.2.3");
  assertStringIncludes(half.heard, "408");
  assert(half.ms >= limits.requestMsMax * 0.9, `${half.ms} ms: whoever is slow has the time there is`);
  stop.abort();
  await server.stopped;
});

Deno.test("the HTTP listeners' limits are those that clients of Istio's know (CP-007)", () => {
  assertEquals(HTTP_LIMITS, { idleMsMax: 90_000, requestMsMax: 30_000 });
});

Deno.test("the HTTP listener answers what is no request, and ends at once with a client that does not leave (CP-007)", async () => {
  const stop = new AbortController();
  const server = await serveHttp({ host: "127.0.0.1", port: 0 }, sourcesOf(), { signal: stop.signal });
  const { heard } = await converse(server.port, "GET * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
  assertStringIncludes(heard, "400");
  using staying = await Deno.connect({ hostname: "127.0.0.1", port: server.port });
  await staying.write(new TextEncoder().encode("GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n"));
  await staying.read(new Uint8Array(1_000));
  stop.abort();
  await server.stopped;
});
