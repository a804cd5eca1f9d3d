/** Our ADS client and our ADS server over TLS on loopback, and a bare gRPC client against the server. */
import { Buffer } from "node:buffer";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import * as grpc from "@grpc/grpc-js";
import { AUTHORIZATION_TYPE_URL } from "../../mesh/proto/authorization_codec.ts";
import type { DeltaDiscoveryRequest } from "../../mesh/proto/discovery_codec.ts";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { ControlRig, headers, until } from "./control_rig.ts";
import { ClientRig, NODE, resource, Stream } from "./xds_rig.ts";

Deno.test("XdsClient and AdsService: first state, a change, a removal, in order (ZT-125, CP-416, CP-427)", async () => {
  await using rig = await ControlRig.start();
  rig.mesh.set(ADDRESS_TYPE_URL, resource("w1", "1"));
  rig.mesh.set(AUTHORIZATION_TYPE_URL, resource("ns/p", "1"));
  await using it = new ClientRig(rig, await rig.token());
  await it.ready();
  assertEquals(it.state.log, ["policy [ns/p@1] -[]", "address [w1@1] -[]"]);
  rig.ads.push([
    { typeUrl: ADDRESS_TYPE_URL, updated: [resource("w2", "1")], removed: ["w1"] },
    { typeUrl: AUTHORIZATION_TYPE_URL, updated: [resource("ns/q", "1")], removed: ["ns/p"] },
  ]);
  await until(() => it.state.log.length === 5, "both types pushed");
  assertEquals(it.state.log.slice(2), ["policy [ns/q@1] -[]", "address [w2@1] -[w1]", "policy [] -[ns/p]"]);
  await until(() => rig.ads.status()[0]!.watches.every((w) => w.acknowledgedNonce === w.sentNonce), "all acknowledged");
  assertEquals([...it.state.held.keys()].sort(), ["address/w2", "policy/ns/q"]);
});

Deno.test("XdsClient refuses a resource, keeps the old one and the rest of the batch, and says why (ZT-129, ZT-130)", async () => {
  await using rig = await ControlRig.start();
  rig.mesh.set(ADDRESS_TYPE_URL, resource("w1", "1"));
  await using it = new ClientRig(rig, await rig.token());
  await it.ready();
  it.state.refuse = new Set(["w1"]);
  rig.ads.push([{ typeUrl: ADDRESS_TYPE_URL, updated: [resource("w1", "2"), resource("w2", "2")], removed: [] }]);
  await until(() => rig.ads.status()[0]!.watches[0]!.lastError !== "", "the NACK");
  assertEquals(rig.ads.status()[0]!.watches[0]!.lastError, "w1: made to fail");
  assertEquals([it.state.held.get("address/w1")![0], it.state.held.has("address/w2")], ["1".charCodeAt(0), true]);
  assertStringIncludes(rig.metrics.render(), 'pilot_total_xds_rejects{type="wds"} 1');
  it.state.refuse = new Set();
  rig.ads.push([{ typeUrl: ADDRESS_TYPE_URL, updated: [resource("w1", "3")], removed: [] }]);
  await until(() => rig.ads.status()[0]!.watches[0]!.lastError === "", "the ACK clears the error (CP-409)");
});

Deno.test("XdsClient is not ready by a first state that it had to refuse in part (ZT-221, ZT-223)", async () => {
  await using rig = await ControlRig.start();
  rig.mesh.set(ADDRESS_TYPE_URL, resource("w1", "1"));
  await using it = new ClientRig(rig, await rig.token());
  it.state.refuse = new Set(["w1"]);
  let ready = false;
  it.client.ready.then(() => ready = true);
  await until(() => it.state.log.length === 2 && rig.ads.status()[0]!.watches[0]!.lastError !== "", "the NACK");
  assertEquals(ready, false);
  it.state.refuse = new Set();
  rig.ads.push([{ typeUrl: ADDRESS_TYPE_URL, updated: [resource("w1", "2")], removed: [] }]);
  await it.ready();
  assertEquals([...it.state.held.keys()], ["address/w1"]);
});

