/** Codec of istio.workload.zds (zds.proto): how the CNI agent tells ztunnel of pods (ZT-162, ZT-163, CNI-242). */
import { assert } from "../../base/assert.ts";
import { type MessageReader, readMessage, skipAll } from "./message_reader.ts";
import { MessageWriter, writeNothing } from "./message_writer.ts";
import { WireFormatError } from "./wire_format_error.ts";

/** One message is one packet of at most this size, either way (CNI-241). */
export const ZDS_PACKET_BYTES_MAX = 1024;
/** What is left of an error text in an acknowledgement, so that the packet stays within its limit (CNI-241). */
export const ZDS_ERROR_BYTES_MAX = 900;

export const ZdsVersion = { NOT_USED: 0, V1: 1 } as const;

export interface ZdsHello {
  /** As sent; the receiver judges which it knows. */
  readonly version: number;
  /** Bits of {@link ZdsFeature}: what this ztunnel can beyond Istio's protocol. Istio's has none. */
  readonly features?: number;
}

/**
 * SHARED_NETNS: it serves several workloads in one network namespace (CNI-275). KEPT_SOCKETS: it gives the sockets that it
 * listens on to the agent, and takes them back after a crash. SHARED_DNS: it serves DNS to those of SHARED_NETNS, too.
 */
export const ZdsFeature = { SHARED_NETNS: 1, KEPT_SOCKETS: 2, SHARED_DNS: 4 } as const;

