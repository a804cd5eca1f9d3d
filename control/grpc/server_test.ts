import { Buffer } from "node:buffer";
import http2 from "node:http2";
import tls from "node:tls";
import { assert, assertEquals, assertRejects } from "@std/assert";
import * as grpc from "@grpc/grpc-js";
import { MeshError } from "../../base/errors.ts";
import { until } from "../folder/testing.ts";
import { Metrics } from "../../base/metrics.ts";
import { GrpcMetrics } from "./metrics.ts";
import { GrpcServer } from "./server.ts";
import { LIMITS } from "./testing.ts";

import { ECHO, echo, HOLD, log, raw, Rig } from "./server_testing.ts";

Deno.test("GrpcServer answers over TLS and without, small and large, many at once", async () => {
  await using rig = await Rig.start();
  const secure = rig.client();
  const open = new grpc.Client(`127.0.0.1:${rig.plainPort}`, grpc.credentials.createInsecure());
  for (const client of [secure, open]) {
    assertEquals([await echo(client), await echo(client, 0), await echo(client, 3_000_000)], [5, 0, 3_000_000]);
    const many = await Promise.all(Array.from({ length: 100 }, (_, at) => echo(client, at * 100)));
    assertEquals(many, Array.from({ length: 100 }, (_, at) => at * 100));
    client.close();
  }
  assertEquals([rig.calls[0]!.peer.host, rig.calls[0]!.peer.certificate], ["127.0.0.1", undefined]);
});

Deno.test("GrpcServer speaks with the runtime's own HTTP/2, and takes the name h2 alone", async () => {
  await using rig = await Rig.start();
  const session = http2.connect(`https://localhost:${rig.port}`, { ca: rig.authority.material.rootsPem });
  const stream = session.request({ ":method": "POST", ":path": ECHO, "content-type": "application/grpc" });
  const trailers = new Promise((resolve) => stream.on("trailers", resolve));
  let body = 0;
  stream.on("data", (bytes: Uint8Array) => body += bytes.length);
  stream.end(Buffer.from([0, 0, 0, 0, 1, 7]));
  assertEquals([Object.entries(await trailers as object)[0], body], [["grpc-status", "0"], 6]);
  session.close();
  const failed = new Promise((resolve) =>
    tls.connect({
      port: rig.port,
      ca: rig.authority.material.rootsPem,
      ALPNProtocols: ["http/1.1"],
      servername: "localhost",
    })
      .on("error", resolve)
  );
  assert(await failed instanceof Error);
});

Deno.test("GrpcServer.stop() waits for calls for a while, and takes none meanwhile", async () => {
  const rig = await Rig.start(), client = rig.client();
  const call = client.makeBidiStreamRequest(HOLD, raw, raw);
  call.on("error", () => {}).on("data", () => {});
  const status = new Promise<grpc.StatusObject>((resolve) => call.on("status", resolve));
  await until("the call", () => rig.held.length === 1);
  const stopped = rig.server.stop(60_000);
  rig.held[0]!.finish("OK", "");
  assertEquals((await status).code, grpc.status.OK);
  await stopped;
  client.close();
  await rig[Symbol.asyncDispose]();
});

Deno.test("GrpcServer.stop() cuts calls that outlast its patience", async () => {
  await using rig = await Rig.start();
  const client = rig.client(), call = client.makeBidiStreamRequest(HOLD, raw, raw);
  const status = new Promise<grpc.StatusObject>((resolve) => call.on("status", resolve));
  call.on("error", () => {}).on("data", () => {});
  await until("the call", () => rig.held.length === 1);
  await rig.server.stop(50);
  assertEquals([(await status).code === grpc.status.OK, rig.held[0]!.over], [false, true]);
  client.close();
});

Deno.test("GrpcServer.listen() says which address is taken", async () => {
  await using rig = await Rig.start();
  const options = { limits: LIMITS, metrics: new GrpcMetrics(new Metrics(), () => performance.now()), log };
  const second = new GrpcServer(options);
  const error = await assertRejects(() => second.listen({ host: "127.0.0.1", port: rig.port }), MeshError);
  assertEquals([error.code, error.message.includes(`127.0.0.1:${rig.port}`)], ["AMB0220", true]);
});
