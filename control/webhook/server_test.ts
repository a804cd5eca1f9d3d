import { assertEquals, assertRejects } from "@std/assert";
import { request as requestTls } from "node:https";
import { connect } from "node:tls";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { TestCa } from "../../kube/pki_testing.ts";
import { Metrics } from "../../base/metrics.ts";
import { answerReview } from "./review.ts";
import type { TlsRules } from "../grpc/tls_rules.ts";
import { WebhookServer } from "./server.ts";

const NAMES = [{ type: "ip", value: "127.0.0.1" }] as const;
const POLICY = {
  apiVersion: "security.istio.io/v1",
  kind: "AuthorizationPolicy",
  metadata: { name: "a", namespace: "n" },
  spec: {},
};

function review(more: object = {}, version = "v1"): string {
  const kind = { group: "security.istio.io", version: "v1beta1", kind: "AuthorizationPolicy" };
  const request = { uid: "u-1", kind, operation: "CREATE", object: POLICY, ...more };
  return JSON.stringify({ apiVersion: `admission.k8s.io/${version}`, kind: "AdmissionReview", request });
}

interface Answer {
  readonly apiVersion: string;
  readonly kind: string;
  readonly response: { uid: string; allowed: boolean; status?: { message: string; code: number }; warnings?: string[] };
}

const answer = (text: string) => answerReview(text).body as Answer;

Deno.test("answerReview() answers in the version it is asked in, with the same uid (CP-690)", () => {
  for (const version of ["v1", "v1beta1"]) {
    const { apiVersion, kind, response } = answer(review({}, version));
    assertEquals([apiVersion, kind, response], [`admission.k8s.io/${version}`, "AdmissionReview", {
      uid: "u-1",
      allowed: true,
    }]);
  }
  const denied = answer(review({ object: { ...POLICY, spec: { action: "DENY" } } })).response;
  assertEquals([denied.uid, denied.allowed, denied.status?.code], ["u-1", false, 422]);
  assertEquals(denied.status?.message.startsWith("spec.rules: DENY without rules"), true);
  const warned = answer(review({ object: { ...POLICY, spec: { selector: {} } } })).response;
  assertEquals([warned.allowed, warned.warnings?.length], [true, 1]);
});

Deno.test("answerReview() judges CREATE and UPDATE alone (CP-691)", () => {
  const object = { ...POLICY, spec: { nonsense: true } };
  for (
    const [operation, allowed] of [["CREATE", false], ["UPDATE", false], ["DELETE", true], ["CONNECT", true]] as const
  ) {
    assertEquals(answer(review({ operation, object })).response.allowed, allowed, operation);
  }
  assertEquals(answer(review({ operation: "UPDATE", subResource: "status", object })).response.allowed, true);
  assertEquals(answer(review({ operation: "DELETE", object: null })).response.allowed, true);
});

Deno.test("answerReview() refuses what it cannot read, with the uid if there is one (CP-690)", () => {
  for (
    const text of [
      "{",
      "[]",
      "null",
      "1",
      "{}",
      '{"request":{}}',
      '{"request":1}',
      '{"apiVersion":"admission.k8s.io/v9","request":{"uid":"x"}}',
    ]
  ) {
    const { response } = answer(text);
    assertEquals([response.uid, response.allowed, response.status?.message.startsWith("the review cannot be read")], [
      "",
      false,
      true,
    ], text);
  }
  for (
    const more of [{ operation: 7 }, { object: undefined }, { kind: undefined }, { kind: { group: 1, kind: "x" } }]
  ) {
    const { response } = answer(review(more));
    assertEquals([response.uid, response.allowed], ["u-1", false]);
  }
});

Deno.test("answerReview() says no more than an API server takes", () => {
  const rules = Array.from({ length: 200 }, () => ({ to: [{ operation: { paths: ["/"] } }] }));
  const many = answer(review({ object: { ...POLICY, spec: { action: "DENY", rules } } })).response;
  assertEquals([many.allowed, many.warnings?.length], [true, 15]);
  const labels = {
    selector: { matchLabels: Object.fromEntries(Array.from({ length: 200 }, (_, n) => [`k${n}`, "*"])) },
  };
  assertEquals(answer(review({ object: { ...POLICY, spec: labels } })).response.status?.message.length, 2_000);
});

class Rig implements AsyncDisposable {
  readonly ca: TestCa;
  readonly server: WebhookServer;
  readonly metrics: Metrics;
  port = 0;
  ready = true;

  private constructor(ca: TestCa, server: WebhookServer, metrics: Metrics) {
    this.ca = ca;
    this.server = server;
    this.metrics = metrics;
  }

  static async start(
    requestLimitMs?: number,
    rules: TlsRules = { tlsVersionMin: "TLSV1_2" },
  ): Promise<Rig> {
    const ca = await TestCa.create(), metrics = new Metrics(), { certificate, key } = await ca.issue("CN=one", NAMES);
    const server: WebhookServer = new WebhookServer({
      rules,
      address: { host: "127.0.0.1", port: 0 },
      tls: { chainPem: certificate, keyPem: key },
      ready: () => rig.ready,
      metrics,
      log: new Logger("webhook", { sink: () => {} }),
      requestLimitMs,
    });
    const rig: Rig = new Rig(ca, server, metrics);
    rig.port = await server.listen();
    return rig;
  }

