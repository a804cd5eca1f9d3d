/** The clients of `streams.ts`: streams with a connection each, which acknowledge what they get and note when. */
import { Buffer } from "node:buffer";
import protobuf from "protobufjs/minimal";
import * as grpc from "@grpc/grpc-js";
import { encodeDeltaDiscoveryRequest } from "../../mesh/proto/discovery_codec.ts";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { ADS_METHOD, headers, raw, until } from "../../tests/interop/control_rig.ts";
import { NODE } from "../../tests/interop/xds_rig.ts";

interface Client {
  readonly client: grpc.Client;
  readonly call: grpc.ClientDuplexStream<Buffer, Buffer>;
}

const deaf: Client[] = [];
let clients: Client[] = [], heardAtMs: number[] = [], options: Record<string, string | number> = {};

/** The nonce alone: clients must not be slower than who is measured. */
function nonceOf(bytes: Uint8Array): string {
  const reader = new protobuf.Reader(bytes);
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag >>> 3 === 5) return reader.string();
    reader.skipType(tag & 7);
  }
  return "";
}

function open(versions: ReadonlyMap<string, string>, reads = true): void {
  const client = new grpc.Client(
    `localhost:${options.port}`,
    grpc.credentials.createSsl(Buffer.from(String(options.roots))),
    { "grpc.use_local_subchannel_pool": 1, "grpc.max_receive_message_length": -1 },
  );
  const call = client.makeBidiStreamRequest(ADS_METHOD, raw, raw, headers(String(options.token)));
  const send = (part: object) =>
    call.write(Buffer.from(encodeDeltaDiscoveryRequest({
      typeUrl: ADDRESS_TYPE_URL,
      resourceNamesSubscribe: [],
      resourceNamesUnsubscribe: [],
      initialResourceVersions: new Map(),
      responseNonce: "",
      ...part,
    })));
  const onData = (bytes: Buffer) => {
    heardAtMs.push(performance.timeOrigin + performance.now());
    send({ responseNonce: nonceOf(bytes) });
  };
  if (reads) call.on("data", onData);
  call.on("error", () => {}); // The end of all: who counts answers notices one that is missing.
  send({ node: NODE, initialResourceVersions: versions });
  (reads ? clients : deaf).push({ client, call });
}

async function openAll(versions: ReadonlyMap<string, string>): Promise<number> {
  const startMs = performance.now();
  heardAtMs = [];
  for (let at = 0; at < Number(options.open); at++) open(versions);
  await until(() => heardAtMs.length >= Number(options.open), "the first answers", 300_000);
  return Math.round(performance.now() - startMs);
}

function close(): void {
  for (const { call, client } of clients) {
    call.cancel();
    client.close();
    for (const { call, client } of deaf) {
      call.cancel();
      client.close();
    }
  }
  clients = [];
}

async function answer(question: Record<string, string | number>): Promise<object> {
  if (question.open !== undefined) {
    options = question;
    for (let at = 0; at < Number(options.deaf ?? 0); at++) open(new Map(), false);
    return { ms: await openAll(new Map()) };
  }
  if (question.reopen !== undefined) {
    close();
    for (const { call, client } of deaf) {
      call.cancel();
      client.close();
    }
    const versions = new Map<string, string>();
    for (let at = 0; at < Number(options.resources); at++) versions.set(`Kubernetes//Pod/ns/pod-${at}`, "1");
    return { ms: await openAll(versions) };
  }
  if (question.close !== undefined) {
    close();
    for (const { call, client } of deaf) {
      call.cancel();
      client.close();
    }
    return {};
  }
  if (question.arm !== undefined) {
    heardAtMs = [];
    return {};
  }
  await until(() => heardAtMs.length >= clients.length, "the push", 60_000);
  const sorted = heardAtMs.toSorted((one, other) => one - other);
  return { first: sorted[0], median: sorted[sorted.length >> 1], last: sorted.at(-1) };
}

let rest = "";
for await (const chunk of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + chunk).split("\n");
  rest = lines.pop() ?? "";
  for (const line of lines) {
    const text = JSON.stringify(await answer(JSON.parse(line)));
    Deno.stdout.writeSync(new TextEncoder().encode(`${text}\n`));
  }
}
close();
for (const { call, client } of deaf) {
  call.cancel();
  client.close();
}
