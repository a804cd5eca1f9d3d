/** Fuzzed: what peers send in bytes. HTTP/2, HPACK, protobuf, DNS, ZDS, SOCKS, the PROXY header. */
import { equal } from "@std/assert";
import { policyOf, serviceOf, workloadOf } from "../../dataplane/tables/testing.ts";
import { FrameReceiver } from "../../wire/h2/frame_receiver.ts";
import { decodeAuthorization, encodeAuthorization } from "../../mesh/proto/authorization_codec.ts";
import * as ca from "../../mesh/proto/ca_codec.ts";
import * as discovery from "../../mesh/proto/discovery_codec.ts";
import { WireFormatError } from "../../mesh/proto/wire_format_error.ts";
import { decodeAddress, encodeServiceAddress, encodeWorkloadAddress } from "../../mesh/proto/workload_codec.ts";
import * as zds from "../../mesh/proto/zds_codec.ts";
import { readQuery, readResponse, secondsToKeep } from "../../wire/dns/message.ts";
import { answerBytesMax, writeForwarded, writeOwnAnswer, writeRefusal } from "../../wire/dns/message_writer.ts";
import { HpackDecoder } from "../../wire/h2/hpack_decoder.ts";
import { RequestHead, ResponseHead } from "../../wire/h2/request_check.ts";
import { EVERY_KIND_OF_FRAME, hex, joined } from "../../wire/h2/testing.ts";
import { proxyHeaderBytesMax, writeProxyHeader } from "../../wire/proxy_protocol.ts";
import * as socks from "../../wire/socks5.ts";
import { latin1, promise, shapeOf, size, sort, type Target } from "./target.ts";

const PAYLOAD_BYTES_MAX = 16_384, LIST_BYTES_MAX = 16_384, TABLE_BYTES_MAX = 4_096;

/** Frames as lines, and where DATA went. */
function frames(input: Uint8Array, cut: number): { result: number; kinds: string; lines: string[] } {
  const lines: string[] = [], kinds = new Set<number | string>();
  let piece = 0;
  const receiver = new FrameReceiver({
    onData: (streamId, bytes) => (kinds.add("d"), lines.push(`data ${streamId} ${bytes}`), 0),
    onDataPiece: (_, bytes) => piece += bytes,
    onDataEnd: (end, padding) => {
      lines.push(`end ${end} ${padding} ${piece}`);
      piece = 0;
    },
    onFrame: (type, flags, streamId, bytes, start, end) => {
      promise(start <= end && end <= bytes.length, "a payload lies within what it is borrowed from");
      kinds.add(Math.min(type, 10)); // 0 to 9 are the known ones
      lines.push(`${type} ${flags} ${streamId} ${latin1(bytes.subarray(start, end))}`);
      return 0;
    },
  }, PAYLOAD_BYTES_MAX);
  let result = receiver.receive(input, 0, Math.min(cut, input.length));
  if (result === 0 && cut < input.length) result = receiver.receive(input, cut, input.length);
  return { result, kinds: [...kinds].sort().join(), lines };
}

const FRAMES: Target = {
  name: "h2-frames",
  seeds: [...EVERY_KIND_OF_FRAME, joined(...EVERY_KIND_OF_FRAME)],
  bytesMax: 4_096,
  run(input) {
    const whole = frames(input, input.length);
    promise(whole.result >= 0 && whole.result <= 0xd, `a result is an error of RFC 9113 §7, not ${whole.result}`);
    for (const cut of [1, 9, input.length >> 1, input.length - 1]) {
      const parts = frames(input, Math.max(0, cut));
      promise(parts.result === whole.result && equal(parts.lines, whole.lines), "a cut changes nothing");
    }
    return `${whole.result} ${whole.kinds}`;
  },
};

