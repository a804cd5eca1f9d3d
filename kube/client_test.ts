import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { Logger } from "../base/log.ts";
import { chain } from "../base/errors.ts";
import type { Credential, Credentials } from "./access.ts";
import { KubeError, KubeUnreachable, type WatchEvent } from "./api.ts";
import { Mirror, until } from "./informer_testing.ts";
import { TestCa } from "./pki_testing.ts";
import { CONFIG_MAPS, LEASES, PODS } from "./resource_types.ts";
import { RIG_CASES } from "./rig_testing.ts";
import { message, protoFields, text } from "./proto_fields.ts";
import { envelope, field, frame, joined, named, statusBytes } from "./proto_testing.ts";
import { accessTo, clientOf, RawServer, ServedKubeApi } from "./served_testing.ts";
import { InMemoryKubeApi } from "./testing.ts";

const map = (name: string, value = "1") => ({ metadata: { name, namespace: "n" }, data: { value } });

for (const { name, run } of RIG_CASES) {
  Deno.test(`openKubeApi() over HTTP: ${name}`, async () => {
    await using served = await ServedKubeApi.start(new InMemoryKubeApi());
    using api = clientOf(accessTo(served.port));
    await run({ api, namespace: "rig" });
  });
}

Deno.test("openKubeApi() asks as who it is, over TLS, with a client certificate, and trusts no other CA", async () => {
  const ca = await TestCa.create(), other = await TestCa.create("CN=other");
  const { certificate: cert, key } = await ca.issue("CN=api", [{ type: "dns", value: "api.test" }]);
  const tls = { cert, key, ca: ca.pem, requestCert: true, rejectUnauthorized: true };
  await using served = await ServedKubeApi.start(new InMemoryKubeApi(), { tls });
  const keyPair = await ca.issue("O=system:masters, CN=admin");
  const credentials = { current: () => Promise.resolve({ keyPair, token: "t0ken" }), refused: () => {} };
  const access = accessTo(served.port, {
    server: new URL(`https://127.0.0.1:${served.port}`),
    ca: ca.pem,
    serverName: "api.test",
    credentials,
    headers: { "impersonate-user": "jane", "impersonate-group": ["a", "b"] },
  });
  using api = clientOf(access);
  assertEquals((await api.list(PODS, {}, { limit: 1 })).items, []);
  const { headers } = served.requests[0]!;
  assertEquals(headers.authorization, "Bearer t0ken");
  assertEquals([headers["impersonate-user"], headers["impersonate-group"], headers["accept-encoding"]], [
    "jane",
    "a, b",
    undefined,
  ]);
  const refusals = {
    "another CA": { ca: other.pem },
    "no CA but the system's": { ca: undefined },
    "another name": { serverName: "other.test" },
    "the URL's own name, which it has not": { serverName: undefined },
    "no client certificate": { credentials: { current: () => Promise.resolve({}), refused: () => {} } },
  };
  for (const [what, wrong] of Object.entries(refusals)) {
    using refused = clientOf({ ...access, ...wrong });
    await assertRejects(() => refused.list(PODS, {}, { limit: 1 }), KubeUnreachable, undefined, what);
  }
  using blind = clientOf({ ...access, ca: undefined, serverName: undefined, insecure: true });
  assertEquals((await blind.list(PODS, {}, { limit: 1 })).items, []);
});

Deno.test("openKubeApi() renews its credential after a 401, once, and takes up a rotated token", async () => {
  let valid = "one", renewals = 0, held: Credential = { token: "one" };
  const credentials: Credentials = {
    current: () => Promise.resolve(held),
    refused: () => {
      renewals++;
      if (held.token !== valid) held = { token: valid };
    },
  };
  await using served = await ServedKubeApi.start(new InMemoryKubeApi(), { token: () => valid });
  using api = clientOf(accessTo(served.port, { credentials }));
  await api.list(PODS, {}, { limit: 1 });
  valid = "two";
  await api.list(PODS, {}, { limit: 1 });
  assertEquals([served.requests.length, renewals], [3, 1]);
  valid = "three";
  credentials.refused = () => {};
  const error = await assertRejects(() => api.list(PODS, {}, { limit: 1 }), KubeError);
  assertEquals([error.status, served.requests.length], [401, 4], "the same credential is not offered twice");
});

