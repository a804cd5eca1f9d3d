/** What one HBONE request and response cost in HPACK, and what cutting frames costs per record. Run: deno task bench. */
import { FrameReceiver } from "../../wire/h2/frame_receiver.ts";
import { writeDataHeader } from "../../wire/h2/frame_writers.ts";
import { HpackDecoder } from "../../wire/h2/hpack_decoder.ts";
import { writeConnectBlock, writeResponseBlock } from "../../wire/h2/hpack_encoder.ts";
import { RequestHead, ResponseHead } from "../../wire/h2/request_check.ts";

const AUTHORITY = "10.244.1.17:8080";
const BAGGAGE = "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=cart,service.name=cart," +
  "service.version=v1";
const FORWARDED = 'for="10.244.2.9:41234";host=cart.shop.svc.cluster.local';
const TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

const target = new Uint8Array(1_024);
const request = new Uint8Array(1_024);
const requestEnd = writeConnectBlock(request, 0, AUTHORITY, BAGGAGE, FORWARDED, TRACEPARENT);
const response = new Uint8Array(256);
const responseEnd = writeResponseBlock(response, 0, 200, BAGGAGE);
const decoder = new HpackDecoder(4_096, 16_384);
const requestHead = new RequestHead(16_384), responseHead = new ResponseHead(16_384);

// RFC 7541 Appendix C.6.1: five Huffman strings, each of which goes into the table and evicts another.
const huffman = Uint8Array.from(
  "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3"
    .match(/../g)!,
  (pair) => parseInt(pair, 16),
);
const small = new HpackDecoder(256, 16_384);

Deno.bench("encode CONNECT, five fields", () => {
  writeConnectBlock(target, 0, AUTHORITY, BAGGAGE, FORWARDED, TRACEPARENT);
});

Deno.bench("decode and check CONNECT, five plain fields", () => {
  requestHead.begin();
  decoder.decode(request, 0, requestEnd, requestHead);
  if (requestHead.verdict() !== 200) throw new Error("refused");
});

Deno.bench("decode and check a response with baggage", () => {
  responseHead.begin();
  decoder.decode(response, 0, responseEnd, responseHead);
  if (responseHead.verdict() !== 200) throw new Error("refused");
});

Deno.bench("decode four Huffman fields that evict", () => {
  responseHead.begin();
  small.decode(huffman, 0, huffman.length, responseHead);
});

const RECORD_BYTES = 16_384, RECORDS = 16;
const sink = { onData: () => 0, onDataPiece: () => {}, onDataEnd: () => {}, onFrame: () => 0 };
const receiver = new FrameReceiver(sink, 1 << 20);
const records = new Uint8Array(RECORD_BYTES * RECORDS);
for (let at = 0; at < records.length; at += RECORD_BYTES) writeDataHeader(records, at, 1, RECORD_BYTES - 9, false);

Deno.bench("cut 16 DATA frames of a record each", () => {
  if (receiver.receive(records, 0, records.length) !== 0) throw new Error("refused");
});