const PREFACE_AND_HEADERS = [
  "8286418cf1e3c2e5f23a6ba0ab90f4ff",
  "88c16196d07abe941054d444a8200595040b8166e084a62d1bff",
  "3fe11f02074f434f4e4e45435401056 13a383030",
  "0207434f4e4e4543540109 31302e302e302e313a3830 7e 01 31 be bf",
  "00 07 62616767616765 03 613d62 40 09 666f72776172646564 07 666f723d78 78",
];

const HPACK: Target = {
  name: "hpack",
  seeds: PREFACE_AND_HEADERS.map((text) => hex(text.replaceAll(" ", "").padEnd(2 * Math.ceil(text.length / 2), "0"))),
  bytesMax: 2_048,
  run(input) {
    const decoder = new HpackDecoder(TABLE_BYTES_MAX, LIST_BYTES_MAX), request = new RequestHead(LIST_BYTES_MAX);
    request.begin();
    const result = decoder.decode(input, 0, input.length, request);
    promise(decoder.tableBytes <= TABLE_BYTES_MAX, "the table keeps its bound");
    const response = new ResponseHead(LIST_BYTES_MAX);
    response.begin();
    new HpackDecoder(TABLE_BYTES_MAX, LIST_BYTES_MAX).decode(input, 0, input.length, response);
    const kept = request.authorityEnd - request.authorityStart + request.forwardedEnd - request.forwardedStart;
    promise(kept >= 0 && kept <= LIST_BYTES_MAX, "what is kept of a head keeps its bound");
    return `${result} ${request.verdict()} ${response.verdict()} ${size(kept)} ${size(decoder.tableBytes)}`;
  },
};

/** A decoder of messages: takes them, and then what it took can be written and read as the same, or refuses them. */
function codec<T>(
  name: string,
  seeds: readonly Uint8Array[],
  decode: (bytes: Uint8Array) => T,
  encode?: (value: T) => Uint8Array,
): Target {
  return {
    name,
    seeds,
    bytesMax: 4_096,
    run(input) {
      let value: T;
      try {
        value = decode(input);
      } catch (error) {
        if (!(error instanceof WireFormatError)) throw error;
        return sort(error.message);
      }
      if (encode !== undefined) {
        const again = decode(encode(value));
        promise(equal(again, value), "what was taken is the same when written and read");
      }
      return `taken ${shapeOf(value)}`;
    },
  };
}

const WORKLOAD = workloadOf("cluster//Pod/ns/name", {
  addresses: [[0, 0, 0xffff, 0x0a000001], [0xfd000000, 0, 0, 1]],
  tunnelProtocol: 1,
  services: new Map([["ns/web.ns.svc", [{ servicePort: 80, targetPort: 8080 }]]]),
  authorizationPolicies: ["ns/deny"],
  canonicalName: "web",
  node: "node",
});
const SERVICE = serviceOf("ns", "web.ns.svc", {
  addresses: [{ network: "", ip: [0, 0, 0xffff, 0x0a600001] }],
  ports: [{ servicePort: 80, targetPort: 8080 }],
});
const POLICY = policyOf("ns/deny", {});
const REQUEST: discovery.DeltaDiscoveryRequest = {
  node: { id: "ztunnel", metadata: { NODE_NAME: "node", LABELS: { a: "b" } } },
  typeUrl: "type.googleapis.com/istio.workload.Address",
  resourceNamesSubscribe: ["*"],
  resourceNamesUnsubscribe: ["old"],
  initialResourceVersions: new Map([["a", "1"]]),
  responseNonce: "n1",
  errorDetail: { code: 3, message: "no" },
};
const RESPONSE: discovery.DeltaDiscoveryResponse = {
  systemVersionInfo: "v",
  resources: [{
    name: "a",
    version: "1",
    aliases: ["b"],
    typeUrl: REQUEST.typeUrl,
    bytes: encodeWorkloadAddress(WORKLOAD),
  }],
  typeUrl: REQUEST.typeUrl,
  nonce: "n1",
  removedResources: ["gone"],
  controlPlane: "{}",
};

