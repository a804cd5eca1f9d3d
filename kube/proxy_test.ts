/** The proxy to an API server: which one it is, what is said to it, and what of its answers is believed. */
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { chain, MeshError } from "../base/errors.ts";
import { KubeUnreachable } from "./api.ts";
import { kubeconfigAccess, loadKubeconfig } from "./kubeconfig_access.ts";
import { TestCa } from "./pki_testing.ts";
import { dialBy, environmentsProxy } from "./proxy_connection.ts";
import { type HttpProxy, proxyVariable, readProxyUrl } from "./proxy.ts";
import { TestProxy } from "./proxy_testing.ts";
import { PODS } from "./resource_types.ts";
import { accessTo, clientOf, ServedKubeApi } from "./served_testing.ts";
import { InMemoryKubeApi } from "./testing.ts";

const proxyAt = (port: number, more: Partial<HttpProxy> = {}): HttpProxy => ({
  host: "127.0.0.1",
  port,
  authorization: undefined,
  ...more,
});

Deno.test("readProxyUrl() takes plain HTTP proxies with their user, and repeats no password (CP-120)", () => {
  const basic = (text: string) => `Basic ${btoa(text)}`;
  const cases: Record<string, Partial<HttpProxy>> = {
    "http://proxy.test:3128": { host: "proxy.test", port: 3128 },
    "http://proxy.test": { host: "proxy.test", port: 80 },
    "proxy.test:8080": { host: "proxy.test", port: 8080 },
    "http://[fd00::1]:3128/": { host: "fd00::1", port: 3128 },
    "http://jane:p%40ss@proxy.test:1": { host: "proxy.test", port: 1, authorization: basic("jane:p@ss") },
  };
  for (const [text, wanted] of Object.entries(cases)) {
    assertEquals(readProxyUrl(text), { authorization: undefined, ...wanted }, text);
  }
  for (
    const bad of ["https://jane:hush@p.test", "socks5://p.test", "http://", "http://p/hush", "http://hush%zz@p.test"]
  ) {
    const read = readProxyUrl(bad);
    assert("wrong" in read && !read.wrong.includes("hush"), bad);
  }
});

Deno.test("proxyVariable() reads HTTPS_PROXY, HTTP_PROXY and NO_PROXY as Go's clients do (CP-120)", () => {
  const named = (server: string, environment: Record<string, string>) =>
    proxyVariable(new URL(server), environment)?.name;
  const both = { HTTPS_PROXY: "p:1", http_proxy: "p:2" };
  assertEquals(named("https://api.test:6443", both), "HTTPS_PROXY");
  assertEquals(named("http://api.test", both), "http_proxy");
  assertEquals(named("https://api.test", { HTTP_PROXY: "p:2" }), undefined);
  for (const own of ["https://127.0.0.1:6443", "https://localhost", "https://[::1]:6443"]) {
    assertEquals(named(own, both), undefined, own);
  }
  const excepted: [exceptions: string, server: string, isExcepted: boolean][] = [
    ["*", "https://api.test", true],
    ["api.test", "https://api.test:6443", true],
    ["API.test", "https://a.api.test", true],
    ["test", "https://api.test", true],
    [".api.test", "https://api.test", false],
    [".api.test", "https://a.api.test", true],
    ["*.api.test", "https://a.api.test", true],
    ["*.api.test", "https://api.test", false],
    ["pi.test", "https://api.test", false],
    ["api.test:6443", "https://api.test:6443", true],
    ["api.test:443", "https://api.test:6443", false],
    ["api.test:443", "https://api.test", true],
    ["10.0.0.0/8", "https://10.96.0.1", true],
    ["10.0.0.0/8", "https://11.96.0.1", false],
    ["10.0.0.0/33", "https://10.96.0.1", false],
    ["10.0.0.0/8", "https://api.test", false],
    ["10.96.0.1", "https://10.96.0.1:443", true],
    ["10.96.0.1:443", "https://10.96.0.1", true],
    ["10.96.0.1", "https://10.96.0.10", false],
    ["fd00::/8", "https://[fd00::1]:6443", true],
    ["fd00::1", "https://[fd00::1]:6443", true],
    ["[fd00::1]:6443", "https://[fd00::1]:6443", true],
    ["[fd00::1]:443", "https://[fd00::1]:6443", false],
    ["a.test, , api.test ", "https://api.test", true],
    ["", "https://api.test", false],
  ];
  for (const [exceptions, server, isExcepted] of excepted) {
    assertEquals(named(server, { ...both, NO_PROXY: exceptions }) === undefined, isExcepted, `${exceptions} ${server}`);
  }
  const wrong = { https_proxy: "socks5://jane:hush@p.test" };
  const error = assertThrows(() => environmentsProxy(new URL("https://api.test"), wrong), MeshError, "https_proxy");
  assertEquals([error.code, chain(error).includes("hush")], ["AMB0840", false]);
});