export interface ZdsWorkload {
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** How a workload is told from others in the same network namespace. Ours alone: never sent to a ztunnel that lacks the feature. */
export interface SharedNetns {
  /** Where it takes, on loopback, what the workload sends. */
  readonly outboundPort: number;
  /** Where it takes what comes to the workload without HBONE. */
  readonly plaintextPort: number;
  /** What the workload serves, and nothing else of the host. */
  readonly inboundPorts: readonly number[];
  /** Where HBONE comes for it; empty: at every address of the host. */
  readonly address: string;
  /** Where it takes, on loopback, the workload's DNS queries; 0: they are not captured. Never sent to one without SHARED_DNS. */
  readonly dnsPort: number;
}

/** What the agent asks; the network namespace of `add` travels beside the packet, as SCM_RIGHTS. */
export type ZdsRequest =
  /** `workload` is mandatory; its absence is the receiver's to refuse (ZT-164). */
  | {
    readonly kind: "add";
    readonly uid: string;
    readonly workload: ZdsWorkload | undefined;
    readonly shared?: SharedNetns;
    /** The agent keeps the sockets that come beside the acknowledgement. Those that it keeps by now come beside this. */
    readonly keepsSockets?: boolean;
  }
  | { readonly kind: "delete"; readonly uid: string }
  | { readonly kind: "keep"; readonly uid: string }
  | { readonly kind: "snapshotSent" };

/** The answer to every request; an empty `error` means done. */
export interface ZdsAcknowledgement {
  readonly error: string;
  /** The sockets beside it, be they none, are what the agent keeps of the pod from now on. */
  readonly sockets?: boolean;
}

/** @throws WireFormatError */
export function decodeZdsHello(bytes: Uint8Array): ZdsHello {
  return readMessage(bytes, ZDS_PACKET_BYTES_MAX, "ZdsHello", (reader) => {
    let version = 0, features = 0;
    while (reader.next()) {
      if (reader.field === 1) version = reader.int32();
      else if (reader.field === 100) features = reader.uint32();
      else reader.skip();
    }
    return features === 0 ? { version } : { version, features };
  });
}

export function encodeZdsHello(hello: ZdsHello): Uint8Array {
  const writer = new MessageWriter();
  writer.uint32(1, hello.version);
  writer.uint32(100, hello.features ?? 0);
  return writer.finish();
}

/** @throws WireFormatError, also when no request that we know is set. */
export function decodeZdsRequest(bytes: Uint8Array): ZdsRequest {
  return readMessage(bytes, ZDS_PACKET_BYTES_MAX, "WorkloadRequest", readRequest);
}

function readRequest(reader: MessageReader): ZdsRequest {
  let request: ZdsRequest | undefined;
  while (reader.next()) {
    if (reader.field === 1) request = reader.message(readAdd);
    else if (reader.field === 2) request = { kind: "delete", uid: reader.message(readDeletedUid) };
    else if (reader.field === 3) reader.message(skipAll), request = { kind: "snapshotSent" };
    else if (reader.field === 5) request = { kind: "keep", uid: reader.message(readFirstText) };
    else reader.skip();
  }
  if (request === undefined) throw new WireFormatError("a WorkloadRequest holds no request that is known");
  return request;
}

function readAdd(reader: MessageReader): ZdsRequest {
  let uid = "", workload: ZdsWorkload | undefined, shared: SharedNetns | undefined, keepsSockets = false;
  while (reader.next()) {
    if (reader.field === 1) uid = reader.text();
    else if (reader.field === 2) workload = reader.message(readWorkload);
    else if (reader.field === 100) shared = reader.message(readSharedNetns);
    else if (reader.field === 101) keepsSockets = reader.bool();
    else reader.skip();
  }
  return {
    kind: "add",
    uid,
    workload,
    ...(shared === undefined ? {} : { shared }),
    ...(keepsSockets ? { keepsSockets } : {}),
  };
}

function readSharedNetns(reader: MessageReader): SharedNetns {
  const inboundPorts: number[] = [];
  let outboundPort = 0, plaintextPort = 0, address = "", dnsPort = 0;
  while (reader.next()) {
    if (reader.field === 1) outboundPort = reader.port();
    else if (reader.field === 2) plaintextPort = reader.port();
    else if (reader.field === 3) inboundPorts.push(reader.port());
    else if (reader.field === 4) address = reader.text();
    else if (reader.field === 5) dnsPort = reader.port();
    else reader.skip();
  }
  return { outboundPort, plaintextPort, inboundPorts, address, dnsPort };
}

function readWorkload(reader: MessageReader): ZdsWorkload {
  let name = "", namespace = "", serviceAccount = "";
  while (reader.next()) {
    if (reader.field === 1) name = reader.text();
    else if (reader.field === 2) namespace = reader.text();
    else if (reader.field === 3) serviceAccount = reader.text();
    else reader.skip();
  }
  return { name, namespace, serviceAccount };
}

/** DelWorkload alone has its uid in field 2. */
function readDeletedUid(reader: MessageReader): string {
  return readTextField(reader, 2);
}

function readFirstText(reader: MessageReader): string {
  return readTextField(reader, 1);
}

function readTextField(reader: MessageReader, field: number): string {
  let text = "";
  while (reader.next()) {
    if (reader.field === field) text = reader.text();
    else reader.skip();
  }
  return text;
}

/** Encodes a request; it must fit in one packet, which valid Kubernetes names always do. */
export function encodeZdsRequest(request: ZdsRequest): Uint8Array {
  const writer = new MessageWriter();
  if (request.kind === "add") writer.message(1, request, writeAdd);
  else if (request.kind === "delete") writer.message(2, request.uid, writeDeletedUid);
  else if (request.kind === "snapshotSent") writer.message(3, undefined, writeNothing);
  else writer.message(5, request.uid, writeFirstText);
  const bytes = writer.finish();
  assert(bytes.length <= ZDS_PACKET_BYTES_MAX, "a ZDS request fits in one packet");
  return bytes;
}

function writeAdd(writer: MessageWriter, add: Extract<ZdsRequest, { kind: "add" }>): void {
  writer.text(1, add.uid);
  if (add.workload !== undefined) writer.message(2, add.workload, writeWorkload);
  if (add.shared !== undefined) writer.message(100, add.shared, writeSharedNetns);
  writer.bool(101, add.keepsSockets ?? false);
}

/** The ports one by one: a reader takes each as it takes a single one. */
function writeSharedNetns(writer: MessageWriter, shared: SharedNetns): void {
  writer.uint32(1, shared.outboundPort);
  writer.uint32(2, shared.plaintextPort);
  for (const port of shared.inboundPorts) writer.uint32(3, port);
  writer.text(4, shared.address);
  writer.uint32(5, shared.dnsPort);
}

function writeWorkload(writer: MessageWriter, workload: ZdsWorkload): void {
  writer.text(1, workload.name);
  writer.text(2, workload.namespace);
  writer.text(3, workload.serviceAccount);
}

function writeDeletedUid(writer: MessageWriter, uid: string): void {
  writer.text(2, uid);
}

function writeFirstText(writer: MessageWriter, uid: string): void {
  writer.text(1, uid);
}

/** @throws WireFormatError, also when it is no acknowledgement. */
export function decodeZdsAcknowledgement(bytes: Uint8Array): ZdsAcknowledgement {
  return readMessage(bytes, ZDS_PACKET_BYTES_MAX, "WorkloadResponse", (reader) => {
    let error: string | undefined, sockets = false;
    while (reader.next()) {
      if (reader.field === 1) error = reader.message(readFirstText);
      else if (reader.field === 100) sockets = reader.bool();
      else reader.skip();
    }
    if (error === undefined) throw new WireFormatError("a WorkloadResponse holds no acknowledgement");
    return sockets ? { error, sockets } : { error };
  });
}

/** Encodes an acknowledgement, its error cut to {@link ZDS_ERROR_BYTES_MAX} at a character's boundary. */
export function encodeZdsAcknowledgement(acknowledgement: ZdsAcknowledgement): Uint8Array {
  const writer = new MessageWriter();
  writer.message(1, cutText(acknowledgement.error), writeFirstText);
  writer.bool(100, acknowledgement.sockets ?? false);
  return writer.finish();
}

function cutText(text: string): string {
  const target = new Uint8Array(ZDS_ERROR_BYTES_MAX);
  return text.slice(0, new TextEncoder().encodeInto(text, target).read);
}
