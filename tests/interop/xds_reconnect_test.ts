/** Our ADS client when connections fail or end: reconnects, expired tokens, changed certificates, a hostile server. */
import { Buffer } from "node:buffer";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import * as grpc from "@grpc/grpc-js";
import { Logger } from "../../base/log.ts";
import { Metrics } from "../../base/metrics.ts";
import { ListenerCredentials } from "../../control/grpc/listener_credentials.ts";
import { GrpcMetrics } from "../../control/grpc/metrics.ts";
import { GrpcServer } from "../../control/grpc/server.ts";
import { LIMITS } from "../../control/grpc/testing.ts";
import { makeRequest } from "../../dataplane/agent/workload_certificate.ts";
import { AUTHORIZATION_TYPE_URL } from "../../mesh/proto/authorization_codec.ts";
import { decodeIstioCertificateResponse, encodeIstioCertificateRequest } from "../../mesh/proto/ca_codec.ts";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { ADS_METHOD, CA_METHOD, ControlRig, headers, loopbackClient, raw, SERVER_NAMES, until } from "./control_rig.ts";
import { ClientRig, FAILING, NODE, resource, Stream } from "./xds_rig.ts";

Deno.test(
  "XdsClient reconnects with its versions: only what changed or went comes again, policies first (ZT-126, ZT-133, CP-415, CP-427, CP-659)",
  FAILING,
  async () => {
    await using rig = await ControlRig.start();
    for (let at = 0; at < 20; at++) rig.mesh.set(ADDRESS_TYPE_URL, resource(`w${at}`, "1"));
    rig.mesh.set(AUTHORIZATION_TYPE_URL, resource("ns/p", "1"));
    await using it = new ClientRig(rig, await rig.token());
    await it.ready();
    it.state.refuse = new Set(["w7"]);
    rig.ads.push([{ typeUrl: ADDRESS_TYPE_URL, updated: [resource("w7", "2")], removed: [] }]);
    await until(() => rig.ads.status()[0]!.watches[0]!.lastError !== "", "w7 refused");
    it.state.refuse = new Set();
    await rig.stopServing();
    await until(() => !it.client.connected, "the end of the stream");
    assertEquals(it.state.held.size, 21, "nothing expires while disconnected");
    rig.mesh.set(ADDRESS_TYPE_URL, resource("w3", "2"));
    rig.mesh.types.get(ADDRESS_TYPE_URL)!.delete("w5");
    rig.mesh.types.get(AUTHORIZATION_TYPE_URL)!.delete("ns/p");
    rig.mesh.set(AUTHORIZATION_TYPE_URL, resource("ns/q", "1"));
    const before = it.state.log.length;
    await rig.listen();
    await until(() => it.state.log.length === before + 3, "both types answered again");
    // What names the new policy comes after it, and the old one goes once nothing names it.
    const expected = ["policy [ns/q@1] -[]", "address [w3@2 w7@1] -[w5]", "policy [] -[ns/p]"];
    assertEquals(it.state.log.slice(before), expected);
    assert(it.terminations.length >= 1);
  },
);

Deno.test("XdsClient goes on trying while nothing listens, with growing pauses (ZT-132)", FAILING, async () => {
  await using rig = await ControlRig.start();
  const token = await rig.token();
  await rig.stopServing();
  await using it = new ClientRig(rig, token);
  await until(() => it.terminations.length >= 3, "three failures");
  assertEquals(new Set(it.terminations), new Set(["ConnectionError"]));
  assertStringIncludes(it.lines.find((line) => line.includes("xds connection lost"))!, "retryMs=20");
  await rig.listen();
  await it.ready();
});

Deno.test("XdsClient does not connect to a server that another CA vouches for", FAILING, async () => {
  await using rig = await ControlRig.start();
  await using other = await ControlRig.start();
  await Deno.copyFile(`${other.stateDir}/root.pem`, `${rig.stateDir}/root.pem`);
  await using it = new ClientRig(rig, await rig.token());
  await until(() => it.terminations.length >= 1, "a refusal");
  assertEquals([it.terminations[0], it.state.log], ["ConnectionError", []]);
});

Deno.test(
  "AdsService ends connections at their age: whose token has expired meanwhile does not come back (CP-009, CP-433)",
  FAILING,
  async () => {
    await using rig = await ControlRig.start({ connectionAgeMs: 1_500 });
    rig.mesh.set(ADDRESS_TYPE_URL, resource("w1", "1"));
    await using lasting = new ClientRig(rig, await rig.token());
    await using brief = new ClientRig(rig, await rig.token({}, { ttlMs: 120_000 }));
    await Promise.all([lasting.ready(), brief.ready()]);
    rig.tokensAheadMs = 120_000;
    await until(() => brief.lines.some((line) => line.includes("UNAUTHENTICATED")), "the expired token is refused");
    await until(() => lasting.client.connected && lasting.state.log.length >= 4, "the good one is back");
    assertEquals(brief.state.held.size, 1, "and what is held stays held");
    assert(!lasting.lines.some((line) => line.includes("UNAUTHENTICATED")));
  },
);

