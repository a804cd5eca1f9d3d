/** What callers of the pages' server can and cannot do to it. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { type Answer, type HttpServer, serveHttp } from "./http_server.ts";

class Rig implements AsyncDisposable {
  readonly #stop = new AbortController();
  readonly lines: string[] = [];
  server!: HttpServer;

  static async start(answer: Answer): Promise<Rig> {
    const rig = new Rig();
    const log = new Logger("http", { sink: (line) => rig.lines.push(line) });
    rig.server = await serveHttp("127.0.0.1", 0, { answer, signal: rig.#stop.signal, log });
    return rig;
  }

  /** Sends a text as it is. @returns All that comes until the server ends the connection, and after how long. */
  async exchange(text: string): Promise<{ text: string; ms: number }> {
    using connection = await Deno.connect({ hostname: "127.0.0.1", port: this.server.port });
    const startedAt = performance.now(), decoder = new TextDecoder(), bytes = new Uint8Array(65_536);
    if (text !== "") await connection.write(new TextEncoder().encode(text));
    let out = "";
    try {
      for (let got = await connection.read(bytes); got !== null; got = await connection.read(bytes)) {
        out += decoder.decode(bytes.subarray(0, got));
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.ConnectionReset)) throw error;
    }
    return { text: out, ms: performance.now() - startedAt };
  }

  stop(): void {
    this.#stop.abort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop();
    await this.server.finished;
  }
}

const echo: Answer = ({ method, url, headers }) =>
  new Response(`${method} ${new URL(url).pathname} ${headers.get("accept")}\n`, { headers: { "x-a": "b" } });

Deno.test("serveHttp() answers with the page's status, headers and length, twice on one connection (ZT-207)", async () => {
  await using rig = await Rig.start(echo);
  const again = "POST /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
  const { text } = await rig.exchange(`GET /a?q HTTP/1.1\r\nHost: a\r\nAccept: text/plain\r\n\r\n${again}`);
  const heads = text.match(/HTTP\/1\.1 200 OK/g);
  assertEquals(heads?.length, 2);
  for (const part of ["GET /a text/plain\n", "POST /b null\n", "x-a: b", "content-length: 18"]) {
    assertStringIncludes(text.toLowerCase(), part.toLowerCase());
  }
  const head = await rig.exchange("HEAD /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  assert(head.text.endsWith("\r\n\r\n"), "HEAD has no body");
});

Deno.test("serveHttp() waits 2 s for a head of 8 KiB at most, whatever comes of it (ZT-207)", async () => {
  await using rig = await Rig.start(echo);
  const slow = await Promise.all(["", "GET / HTTP/1.1\r\nHost: a\r\n"].map((text) => rig.exchange(text)));
  for (const { ms, text } of slow) {
    assert(ms > 1_500, `${ms} ms`);
    assert(!text.includes(" 200 "));
  }
  const long = await rig.exchange(`GET / HTTP/1.1\r\nHost: a\r\nX: ${"x".repeat(9_000)}\r\n\r\n`);
  assertStringIncludes(long.text, " 431 ");
});

Deno.test("serveHttp() has 256 connections at most: one more is closed, and there is room when others go", async () => {
  await using rig = await Rig.start(echo);
  const held: Deno.TcpConn[] = [], { port } = rig.server;
  try {
    for (let at = 0; at < 256; at++) held.push(await Deno.connect({ hostname: "127.0.0.1", port }));
    assertEquals((await rig.exchange("")).text, "", "not even a time-out's answer");
  } finally {
    for (const connection of held) connection.close();
  }
  const ask = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
  const until = performance.now() + 60_000; // By then it knows that they are gone.
  let text = "";
  while (!text.includes(" 200 ") && performance.now() < until) ({ text } = await rig.exchange(ask));
  assertStringIncludes(text, " 200 ");
});

Deno.test("serveHttp() refuses what asks for no page, and outlives a page that fails", async () => {
  await using rig = await Rig.start((request) => {
    if (request.url.endsWith("/bad")) throw new Error("our mistake");
    return new Response("fine");
  });
  const ask = async (line: string) =>
    (await rig.exchange(`${line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`)).text.split("\r\n")[0];
  assertEquals(await ask("GET http://elsewhere/"), "HTTP/1.1 400 Bad Request");
  assertEquals(await ask("TRACE /"), "HTTP/1.1 400 Bad Request");
  assertEquals(await ask("GET /bad"), "HTTP/1.1 500 Internal Server Error");
  assertEquals([rig.lines.length, rig.lines[0]?.includes("our mistake")], [1, true]);
  assertEquals(await ask("GET /"), "HTTP/1.1 200 OK");
});

Deno.test("serveHttp() ends with its signal: an answer under way is given, and the port is free", async () => {
  const asked = Promise.withResolvers<void>(), answered = Promise.withResolvers<Response>();
  await using rig = await Rig.start(() => {
    asked.resolve();
    return answered.promise;
  });
  const exchange = rig.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  await asked.promise;
  rig.stop();
  await assertRejects(() => Deno.connect({ hostname: "127.0.0.1", port: rig.server.port }));
  answered.resolve(new Response("last words"));
  assertStringIncludes((await exchange).text, "last words");
  await rig.server.finished;
});
