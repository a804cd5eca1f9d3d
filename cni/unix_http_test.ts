import { assertEquals } from "@std/assert";
import { Logger } from "../base/log.ts";
import { acceptAll, serveUnixHttp } from "./unix_http.ts";

const silent = new Logger("cni", { sink: () => {} });

Deno.test("serveUnixHttp() outlives callers who go in the middle of a request, and answers the next (CNI-016)", async () => {
  const folder = await Deno.makeTempDir(), path = `${folder}/x.sock`, ended: string[] = [];
  const server = await serveUnixHttp(path, silent, async (request) => {
    try {
      const body = await request.text();
      return Response.json({ body }, { status: 201 });
    } finally {
      ended.push("");
    }
  });
  try {
    const partial = [
      "",
      "POST",
      "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nonly this",
      "\x16\x03\x01 no HTTP\r\n\r\n",
    ];
    for (const text of partial) {
      const socket = await Deno.connect({ transport: "unix", path });
      await socket.write(new TextEncoder().encode(text));
      socket.close();
    }
    using client = Deno.createHttpClient({ proxy: { transport: "unix", path } });
    const response = await fetch("http://localhost//evil", { client, method: "POST", body: "hello" });
    assertEquals([response.status, await response.json()], [201, { body: "hello" }]);
    const get = await fetch("http://localhost/", { client });
    assertEquals([get.status, await get.json()], [201, { body: "" }]);
  } finally {
    await server.shutdown();
    await Deno.remove(folder, { recursive: true });
  }
  assertEquals(ended.length, 3, "one of them had begun");
});

Deno.test("acceptAll() goes on after a refusal that passes, says so, and ends when its listener is closed (CNI-016)", async () => {
  const said: string[] = [], taken: string[] = [];
  const answers: (() => string)[] = [
    () => "first",
    () => {
      throw new Error("Too many open files (os error 24)");
    },
    () => "second",
    () => {
      throw new Deno.errors.BadResource("Listener has been closed");
    },
  ];
  const listener = { accept: () => Promise.try(() => answers.shift()!()) };
  await acceptAll(listener, new Logger("cni", { sink: (line) => said.push(line) }), (it) => taken.push(it), 0);
  assertEquals(taken, ["first", "second"]);
  assertEquals(said.filter((line) => line.includes("Too many open files")).length, 1);
});
