/** Whom the HTTP listeners answer, and with what. */
import { assertStringIncludes } from "@std/assert";
import { Authenticator, type Credentials } from "../ca/caller.ts";
import { Metrics } from "../../base/metrics.ts";
import { type HttpSources, serveHttp } from "./listener.ts";
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
  const sources: HttpSources = {
    ready: () => true,
    metrics: new Metrics(),
    version: "1.2.3",
    pages: PAGES,
    authenticator: AUTHENTICATOR,
    debugRules: () => ({ namespaces: new Set(["istio-system"]), enforced: true }),
    debug: true,
    localMetrics: false,
    ...part,
  };
  const server = serveHttp({ host: "127.0.0.1", port: 0 }, sources, stop.signal);
  try {
    using connection = await Deno.connect({ hostname: "127.0.0.1", port: (server.addr as Deno.NetAddr).port });
    const lines = Object.entries({ host, connection: "close", ...headers }).map(([name, value]) => `${name}: ${value}`);
    await connection.write(new TextEncoder().encode(`${method} ${path} HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`));
    const text = await new Response(connection.readable).text();
    return `${text.split(" ")[1]} ${text.split("\r\n\r\n")[1]}`;
  } finally {
    stop.abort();
    await server.finished;
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
});