  /** Sends a request. @returns status and body, or undefined if the connection was closed instead. */
  async ask(
    path: string,
    { method = "POST", body = "", contentType = "application/json" } = {},
  ): Promise<readonly [number, string] | undefined> {
    const { promise, resolve } = Promise.withResolvers<readonly [number, string] | undefined>();
    const headers = contentType === "" ? {} : { "content-type": contentType };
    const options = {
      host: "127.0.0.1",
      port: this.port,
      path,
      method,
      ca: this.ca.pem,
      headers,
      agent: false,
    } as const;
    const sent = requestTls(options, async (response) => {
      let text = "";
      for await (const chunk of response) text += chunk;
      resolve([response.statusCode ?? 0, text]);
    });
    sent.on("error", () => resolve(undefined));
    sent.end(body);
    return await promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.close();
  }
}

Deno.test("WebhookServer answers reviews at /validate, and what is none by its status (CP-690)", async () => {
  await using rig = await Rig.start();
  const status = async (path: string, options = {}) => (await rig.ask(path, options))?.[0];
  for (const path of ["/validate", "/validate/", "/validate?timeout=10s"]) {
    const [code, text] = (await rig.ask(path, { body: review() }))!;
    assertEquals([code, JSON.parse(text).response.allowed], [200, true]);
  }
  assertEquals(await status("/validate", { body: review(), contentType: "application/json; charset=utf-8" }), 200);
  assertEquals(await status("/validate", { body: review(), contentType: "text/plain" }), 415);
  assertEquals(await status("/validate", { body: review(), contentType: "" }), 415);
  assertEquals(await status("/validate"), 400);
  assertEquals(await status("/validate", { body: "{" }), 200);
  assertEquals(await status("/validate", { method: "GET" }), 405);
  assertEquals(await status("/elsewhere", { body: review() }), 404);
  assertEquals(await status("/validated", { body: review() }), 404);
  assertEquals([await status("/ready", { method: "GET" })], [200]);
  rig.ready = false;
  assertEquals(await status("/ready", { method: "GET" }), 503);
  assertEquals(await status("/validate", { body: "x".repeat(9 << 20) }), 413);
  const text = rig.metrics.render();
  for (
    const line of [
      "galley_validation_passed 4",
      "galley_validation_failed 1",
      'galley_validation_http_error{status="415"} 2',
    ]
  ) {
    assertEquals(text.includes(`${line}\n`), true, line);
  }
});

/** The subject of what it presents. @param name asked for: another than before, lest an earlier session is taken up. */
async function presented(port: number, servername: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const socket = connect({ host: "127.0.0.1", port, servername, rejectUnauthorized: false }, () => {
    resolve(String(socket.getPeerCertificate().subject.CN));
    socket.end();
  });
  socket.on("error", reject);
  return await promise;
}

Deno.test("WebhookServer presents a renewed certificate to new handshakes, without a pause (CP-006)", async () => {
  await using rig = await Rig.start();
  assertEquals(await presented(rig.port, "first.test"), "one");
  const { certificate, key } = await rig.ca.issue("CN=two", NAMES);
  rig.server.present({ chainPem: certificate, keyPem: key });
  assertEquals(await presented(rig.port, "second.test"), "two");
  assertEquals((await rig.ask("/validate", { body: review() }))?.[0], 200);
});

Deno.test("WebhookServer takes no TLS below the version that it was given, nor a suite that is not, a renewed certificate or not (CP-003)", async () => {
  const speaks = (port: number, servername: string, maxVersion: "TLSv1.2" | "TLSv1.3") =>
    new Promise<string>((resolve) => {
      const socket = connect({ host: "127.0.0.1", port, servername, rejectUnauthorized: false, maxVersion });
      socket.on("secureConnect", () => socket.write("GET /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"));
      let said = "refused";
      socket.on("data", (bytes) => said = bytes.toString().slice(0, 12));
      socket.on("error", () => {}).on("close", () => resolve(said));
    });
  const suites = ["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"];
  for (const rules of [{ tlsVersionMin: "TLSV1_3" }, { tlsVersionMin: "TLSV1_2", suites }] as const) {
    await using rig = await Rig.start(undefined, rules);
    for (const name of ["CN=one", "CN=two"]) {
      const { certificate, key } = await rig.ca.issue(name, NAMES);
      rig.server.present({ chainPem: certificate, keyPem: key });
      const said = [await speaks(rig.port, "old.test", "TLSv1.2"), await speaks(rig.port, "new.test", "TLSv1.3")];
      assertEquals(said, ["refused", "HTTP/1.1 200"], name);
    }
  }
});

Deno.test("WebhookServer says which address it cannot have", async () => {
  await using rig = await Rig.start();
  const { certificate, key } = await rig.ca.issue("CN=one", NAMES);
  const second = new WebhookServer({
    rules: { tlsVersionMin: "TLSV1_2" },
    address: { host: "127.0.0.1", port: rig.port },
    tls: { chainPem: certificate, keyPem: key },
    ready: () => true,
    metrics: new Metrics(),
    log: new Logger("webhook", { sink: () => {} }),
  });
  assertEquals((await assertRejects(() => second.listen(), MeshError)).code, "AMB0815");
});

Deno.test("WebhookServer closes on whoever does not come to an end, and serves the others", async () => {
  await using rig = await Rig.start(100);
  const headers = { "content-type": "application/json", "content-length": 100 };
  const { promise, resolve } = Promise.withResolvers<string>();
  const options = { host: "127.0.0.1", port: rig.port, path: "/validate", method: "POST", ca: rig.ca.pem, headers };
  const slow = requestTls({ ...options, agent: false }, () => resolve("answered"));
  slow.on("error", () => resolve("closed"));
  slow.write("{");
  assertEquals((await rig.ask("/validate", { body: review() }))?.[0], 200);
  assertEquals(await promise, "closed");
});