Deno.test("XdsClient asks for addresses one by one on demand, and waiters see the new state (ZT-127, ZT-131)", async () => {
  await using rig = await ControlRig.start();
  rig.mesh.set(ADDRESS_TYPE_URL, resource("w1", "1", 20, ["/10.0.0.1"]));
  rig.mesh.set(ADDRESS_TYPE_URL, resource("w2", "1"));
  await using it = new ClientRig(rig, await rig.token(), true);
  await it.ready();
  await until(() => it.state.log.length === 2, "both types answered");
  assertEquals(it.state.log.toSorted(), ["address [] -[]", "policy [] -[]"]);
  await it.client.request("/10.0.0.1");
  assertEquals([...it.state.held.keys()], ["address/w1"]);
  await it.client.request("/10.0.0.9");
  assertEquals(it.state.log.at(-1), "address [] -[/10.0.0.9]");
});

Deno.test("AdsService: 10,000 resources reach a client; the time is printed (CP-658)", async () => {
  await using rig = await ControlRig.start();
  for (let at = 0; at < 10_000; at++) {
    rig.mesh.set(ADDRESS_TYPE_URL, resource(`Kubernetes//Pod/ns/pod-${at}`, "1", 230));
  }
  const token = await rig.token();
  for (const round of ["first", "second"]) {
    const startMs = performance.now();
    await using it = new ClientRig(rig, token);
    await it.ready();
    const firstMs = performance.now() - startMs;
    assertEquals(it.state.held.size, 10_000);
    const pushMs = performance.now();
    rig.ads.push([{ typeUrl: ADDRESS_TYPE_URL, updated: [resource("one", round)], removed: [] }]);
    await until(() => it.state.held.has("address/one"), "the change");
    const text = `${round} client: 10,000 resources in ${firstMs.toFixed(0)} ms (TLS and HTTP/2 included), `;
    Deno.stderr.writeSync(
      new TextEncoder().encode(`${text}then one change in ${(performance.now() - pushMs).toFixed(1)} ms\n`),
    );
  }
});

Deno.test("AdsService refuses streams with the right status, and names those it takes (CP-013, CP-400 to CP-402, CP-430, CP-431, CP-476)", async () => {
  await using rig = await ControlRig.start();
  const good = await rig.token();
  const cases: [string, grpc.Metadata, Partial<DeltaDiscoveryRequest>, grpc.status][] = [
    ["no credentials", headers(undefined), { node: NODE }, grpc.status.UNAUTHENTICATED],
    [
      "another audience",
      headers(await rig.token({}, { audience: "vault" })),
      { node: NODE },
      grpc.status.UNAUTHENTICATED,
    ],
    ["expired", headers(await rig.token({}, { ttlMs: -1_000 })), { node: NODE }, grpc.status.UNAUTHENTICATED],
    ["unknown cluster", headers(good, { clusterid: "other" }), { node: NODE }, grpc.status.UNAUTHENTICATED],
    ["no node", headers(good), {}, grpc.status.INVALID_ARGUMENT],
    ["bad node id", headers(good), { node: { id: "ztunnel~1.1.1.1~x", metadata: {} } }, grpc.status.INVALID_ARGUMENT],
    [
      "another namespace",
      headers(good),
      { node: { id: "ztunnel~1~p.shop~d", metadata: {} } },
      grpc.status.PERMISSION_DENIED,
    ],
    [
      "another account",
      headers(good),
      { node: { ...NODE, metadata: { SERVICE_ACCOUNT: "admin" } } },
      grpc.status.PERMISSION_DENIED,
    ],
  ];
  for (const [what, metadata, request, status] of cases) {
    using stream = new Stream(rig.client(), metadata);
    stream.send(request);
    await until(() => stream.ended !== undefined, what);
    assertEquals([what, stream.ended!.code, stream.responses.length], [what, status, 0]);
  }
  assertEquals(rig.ads.status(), []);
  using stream = new Stream(rig.client(), headers(good, { clusterid: "Kubernetes" }));
  stream.send({ node: NODE });
  await until(() => stream.responses.length === 1, "the good one is served");
  assertMatch(rig.ads.status()[0]!.connectionId, /^ztunnel-1\.istio-system-\d+$/);
  rig.ads.close(); // As before it is ready: it takes nobody.
  using late = new Stream(rig.client(), headers(good));
  late.send({ node: NODE });
  await until(() => late.ended !== undefined, "the late one is refused");
  assertEquals(late.ended!.code, grpc.status.UNAVAILABLE);
});

