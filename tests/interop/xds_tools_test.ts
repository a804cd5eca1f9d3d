/** What tools ask over ADS, on both of its methods and both listeners; and data planes over plaintext. */
import { assertEquals } from "@std/assert";
import { Buffer } from "node:buffer";
import * as grpc from "@grpc/grpc-js";
import {
  decodeDiscoveryResponse,
  type DiscoveryRequest,
  type DiscoveryResponse,
  encodeDiscoveryRequest,
} from "../../mesh/proto/sotw_codec.ts";
import { ADDRESS_TYPE_URL, encodeWorkloadAddress } from "../../mesh/proto/workload_codec.ts";
import { workload } from "../../mesh/testing.ts";
import { WORKLOAD_TYPE_URL } from "../../control/xds/resources.ts";
import { ControlRig, headers, raw, until } from "./control_rig.ts";
import { NODE, Stream } from "./xds_rig.ts";

const STREAM_METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const PAGE = "istio.io/debug";
/** As Istio's own tool says who it is. */
const TOOL = {
  id: "sidecar~10.0.0.7~test-1.default~default.svc.cluster.local",
  metadata: { NAMESPACE: "istio-system" },
};

/** A stream of a tool, which acknowledges whatever it is told. */
class ToolStream implements Disposable {
  readonly responses: DiscoveryResponse[] = [];
  readonly client: grpc.Client;
  readonly call: grpc.ClientDuplexStream<Buffer, Buffer>;
  ended: grpc.StatusObject | undefined;

  constructor(client: grpc.Client, metadata: grpc.Metadata) {
    this.client = client;
    this.call = client.makeBidiStreamRequest(STREAM_METHOD, raw, raw, metadata);
    this.call.on("data", (bytes: Buffer) => {
      const response = decodeDiscoveryResponse(bytes);
      this.responses.push(response);
      this.send({ typeUrl: response.typeUrl, responseNonce: response.nonce });
    });
    this.call.on("error", () => {}); // Told again as the status.
    this.call.on("status", (status) => this.ended = status);
  }

  send(part: Partial<DiscoveryRequest>): void {
    this.call.write(
      Buffer.from(encodeDiscoveryRequest({ typeUrl: PAGE, resourceNames: [], responseNonce: "", ...part })),
    );
  }

  texts(): string[] {
    return this.responses.flatMap(({ resources }) => resources.map(({ bytes }) => new TextDecoder().decode(bytes)));
  }

  [Symbol.dispose](): void {
    this.call.cancel();
    this.client.close();
  }
}

Deno.test("a tool gets a debug page over ADS, once for each request, and its acknowledgement is no request (CP-021)", async () => {
  await using rig = await ControlRig.start();
  using tool = new ToolStream(rig.client(), headers(await rig.token()));
  tool.send({ node: TOOL, resourceNames: ["syncz?pretty"], responseNonce: "2026-01-01 00:00:00" });
  await until(() => tool.responses.length === 1, "the page");
  const [response] = tool.responses;
  assertEquals(tool.texts(), ["page syncz?pretty"]);
  assertEquals([response!.typeUrl, response!.resources[0]!.typeUrl], [PAGE, PAGE]);
  assertEquals(response!.controlPlane, "{}", "tools read the version from it");
  tool.send({ typeUrl: ADDRESS_TYPE_URL }); // Not a type of this method: left unanswered (CP-413).
  tool.send({ resourceNames: ["adsz"], responseNonce: "stale" });
  tool.send({ resourceNames: ["mesh"], responseNonce: response!.nonce });
  tool.send({ typeUrl: `${PAGE}/syncz` });
  await until(() => tool.responses.length === 3, "two more answers");
  assertEquals(tool.responses.map(({ typeUrl }) => typeUrl), [PAGE, PAGE, `${PAGE}/syncz`]);
  assertEquals(tool.texts(), ["page syncz?pretty", "page mesh"]);
});

Deno.test("a data plane may ask for debug types among its own, on its delta stream (CP-021)", async () => {
  await using rig = await ControlRig.start();
  using stream = new Stream(rig.client(), headers(await rig.token()));
  stream.send({ node: NODE, typeUrl: PAGE, resourceNamesSubscribe: ["connections"] });
  stream.send({});
  await until(() => stream.responses.length === 2, "both answers");
  const [page] = stream.responses.filter(({ typeUrl }) => typeUrl === PAGE);
  assertEquals(page!.resources.map(({ name, bytes }) => [name, new TextDecoder().decode(bytes)]), [
    ["connections", "page connections"],
  ]);
  stream.send({ typeUrl: PAGE, resourceNamesSubscribe: ["mesh"] });
  await until(() => stream.responses.length === 3, "the second page");
  assertEquals(stream.ended, undefined);
});

Deno.test("debug types are refused with a reason where the caller may not have them, or asks for nothing (CP-017, CP-021)", async () => {
  await using rig = await ControlRig.start();
  const shop = headers(await rig.token({ namespace: "shop", serviceAccount: "cart", pod: "cart-1" }));
  const node = { ...TOOL, metadata: { NAMESPACE: "shop" } };
  const system = headers(await rig.token());
  const cases: [string, grpc.Metadata, Partial<DiscoveryRequest>, grpc.status][] = [
    ["a page of the mesh", shop, { node, resourceNames: ["syncz"] }, grpc.status.PERMISSION_DENIED],
    ["no name", system, { node: TOOL }, grpc.status.INVALID_ARGUMENT],
    ["two names", system, { node: TOOL, resourceNames: ["a", "b"] }, grpc.status.INVALID_ARGUMENT],
    ["no node", system, { resourceNames: ["a"] }, grpc.status.INVALID_ARGUMENT],
    ["another namespace's node", system, { node, resourceNames: ["a"] }, grpc.status.PERMISSION_DENIED],
    ["no credentials", headers(undefined), { node: TOOL, resourceNames: ["a"] }, grpc.status.UNAUTHENTICATED],
  ];
  for (const [what, metadata, request, status] of cases) {
    using tool = new ToolStream(rig.client(), metadata);
    tool.send(request);
    await until(() => tool.ended !== undefined, what);
    assertEquals([what, tool.ended!.code, tool.responses.length], [what, status, 0]);
  }
  using own = new ToolStream(rig.client(), shop);
  own.send({ node, resourceNames: ["edsz?proxyID=cart-1.shop"] });
  await until(() => own.responses.length === 1, "a page of its own namespace's proxies");
});

Deno.test("over plaintext nobody is asked who he is, and tools of this machine are told what HTTP would tell them (CP-016, CP-430)", async () => {
  await using rig = await ControlRig.start();
  rig.mesh.set(ADDRESS_TYPE_URL, {
    name: "w1",
    aliases: [],
    version: "1",
    bytes: encodeWorkloadAddress(workload("w1", "10.0.0.1")),
  });
  using stream = new Stream(rig.plainClient(), headers(undefined));
  stream.send({ node: { id: "ztunnel~1~p.shop~d", metadata: {} } });
  stream.send({ typeUrl: WORKLOAD_TYPE_URL });
  await until(() => stream.responses.length === 2, "both types");
  assertEquals(stream.responses.map(({ resources }) => resources.map(({ name }) => name)), [["w1"], ["w1"]]);
  using tool = new ToolStream(rig.plainClient(), headers(undefined));
  tool.send({ node: TOOL, resourceNames: ["syncz"] });
  await until(() => tool.responses.length === 1, "the page");
});