const PROTOBUF: readonly Target[] = [
  codec("proto-address", [encodeWorkloadAddress(WORKLOAD), encodeServiceAddress(SERVICE)], decodeAddress),
  codec(
    "proto-authorization",
    [encodeAuthorization(POLICY)],
    (bytes) => decodeAuthorization(bytes, "ns/deny"),
    encodeAuthorization,
  ),
  codec(
    "proto-discovery-request",
    [discovery.encodeDeltaDiscoveryRequest(REQUEST)],
    discovery.decodeDeltaDiscoveryRequest,
  ),
  codec(
    "proto-discovery-response",
    [discovery.encodeDeltaDiscoveryResponse(RESPONSE)],
    discovery.decodeDeltaDiscoveryResponse,
  ),
  codec(
    "proto-certificate-request",
    [ca.encodeIstioCertificateRequest(
      { csr: "PEM", validitySeconds: 60, metadata: { ImpersonatedIdentity: "spiffe://a" } },
    )],
    ca.decodeIstioCertificateRequest,
  ),
  codec(
    "proto-certificate-response",
    [ca.encodeIstioCertificateResponse({ certChain: ["one", "two"] })],
    ca.decodeIstioCertificateResponse,
    ca.encodeIstioCertificateResponse,
  ),
];

const ZDS: readonly Target[] = [
  codec("zds-hello", [zds.encodeZdsHello({ version: 1 })], zds.decodeZdsHello, zds.encodeZdsHello),
  codec(
    "zds-request",
    [
      zds.encodeZdsRequest(
        { kind: "add", uid: "uid", workload: { name: "n", namespace: "ns", serviceAccount: "sa" } },
      ),
      zds.encodeZdsRequest({ kind: "delete", uid: "uid" }),
      hex("1a00"),
    ],
    zds.decodeZdsRequest,
  ),
  codec("zds-acknowledgement", [hex("0a00"), hex("0a040a026e6f")], zds.decodeZdsAcknowledgement),
];

const QUERY = hex(
  "0007 0100 0001 0000 0000 0001 03776562 0473686f70 076578616d706c65 00 0001 0001 00 0029 04d0 0000 8000 0000",
);
const ANSWER = hex(
  "0007 8180 0001 0002 0000 0000 03776562 0473686f70 076578616d706c65 00 0001 0001 c00c 0005 0001 0000012c 0007 056f74686572c015 " +
    "c02d 0001 0001 0000012c 0004 c0000201",
);

const DNS: readonly Target[] = [
  {
    name: "dns-query",
    seeds: [QUERY],
    bytesMax: 1_024,
    run(input) {
      const received = readQuery(input);
      if (received.kind === "ignore") return "ignored";
      if (received.kind === "refuse") {
        promise(writeRefusal(received, received.code).length >= 12, "a refusal is a message");
        return `refused ${received.code}`;
      }
      const { query } = received, bytesMax = answerBytesMax(query, true);
      const addresses = Array.from({ length: 40 }, () => [0, 0, 0xffff, 1] as const);
      const answer = writeOwnAnswer(
        query,
        { name: query.name ?? "x", alias: "a.b", addresses, ttlSeconds: 30 },
        bytesMax,
      );
      promise(answer.length <= bytesMax, "an answer keeps the client's bound");
      promise(readResponse(answer, query.id, query.question)?.code === 0, "our answer can be read");
      return `query ${query.name === undefined} ${bytesMax > 512}`;
    },
  },
  {
    name: "dns-response",
    seeds: [ANSWER],
    bytesMax: 1_024,
    run(input) {
      const received = readQuery(QUERY);
      promise(received.kind === "query", "the query is one");
      const { query } = received, response = readResponse(input, query.id, query.question);
      if (response === undefined) return "refused";
      promise(secondsToKeep(input, response) >= 0, "a life is not negative");
      const answer = writeForwarded(query, { bytes: input, response }, { bytesMax: 512, ageSeconds: 10 });
      promise(answer.length <= 512, "what is passed on keeps the client's bound");
      promise(readResponse(answer, query.id, query.question) !== undefined, "what is passed on can be read");
      return `passed on ${response.code === 0} ${response.truncated} ${size(response.records.length)}`;
    },
  },
];