Deno.test("AdsService opens nothing for what follows a refused request on the same stream (CP-431)", async () => {
  await using rig = await ControlRig.start();
  using stream = new Stream(rig.client(), headers(await rig.token()));
  stream.send({ node: { id: "ztunnel~1~p.shop~d", metadata: {} } });
  for (let more = 0; more < 20; more++) stream.send({ node: NODE });
  await until(() => stream.ended !== undefined, "the refusal");
  assertEquals([stream.ended!.code, stream.responses, rig.ads.status()], [grpc.status.PERMISSION_DENIED, [], []]);
});

Deno.test("AdsService refuses bytes that are no request (CP-400)", async () => {
  await using rig = await ControlRig.start();
  using stream = new Stream(rig.client(), headers(await rig.token()));
  stream.call.write(Buffer.from([0xff, 0xff, 0xff]));
  await until(() => stream.ended !== undefined, "the end");
  assertEquals(stream.ended!.code, grpc.status.INVALID_ARGUMENT);
});

Deno.test("AdsService skips a health message and leaves unknown types unanswered (CP-400, CP-413)", async () => {
  await using rig = await ControlRig.start();
  using stream = new Stream(rig.client(), headers(await rig.token()));
  stream.send({ typeUrl: "type.googleapis.com/istio.v1.HealthInformation" });
  stream.send({ node: NODE, typeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster" });
  stream.send({});
  await until(() => stream.responses.length === 1, "the answer to the type that is served");
  assertEquals([stream.responses[0]!.typeUrl, stream.ended], [ADDRESS_TYPE_URL, undefined]);
});

Deno.test("AdsService: a client that does not read holds up only itself, and costs its distinct names (CP-443)", async () => {
  await using rig = await ControlRig.start();
  for (let at = 0; at < 200; at++) rig.mesh.set(ADDRESS_TYPE_URL, resource(`w${at}`, "1", 100_000));
  const token = await rig.token();
  using slow = new Stream(rig.client(), headers(token), { reading: false });
  slow.send({ node: NODE });
  using quick = new Stream(rig.client(), headers(token));
  quick.send({ node: NODE });
  await until(() => quick.responses.length === 1 && rig.ads.status().length === 2, "both streams stand");
  for (let round = 0; round < 50; round++) {
    const updated = Array.from({ length: 20 }, (_, at) => resource(`w${at}`, `v${round}`, 100_000));
    rig.ads.push([{ typeUrl: ADDRESS_TYPE_URL, updated, removed: [] }]);
    const isNewest = () => quick.responses.at(-1)!.resources[0]?.version === `v${round}`;
    await until(isNewest, "the quick one is served");
  }
  const waiting = () => rig.ads.status().map(({ watches }) => watches[0]!.waiting);
  await until(() => waiting().toSorted().join() === "0,20", "20 names wait for the slow one");
  slow.read();
  await until(() => slow.responses.at(-1)?.resources[0]?.version === "v49", "the slow one ends at the newest state");
  assertEquals(slow.responses.length, 2, "the first state, and then the newest of each name");
});

Deno.test("AdsService forgets streams however they end, and warns of a ztunnel that is not trusted", async () => {
  await using rig = await ControlRig.start();
  const token = await rig.token({ namespace: "shop", serviceAccount: "cart", pod: "cart-1" });
  for (let round = 0; round < 20; round++) {
    using stream = new Stream(rig.client(), headers(token));
    stream.send({ node: { id: "ztunnel~1~cart-1.shop~d", metadata: {} } });
    await until(() => stream.responses.length === 1, "an answer");
    if (round % 2 === 0) stream.call.end(); // Half-closed by the client; the others are cancelled.
    if (round % 2 === 0) await until(() => stream.ended !== undefined, "the end");
  }
  await until(() => rig.ads.status().length === 0, "no stream is left");
  assert(
    rig.logLines.some((line) => line.includes("CA_TRUSTED_NODE_ACCOUNTS") && line.includes('account="shop/cart"')),
  );
});

Deno.test("AdsService: 200 streams at once reconnect to 10,000 resources; the time is printed (CP-658)", async () => {
  await using rig = await ControlRig.start();
  const versions = new Map<string, string>();
  for (let at = 0; at < 10_000; at++) {
    const name = `Kubernetes//Pod/ns/pod-${at}`;
    rig.mesh.set(ADDRESS_TYPE_URL, resource(name, "1", 230));
    versions.set(name, "1");
  }
  const metadata = headers(await rig.token()), client = rig.client();
  const startMs = performance.now();
  const streams = Array.from({ length: 200 }, () => new Stream(client, metadata));
  for (const stream of streams) stream.send({ node: NODE, initialResourceVersions: versions });
  await until(() => streams.every(({ responses }) => responses.length === 1), "all are answered", 180_000);
  const text = `200 reconnects with 10,000 versions each: ${
    (performance.now() - startMs).toFixed(0)
  } ms, both sides in one process\n`;
  Deno.stderr.writeSync(new TextEncoder().encode(text));
  assertEquals(streams.map(({ responses }) => responses[0]!.resources.length), Array(200).fill(0));
  for (const stream of streams) stream.call.cancel();
  await until(() => rig.ads.status().length === 0, "all are gone");
  client.close();
});

Deno.test("AdsService measures pushes under the names and buckets that dashboards read (CP-022, CP-025)", async () => {
  await using rig = await ControlRig.start();
  rig.mesh.set(ADDRESS_TYPE_URL, resource("w1", "1"));
  assertStringIncludes(rig.metrics.render(), "\npilot_xds 0\n");
  await using it = new ClientRig(rig, await rig.token());
  await it.ready();
  rig.ads.push(
    [{ typeUrl: ADDRESS_TYPE_URL, updated: [resource("w1", "2")], removed: [] }],
    performance.now() - 6_000,
  );
  await until(() => it.state.held.get("address/w1")![0] === "2".charCodeAt(0), "the change");
  rig.ads.pushAll();
  const text = rig.metrics.render();
  for (
    const line of [
      'pilot_xds{version=""} 1',
      'pilot_xds_pushes{type="wds"} 2',
      'pilot_push_triggers{type="ambient"} 1',
      'pilot_push_triggers{type="debug"} 1',
      'pilot_proxy_convergence_time_bucket{le="0.1"} 0',
      'pilot_proxy_convergence_time_bucket{le="5"} 0',
      'pilot_proxy_convergence_time_bucket{le="30"} 1',
      "pilot_proxy_queue_time_count 1",
      'pilot_xds_push_time_count{type="wds"} 2',
      'pilot_xds_config_size_bytes_bucket{type="wds",le="10000"} 2',
      "pilot_total_xds_internal_errors 0",
      "pilot_xds_write_timeout 0",
    ]
  ) assertStringIncludes(text, `\n${line}\n`);
  assert(/\npilot_xds_send_time_bucket\{le="0.01"\} \d/.test(text) && /\npilot_xds_recv_max [1-9]/.test(text));
});

Deno.test("a push that breaks on one stream ends that one with INTERNAL, and the others have it (CP-022, CP-400)", async () => {
  await using rig = await ControlRig.start();
  rig.mesh.set(ADDRESS_TYPE_URL, resource("w1", "1"));
  const token = await rig.token();
  using first = new Stream(rig.client(), headers(token));
  using second = new Stream(rig.client(), headers(token));
  for (const stream of [first, second]) {
    stream.send({ node: NODE, resourceNamesSubscribe: ["*"] });
    await until(() => stream.responses.length === 1, "the first state");
  }
  await until(() => rig.ads.status().every((it) => it.watches[0]!.acknowledgedNonce !== ""), "it is acknowledged");
  let asked = 0;
  const broken = Object.defineProperty(resource("w2", "1"), "bytes", {
    get: () => {
      if (asked++ === 0) throw new Error("made to fail");
      return new Uint8Array(3);
    },
  });
  rig.ads.push([{ typeUrl: ADDRESS_TYPE_URL, updated: [resource("w1", "2"), broken], removed: [] }]);
  await until(() => first.ended !== undefined && second.responses.length === 2, "one ends, one is told");
  assertEquals([first.ended?.code, first.responses.length], [grpc.status.INTERNAL, 1]);
  assertEquals(second.responses[1]!.resources.map(({ name }) => name), ["w1", "w2"]);
  assertEquals(rig.ads.status().length, 1);
  assertStringIncludes(rig.metrics.render(), "pilot_total_xds_internal_errors 1");
  assert(rig.logLines.some((line) => line.includes("xds stream failed") && line.includes("made to fail")));
});