Deno.test("openKubeApi() reaches an API server through a proxy, TLS being with the server and not with the proxy (CP-120)", async () => {
  const ca = await TestCa.create(),
    { certificate: cert, key } = await ca.issue("CN=api", [{ type: "dns", value: "api.test" }]);
  const tls = { cert, key, ca: ca.pem, requestCert: true, rejectUnauthorized: true };
  await using served = await ServedKubeApi.start(new InMemoryKubeApi(), { tls });
  await using proxy = new TestProxy(served.port);
  const keyPair = await ca.issue("CN=admin"), authorization = "Basic amFuZTpodXNo";
  const access = accessTo(served.port, {
    server: new URL("https://api.test:6443"), // It has no address here: the proxy alone knows the way.
    ca: ca.pem,
    credentials: { current: () => Promise.resolve({ keyPair, token: "t0ken" }), refused: () => {} },
    dial: dialBy(proxyAt(proxy.port, { authorization })),
  });
  using api = clientOf(access);
  for (let count = 0; count < 3; count++) assertEquals((await api.list(PODS, {}, { limit: 1 })).items, []);
  assertEquals(proxy.asked, [{ target: "api.test:6443", authorization }], "one connection for all, and no token in it");
  assertEquals(served.requests.map(({ headers }) => [headers.authorization, headers["proxy-authorization"]]), [
    ["Bearer t0ken", undefined],
    ["Bearer t0ken", undefined],
    ["Bearer t0ken", undefined],
  ]);
  using doubting = clientOf({ ...access, ca: (await TestCa.create("CN=other")).pem });
  await assertRejects(
    () => doubting.list(PODS, {}, { limit: 1 }),
    KubeUnreachable,
    undefined,
    "the proxy is not believed",
  );
  using named = clientOf({ ...access, serverName: "other.test" });
  await assertRejects(() => named.list(PODS, {}, { limit: 1 }), KubeUnreachable);
});

Deno.test("openKubeApi() goes through a proxy to a server without TLS, too", async () => {
  await using served = await ServedKubeApi.start(new InMemoryKubeApi());
  await using proxy = new TestProxy(served.port);
  using api = clientOf(
    accessTo(served.port, { server: new URL("http://api.test"), dial: dialBy(proxyAt(proxy.port)) }),
  );
  assertEquals((await api.list(PODS, {}, { limit: 1 })).items, []);
  assertEquals(proxy.asked.map(({ target }) => target), ["api.test:80"]);
});

Deno.test("dialBy() tells what a proxy does in place of leading on, within bytes and time, and never who we are (CP-120)", async () => {
  const answers: [text: string | undefined, wanted: string][] = [
    ["HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "wants another user and password (407)"],
    ["HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "refuses to connect to api.test:6443 (403)"],
    ["HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n", "sent more than its answer"],
    ["SSH-2.0-x\r\n\r\n", "answers what is no HTTP"],
    [`HTTP/1.1 200 OK\r\nx: ${"y".repeat(20_000)}`, "answers with more than a head"],
    [undefined, "has not answered within 0.2 s"],
  ];
  const signal = new AbortController().signal, authorization = "Basic amFuZTpodXNo";
  for (const [text, wanted] of answers) {
    await using proxy = new TestProxy(0, { text });
    const dial = dialBy(proxyAt(proxy.port, { authorization }), 200);
    const error = await assertRejects(() => dial("api.test", 6443, signal), Error, wanted);
    assertStringIncludes(error.message, `the proxy 127.0.0.1:${proxy.port}`);
    assert(!error.message.includes("amFu"));
  }
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 }), { port } = listener.addr;
  listener.close();
  await assertRejects(() => dialBy(proxyAt(port))("api.test", 6443, signal), Error, "cannot be reached");
});

Deno.test("a kubeconfig's proxy-url is gone by, whether it is a file's or a Secret's, and before the environment's (CP-120)", async () => {
  await using served = await ServedKubeApi.start(new InMemoryKubeApi());
  await using proxy = new TestProxy(served.port);
  const text = JSON.stringify({
    "current-context": "far",
    contexts: [{ name: "far", context: { cluster: "c" } }],
    clusters: [{
      name: "c",
      cluster: { server: "http://api.test", "proxy-url": `http://jane:hush@127.0.0.1:${proxy.port}` },
    }],
  });
  const file = await Deno.makeTempFile({ prefix: "kubeconfig-" });
  try {
    await Deno.writeTextFile(file, text);
    const secret = await kubeconfigAccess(text, { source: "secret", allowed: new Set() });
    for (const access of [await loadKubeconfig(file), secret]) {
      using api = clientOf(access);
      assertEquals((await api.list(PODS, {}, { limit: 1 })).items, []);
      assert(!JSON.stringify(access).includes("hush"));
    }
    const authorization = `Basic ${btoa("jane:hush")}`;
    assertEquals(proxy.asked, [{ target: "api.test:80", authorization }, { target: "api.test:80", authorization }]);
  } finally {
    await Deno.remove(file);
  }
});

Deno.test("a client that is closed waits for no proxy", async () => {
  await using proxy = new TestProxy(0, { text: undefined });
  using api = clientOf(accessTo(1, { dial: dialBy(proxyAt(proxy.port)) }));
  const asked = assertRejects(() => api.list(PODS, {}, { limit: 1 }), KubeUnreachable);
  while (proxy.asked.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  api.close();
  await asked;
});