const SOCKS: Target = {
  name: "socks5",
  seeds: [
    hex("050100"),
    hex("05020001"),
    hex("05010001 0a000001 1f90"),
    hex("05010003 03 776562 0050"),
    hex("05010004 fd000000000000000000000000000001 0050"),
  ],
  bytesMax: 600,
  run(input) {
    const words: (string | number)[] = [];
    for (const length of [socks.greetingBytes, socks.requestBytes]) {
      const whole = length(input, input.length);
      promise(whole > 0 && whole <= socks.SOCKS_MESSAGE_BYTES_MAX, `a message has an end: ${whole}`);
      for (let have = 0; have < Math.min(input.length, whole); have++) {
        promise(length(input, have) <= whole, "never more is asked for than is certain");
      }
      if (whole > input.length) words.push("more");
      else if (length === socks.greetingBytes) words.push(socks.checkGreeting(input, whole));
      else {
        const target = new Uint32Array(5), reply = socks.readRequest(input, whole, target);
        words.push(reply, reply === 0 && socks.requestName(input) !== undefined ? "name" : "address");
      }
    }
    return words.join(" ");
  },
};

const PROXY_SIGNATURE = "0d0a0d0a000d0a515549540a";

/** The header that applications are told by: whatever the identity, a reader by the letter of the protocol finds it again. */
const PROXY: Target = {
  name: "proxy-header",
  seeds: [
    hex(`${"0a000001".repeat(2)}1f900050`),
    new TextEncoder().encode("12345678abcdspiffe://cluster.local/ns/a/sa/b"),
  ],
  bytesMax: 70_000,
  run(input) {
    const view = new DataView(new ArrayBuffer(12));
    input.subarray(0, 12).forEach((byte, at) => view.setUint8(at, byte));
    const v6 = (view.getUint8(0) & 1) === 1, identity = latin1(input.subarray(12).map((byte) => byte & 0x7f));
    const ip = (number: number): [number, number, number, number] =>
      v6 ? [0xfd000000, 0, 0, number] : [0, 0, 0xffff, number];
    const source = { ip: ip(view.getUint32(0)), port: view.getUint16(8) };
    const destination = { ip: ip(view.getUint32(4)), port: view.getUint16(10) };
    const target = new Uint8Array(proxyHeaderBytesMax(identity.length));
    const length = writeProxyHeader(target, source, destination, identity);
    if (length < 0) return "too long";
    const header = target.subarray(0, length), body = new DataView(target.buffer, 16, length - 16);
    promise(latin1(header.subarray(0, 12)) === latin1(hex(PROXY_SIGNATURE)), "it begins with the signature");
    promise(body.byteLength === (header[14]! << 8 | header[15]!), "its length is what follows");
    let at = v6 ? 36 : 12, found = "";
    while (at < body.byteLength) {
      promise(at + 3 <= body.byteLength, "a value has a head");
      const type = body.getUint8(at), bytes = body.getUint16(at + 1);
      promise(at + 3 + bytes <= body.byteLength, "a value ends within the header");
      if (type >= 0xd0) found = latin1(header.subarray(16 + at + 3, 16 + at + 3 + bytes));
      at += 3 + bytes;
    }
    promise(found === identity, "the identity is found again");
    return `${v6} ${size(identity.length)}`;
  },
};

export const BINARY_TARGETS: readonly Target[] = [FRAMES, HPACK, ...PROTOBUF, ...ZDS, ...DNS, SOCKS, PROXY];
