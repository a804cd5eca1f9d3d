/** What callers of the pages' server can and cannot do to it. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { type Answer, type HttpServer, serveHttp } from "./http_server.ts";

class Rig implements AsyncDisposable {
  readonly #stop = new AbortController();
  readonly lines: string[] = [];
  server!: HttpServer;

  static async start(answer: Answer, takeMsMax?: number): Promise<Rig> {
    const rig = new Rig();
    const log = new Logger("http", { sink: (line) => rig.lines.push(line) });
    rig.server = await serveHttp("127.0.0.1", 0, { answer, signal: rig.#stop.signal, log, takeMsMax });
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

const ASK = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/** Connections that somebody holds, each after it has sent a text, if any. */
async function hold(port: number, count: number, text = ""): Promise<DisposableStack & { all: Deno.TcpConn[] }> {
  const held = Object.assign(new DisposableStack(), { all: [] as Deno.TcpConn[] });
  for (let at = 0; at < count; at++) {
    const connection = await Deno.connect({ hostname: "127.0.0.1", port });
    held.defer(() => connection.close());
    held.all.push(connection);
    await connection.write(new TextEncoder().encode(text));
  }
  return held;
}

Deno.test("serveHttp() has 256 connections at most: the oldest makes room, so that nobody is kept out", async () => {
  await using rig = await Rig.start(echo);
  using held = await hold(rig.server.port, 256);
  const { text, ms } = await rig.exchange(ASK);
  assertStringIncludes(text, " 200 ");
  assert(ms < 1_500, "before any of them had to go for its silence");
  assertEquals(await readOrEnd(held.all[0]!, new Uint8Array(1)), null);
});

/** As read(), where a reset is an end, too. */
async function readOrEnd(connection: Deno.TcpConn, target: Uint8Array): Promise<number | null> {
  try {
    return await connection.read(target);
  } catch (error) {
    if (error instanceof Deno.errors.ConnectionReset) return null;
    throw error;
  }
}

const PAGE = new Uint8Array(20 << 20);

/** Reads an answer in pieces. @returns How much of it came. */
async function take(connection: Deno.TcpConn, pieceBytes: number, betweenMs = 0): Promise<number> {
  const target = new Uint8Array(pieceBytes);
  let bytes = 0;
  while (bytes < PAGE.length) {
    const got = await readOrEnd(connection, target);
    if (got === null) break;
    bytes += got;
    if (betweenMs > 0) await new Promise((resolve) => setTimeout(resolve, betweenMs)); // Its pace.
  }
  return bytes;
}

Deno.test("serveHttp() cuts a caller off that takes its answer too slowly", async () => {
  await using rig = await Rig.start(() => new Response(PAGE), 500);
  using held = await hold(rig.server.port, 1, ASK);
  const bytes = await take(held.all[0]!, 65_536, 20); // Six seconds would do.
  assert(bytes < PAGE.length, `${bytes} bytes`);
});

Deno.test("serveHttp() keeps 64 MiB of answers that nobody takes: beyond that the oldest is cut off", async () => {
  let given = 0;
  await using rig = await Rig.start(() => (given++, new Response(PAGE)));
  using held = await hold(rig.server.port, 3, ASK);
  while (given < 3) await held.all[2]!.read(new Uint8Array(1));
  using late = await hold(rig.server.port, 1, ASK);
  assertEquals(await take(late.all[0]!, 1 << 20) >= PAGE.length, true, "whoever comes is served");
  const taken: boolean[] = [];
  for (const connection of held.all) taken.push(await take(connection, 1 << 20) >= PAGE.length - 3);
  assertEquals(taken, [false, true, true]);
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