Deno.test(
  "ListenerCredentials.update() changes certificate and roots for new handshakes, and keeps streams that stand (CP-006)",
  FAILING,
  async () => {
    await using rig = await ControlRig.start();
    await using other = await ControlRig.start();
    const token = await rig.token();
    await using standing = new ClientRig(rig, token);
    await standing.ready();
    const certificate = await other.authority.issueServer(SERVER_NAMES);
    rig.credentials.update({ ...certificate, rootsPem: other.authority.material.rootsPem });
    await using late = new ClientRig(rig, token);
    await until(() => late.terminations.length > 0, "who trusts the old root alone is out");
    await Deno.writeTextFile(`${rig.stateDir}/root.pem`, other.authority.material.rootsPem);
    await late.ready(); // Roots are read anew on each try (ZT-124).
    const identity = "spiffe://cluster.local/ns/istio-system/sa/ztunnel";
    const { privateKeyPem, publicKey } = await makeRequest(identity);
    const leaf = await other.authority.issueWorkload(publicKey.slice(), {
      identities: [identity],
      ttlMs: 600_000,
      withCommonName: false,
    });
    const roots = Buffer.from(other.authority.material.rootsPem);
    const tls = grpc.credentials.createSsl(roots, Buffer.from(privateKeyPem), Buffer.from(leaf.pem));
    const client = loopbackClient(rig.port, tls);
    using stream = new Stream(client, headers(undefined));
    stream.send({ node: NODE });
    await until(() => stream.responses.length === 1, "a client certificate of the new root is taken");
    assertEquals([standing.client.connected, standing.terminations], [true, []]);
  },
);

Deno.test(
  "XdsClient survives a server that sends anything but responses, without a tight loop (ZT-132)",
  FAILING,
  async () => {
    await using rig = await ControlRig.start();
    let opened = 0;
    const log = new Logger("hostile", { sink: () => {} }), now = () => performance.now();
    const hostile = new GrpcServer({ limits: LIMITS, metrics: new GrpcMetrics(new Metrics(), now), log });
    hostile.add({
      path: ADS_METHOD,
      kind: "bidi_stream",
      messageBytesMax: 1_000_000,
      serve(call) {
        opened++;
        call.start({ onMessage: () => {}, onHalfClosed: () => {} });
        call.send([Uint8Array.from(opened % 2 === 0 ? [0x0a, 0xff, 0xff, 0xff] : [0x12, 0x02, 0x1a, 0x00])], () => {});
      },
    });
    const certificate = await rig.authority.issueServer(SERVER_NAMES);
    const credentials = new ListenerCredentials({ ...certificate, rootsPem: rig.authority.material.rootsPem });
    await rig.stopServing();
    rig.port = await hostile.listen({ host: "127.0.0.1", port: 0 }, credentials);
    {
      await using it = new ClientRig(rig, await rig.token());
      await until(() => opened >= 4, "four tries");
      assertEquals([it.state.log, new Set(it.terminations)], [[], new Set(["Error"])]);
      const pauses = it.lines.map((line) => /retryMs=(\d+)/.exec(line)?.[1]).filter((pause) => pause !== undefined);
      assertEquals(pauses.slice(0, 3), ["20", "40", "80"]);
    }
    await hostile.stop(0);
  },
);

Deno.test(
  "AdsService and the CA take a client certificate of the mesh instead of a token (CP-430, CP-477)",
  FAILING,
  async () => {
    await using rig = await ControlRig.start();
    const identity = "spiffe://cluster.local/ns/istio-system/sa/ztunnel";
    const request = await makeRequest(identity);
    const encoded = Buffer.from(encodeIstioCertificateRequest({ csr: request.csrPem, validitySeconds: 600 }));
    const call = (client: grpc.Client, metadata: grpc.Metadata) =>
      new Promise<Buffer>((resolve, reject) =>
        client.makeUnaryRequest(
          CA_METHOD,
          raw,
          raw,
          encoded,
          metadata,
          (error, value) => error === null ? resolve(value!) : reject(error),
        )
      );
    const plain = rig.client();
    const chain = decodeIstioCertificateResponse(await call(plain, headers(await rig.token()))).certChain;
    plain.close();
    using stream = new Stream(rig.client({ chainPem: chain[0]!, keyPem: request.privateKeyPem }), headers(undefined));
    stream.send({ node: NODE });
    await until(() => stream.responses.length === 1, "served by certificate alone");
    const renewed = decodeIstioCertificateResponse(await call(stream.client, headers(undefined))).certChain;
    assertEquals(renewed.length, 2);
    await using other = await ControlRig.start(); // The same names, but another root.
    using stranger = new Stream(
      other.client({ chainPem: chain[0]!, keyPem: request.privateKeyPem }),
      headers(undefined),
    );
    stranger.send({ node: NODE });
    await until(() => stranger.ended !== undefined, "a certificate of another root ends the connection (CP-003)");
    assertEquals([stranger.ended!.code, stranger.responses.length], [grpc.status.UNAVAILABLE, 0]);
  },
);