Deno.test("openKubeApi() honours 429 and Retry-After, and 503 with it, so many times (CP-010)", async () => {
  for (
    const [head, waits, succeeds] of [
      ["429 Too Many Requests\r\nretry-after: 3", [3_000, 3_000], true],
      ["429 Too Many Requests", [1_000, 1_000], true],
      ["503 Service Unavailable\r\nretry-after: 1", [1_000, 1_000], true],
      ["429 Too Many Requests\r\nretry-after: 86400", [30_000, 30_000], true],
      ["503 Service Unavailable", [], false],
    ] as const
  ) {
    await using server: RawServer = new RawServer((write) =>
      write(server.requests <= 2 ? `HTTP/1.1 ${head}\r\ncontent-length: 0\r\n\r\n` : answer(200, LIST))
    );
    const waited: number[] = [];
    using api = clientOf(accessTo(server.port), {
      random: () => 0,
      sleep: (ms) => {
        waited.push(ms);
        return Promise.resolve();
      },
    });
    const list = api.list(PODS, {}, { limit: 1 });
    if (succeeds) await list;
    else assertEquals((await assertRejects(() => list, KubeError)).status, 503);
    assertEquals(waited, waits, head);
  }
  await using always = new RawServer((write) =>
    write("HTTP/1.1 429 No\r\ncontent-length: 0\r\nretry-after: 1\r\n\r\n")
  );
  using api = clientOf(accessTo(always.port));
  assertEquals((await assertRejects(() => api.create(LEASES, "n", map("a")), KubeError)).status, 429);
  assertEquals(always.requests, 6);
});

const LIST = JSON.stringify({ kind: "PodList", metadata: { resourceVersion: "7" }, items: [] });

function answer(status: number, body: string, contentType = "application/json", more = ""): string {
  const length = new TextEncoder().encode(body).length;
  return `HTTP/1.1 ${status} X\r\ncontent-type: ${contentType}\r\ncontent-length: ${length}\r\n${more}connection: close\r\n\r\n${body}`;
}

const HEAD = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
const chunk = (text: string) => `${new TextEncoder().encode(text).length.toString(16)}\r\n${text}\r\n`;
const status = (code: number, reason: string) =>
  JSON.stringify({ kind: "Status", status: "Failure", code, reason, message: "so it is" });

Deno.test("openKubeApi() reads the Status that it is refused with, or tells what came instead", async () => {
  for (
    const [given, code, reason, message] of [
      [answer(403, status(403, "Forbidden")), 403, "Forbidden", "so it is"],
      [answer(403, "<html>login</html>", "text/html"), 403, "", "answered 403"],
      [answer(500, "{", "application/json"), 500, "", "answered 500"],
      [answer(422, status(999_999, "Invalid")), 422, "Invalid", "so it is"],
      [answer(404, status(404, "NotFound")), 404, "NotFound", "so it is"],
    ] as const
  ) {
    await using server = new RawServer((write) => write(given));
    using api = clientOf(accessTo(server.port));
    const error = await assertRejects(() => api.list(PODS, {}, { limit: 1 }), KubeError, message);
    assertEquals([error.status, error.reason], [code, reason]);
  }
});

Deno.test("openKubeApi() takes nothing for an answer that no API server gives, within time and bytes", async () => {
  const drip = async (write: (text: string) => Promise<void>, head: string, drop: string) => {
    await write(head);
    for (;;) {
      await write(drop);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  };
  const endless = async (write: (text: string) => Promise<void>, head: string) => {
    await write(head);
    for (const much = "x".repeat(65_536);;) await write(chunk(much));
  };
  const scripts: Record<string, (write: (text: string) => Promise<void>) => Promise<void>> = {
    "a page of HTML": (write) => write(answer(200, "<html>", "text/html")),
    "no type": (write) => write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"),
    "half a list": (write) => write(answer(200, LIST.slice(0, -3))),
    "a list of nothing": (write) => write(answer(200, "[]")),
    "a list without a version": (write) => write(answer(200, '{"metadata":{},"items":[]}')),
    "a list of names": (write) => write(answer(200, '{"metadata":{"resourceVersion":"1"},"items":["a"]}')),
    "a list of objects without names": (write) =>
      write(answer(200, '{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{}}]}')),
    "what is compressed unasked": (write) =>
      write(answer(200, "\x1f\x8b\x08", "application/json", "content-encoding: gzip\r\n")),
    "a redirection": (write) => write(answer(302, "", "text/html", "location: http://127.0.0.1:1/\r\n")),
    "another protocol": (write) => write("SSH-2.0-OpenSSH\r\n\r\n"),
    "a head without end": async (write) => {
      await write("HTTP/1.1 200 OK\r\n");
      for (let n = 0;; n++) await write(`x-${n}: ${"y".repeat(500)}\r\n`);
    },
    "a body that is cut": (write) => write(answer(200, LIST).slice(0, -5)),
    "a connection closed at once": () => Promise.resolve(),
    "a list without end": (write) => endless(write, HEAD),
    "a refusal without end": (write) => endless(write, HEAD.replace("200 OK", "403 X")),
    "a slow list": (write) => drip(write, HEAD, chunk(" ")),
    "a slow head": (write) => drip(write, "HTTP/1.1 200 OK\r\nx: ", "y"),
    "nothing": () => new Promise(() => {}),
  };
  for (const [what, script] of Object.entries(scripts)) {
    const done = Promise.withResolvers<void>();
    await using server = new RawServer((write) => Promise.race([script(write), done.promise]));
    using api = clientOf(accessTo(server.port), { limits: { callMs: 300, answerBytesMax: 1 << 20 } });
    await assertRejects(() => api.list(PODS, {}, { limit: 1 }), KubeUnreachable, undefined, what);
    // A watch is bounded until it is open.
    if (what === "nothing" || what === "a slow head") {
      await assertRejects(() => next(api, "1"), KubeUnreachable, "no answer", what);
    }
    done.resolve();
  }
});

async function next(api: ReturnType<typeof clientOf>, resourceVersion: string): Promise<WatchEvent[]> {
  const events = [];
  for await (const event of api.watch(CONFIG_MAPS, {}, { resourceVersion, signal: AbortSignal.timeout(60_000) })) {
    events.push(event);
  }
  return events;
}

const EVENTS = [
  {
    type: "ADDED",
    object: { metadata: { name: "ä", namespace: "n", resourceVersion: "5" }, data: { k: "\u{1F600}\n" } },
  },
  { type: "BOOKMARK", object: { kind: "ConfigMap", metadata: { resourceVersion: "6" } } },
  { type: "DELETED", object: { metadata: { name: "b", namespace: "n", resourceVersion: "7" } } },
].map((event) => JSON.stringify(event) + "\n").join("");

Deno.test("openKubeApi() reads a watch wherever its bytes are cut, and knows a cut within an event (CP-101)", async () => {
  const bytes = new TextEncoder().encode(EVENTS), ends = new Set([0]);
  for (const [at, byte] of bytes.entries()) if (byte === 10) ends.add(at + 1);
  let cut = 0, whole = true;
  await using server = new RawServer(async (write) => {
    const part = async (piece: Uint8Array) => {
      if (piece.length === 0) return;
      await write(`${piece.length.toString(16)}\r\n`);
      await write(piece);
      await write("\r\n");
    };
    await write(HEAD);
    await part(bytes.subarray(0, cut));
    if (whole) await part(bytes.subarray(cut));
    await write("0\r\n\r\n");
  });
  using api = clientOf(accessTo(server.port), { limits: { perSecond: 1e9 } });
  for (; cut <= bytes.length; cut++) {
    whole = true;
    assertEquals((await next(api, "1")).map(({ type }) => type), ["ADDED", "BOOKMARK", "DELETED"], `cut at ${cut}`);
    whole = false;
    if (ends.has(cut)) await next(api, "1");
    else await assertRejects(() => next(api, "1"), KubeUnreachable, "within an event", `cut at ${cut}`);
  }
});

Deno.test("openKubeApi() ends a watch by what nobody can read, and says so; an error event is an error", async () => {
  const undecodable = [
    "no JSON\n",
    "{}\n",
    '{"type":"NEW","object":{"metadata":{"name":"a","resourceVersion":"1"}}}\n',
    '{"type":"ADDED","object":{"metadata":{"name":"a"}}}\n',
    '{"type":"ADDED","object":{"metadata":{"name":7,"resourceVersion":"1"}}}\n',
    '{"type":"BOOKMARK","object":{"metadata":{}}}\n',
    '{"type":"ERROR","object":{}}\n',
    "x".repeat(5_000),
  ];
  for (const text of undecodable) {
    await using server = new RawServer((write) => write(HEAD + chunk(text) + "0\r\n\r\n"));
    using api = clientOf(accessTo(server.port), { limits: { lineBytesMax: 4_096 } });
    const error = await assertRejects(() => next(api, "1"), KubeUnreachable);
    assert(error.undecodable, text.slice(0, 40));
  }
  await using server = new RawServer((write) =>
    write(HEAD + chunk(`{"type":"ERROR","object":${status(410, "Expired")}}\n`))
  );
  using api = clientOf(accessTo(server.port));
  const gone = await assertRejects(() => next(api, "1"), KubeError);
  assertEquals([gone.status, gone.reason], [410, "Expired"]);
});

Deno.test("openKubeApi() lets a watch go in which nothing comes, without an error", async () => {
  const done = Promise.withResolvers<void>();
  await using server = new RawServer(async (write) => {
    await write(HEAD + chunk(EVENTS));
    await done.promise;
  });
  using api = clientOf(accessTo(server.port), { limits: { watchSilenceMs: 50 } });
  assertEquals((await next(api, "1")).length, 3);
  done.resolve();
});

Deno.test("openKubeApi() asks for a watch as an API server wants it", async () => {
  await using served = await ServedKubeApi.start(new InMemoryKubeApi());
  using api = clientOf(accessTo(served.port), { random: () => 0.5 });
  const scope = { namespace: "a b", labelSelector: "x in (y,z)", fieldSelector: "status.phase!=Failed" };
  for await (
    const _ of api.watch(PODS, scope, { resourceVersion: "", initialEvents: true, signal: AbortSignal.timeout(60_000) })
  ) break;
  assertEquals(
    served.requests[0]?.line,
    "GET /api/v1/namespaces/a%20b/pods?labelSelector=x%20in%20(y%2Cz)&fieldSelector=status.phase!%3DFailed&watch=1" +
      "&allowWatchBookmarks=true&timeoutSeconds=450&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
  );
  for (const name of ["", ".", "..", "a/../../secrets"]) {
    const get = () => api.get(PODS, { namespace: "n", name });
    if (name.includes("/")) assertEquals(await get(), undefined);
    else await assertRejects(get, RangeError, "no name");
  }
  assertEquals(served.requests.at(-1)?.line, "GET /api/v1/namespaces/n/pods/a%2F..%2F..%2Fsecrets");
});

Deno.test("an informer over HTTP survives the API server's restart with deletions in the gap (CP-101)", async () => {
  for (const streamingLists of ["served", "invalid", "error-event"] as const) {
    const memory = new InMemoryKubeApi({ streamingLists });
    for (const name of ["same", "gone"]) memory.put(CONFIG_MAPS, map(name));
    const first = await ServedKubeApi.start(memory), port = first.port;
    using api = clientOf(accessTo(port));
    await using mirror = new Mirror(api, CONFIG_MAPS, {}, {
      sleep: () => new Promise((resolve) => setTimeout(resolve, 5)),
    });
    await mirror.informer.synced;
    mirror.takeTold();
    await first[Symbol.asyncDispose]();
    await until("it is in trouble", () => mirror.informer.status().trouble !== undefined);
    memory.remove(CONFIG_MAPS, "n", "gone");
    memory.put(CONFIG_MAPS, map("new"));
    memory.expireVersions();
    await using _second = await ServedKubeApi.start(memory, { port });
    await mirror.untilNames("same", "new");
    assertEquals(mirror.takeTold().sort(), ["+new", "-gone"]);
    await until("it is well", () => mirror.informer.status().trouble === undefined);
    assertEquals(mirror.logged.length, 2);
  }
});

Deno.test("openKubeApi() tells why it has no credential, and asks nothing without", async () => {
  await using served = await ServedKubeApi.start(new InMemoryKubeApi());
  const credentials = { current: () => Promise.reject(new Error("no token today")), refused: () => {} };
  using api = clientOf(accessTo(served.port, { credentials }));
  const error = await assertRejects(() => api.list(PODS, {}, { limit: 1 }), KubeUnreachable);
  assertStringIncludes(chain(error), "no token today");
  assertEquals(served.requests, []);
});

const NAMES = { fields: protoFields({ 1: message("metadata", { 1: text("name"), 6: text("resourceVersion") }) }) };
const PROTO = "application/vnd.kubernetes.protobuf";
const answered = (code: number, body: Uint8Array, contentType: string) =>
  joined(
    `HTTP/1.1 ${code} X\r\ncontent-type: ${contentType}\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n`,
    body,
  );
const namesOf = async (api: ReturnType<typeof clientOf>) =>
  (await api.list(PODS, NAMES, { limit: 1 })).items.map(({ metadata }) => metadata.name);

Deno.test("openKubeApi() reads lists, watches and refusals in protobuf where it knows the fields, and asks for JSON elsewhere (CP-101)", async () => {
  const list = envelope(
    "PodList",
    joined(field(1, joined(field(2, "7"), field(3, "more"))), field(2, named("a", "5"))),
  );
  const heads: string[] = [];
  let body = answered(200, list, PROTO);
  await using server = new RawServer((write, head) => {
    heads.push(/^accept: (.*)\r$/mi.exec(head)![1]!);
    return write(body);
  });
  using api = clientOf(accessTo(server.port));
  assertEquals(await api.list(PODS, NAMES, { limit: 1 }), {
    items: [{ metadata: { name: "a", resourceVersion: "5" } }],
    resourceVersion: "7",
    continueToken: "more",
  });
  body = answered(
    200,
    joined(frame("ADDED", "Pod", named("a", "5")), frame("ADDED", "Pod", named("b", "6"))),
    `${PROTO};stream=watch`,
  );
  const seen: WatchEvent[] = [], signal = new AbortController().signal;
  for await (const event of api.watch(PODS, NAMES, { resourceVersion: "4", signal })) seen.push(event);
  assertEquals(seen.map((event) => event.type !== "BOOKMARK" && event.object.metadata.name), ["a", "b"]);
  body = answered(403, envelope("Status", statusBytes(403, "Forbidden")), PROTO);
  const error = await assertRejects(() => namesOf(api), KubeError, "it says Forbidden");
  assertEquals([error.status, error.reason], [403, "Forbidden"]);
  body = answered(200, new TextEncoder().encode(LIST), "application/json"); // As kinds of custom resources come.
  assertEquals(await namesOf(api), []);
  await api.list(PODS, {}, { limit: 1 });
  body = answered(200, list, PROTO);
  await assertRejects(() => api.list(PODS, {}, { limit: 1 }), KubeUnreachable, "instead of JSON");
  const both = `${PROTO},application/json;q=0.9`, json = "application/json";
  assertEquals(heads, [both, both, both, both, json, json]);
});

Deno.test("openKubeApi() asks for metadata alone where no more is read, in protobuf where it knows the fields (CP-100)", async () => {
  const heads: string[] = [];
  const items = joined(field(1, field(2, "7")), field(2, named("a", "5")));
  let body = answered(200, envelope("PartialObjectMetadataList", items), PROTO);
  await using server = new RawServer((write, head) => {
    heads.push(/^accept: (.*)\r$/mi.exec(head)![1]!);
    return write(body);
  });
  using api = clientOf(accessTo(server.port));
  const alone = { ...NAMES, metadataOnly: true }, signal = new AbortController().signal;
  const { items: [first] } = await api.list(PODS, alone, { limit: 1 });
  assertEquals(first?.metadata.name, "a");
  body = answered(200, frame("ADDED", "PartialObjectMetadata", named("a", "5")), `${PROTO};stream=watch`);
  const seen: WatchEvent[] = [];
  for await (const event of api.watch(PODS, alone, { resourceVersion: "4", signal })) seen.push(event);
  assertEquals(seen.length, 1);
  body = answered(200, new TextEncoder().encode(LIST), "application/json");
  assertEquals(
    (await api.list(PODS, { metadataOnly: true }, { limit: 1 })).items,
    [],
    "whole objects would be taken too",
  );
  const as = (what: string) => `;as=${what};g=meta.k8s.io;v=v1`, json = "application/json";
  const list = as("PartialObjectMetadataList"), event = as("PartialObjectMetadata"), last = `${json};q=0.9`;
  assertEquals(heads, [
    `${PROTO}${list},${json}${list},${last}`,
    `${PROTO}${event},${json}${event},${last}`,
    `${json}${list},${last}`,
  ]);
});

Deno.test("openKubeApi() asks for JSON once a kind has come in protobuf that it cannot read (CP-101)", async () => {
  for (const broken of ["list", "watch"]) {
    const lines: string[] = [];
    await using server = new RawServer((write, head) =>
      write(
        head.includes("protobuf")
          ? answered(200, new TextEncoder().encode("k8s\0\x0f\0\0\0"), PROTO)
          : answered(200, new TextEncoder().encode(LIST), "application/json"),
      )
    );
    using api = clientOf(accessTo(server.port), { log: new Logger("kube", { sink: (line) => lines.push(line) }) });
    const ask = async () => {
      if (broken === "list") return void await namesOf(api);
      const signal = new AbortController().signal;
      for await (const event of api.watch(PODS, NAMES, { resourceVersion: "4", signal })) assert(event === undefined);
    };
    const error = await assertRejects(ask, KubeUnreachable);
    assertEquals(error.undecodable, true, "the informer lists again");
    assertEquals([await namesOf(api), server.requests], [[], 2]);
    assertEquals(lines.filter((line) => line.includes("asked for in JSON")).length, 1, lines.join("\n"));
  }
});
