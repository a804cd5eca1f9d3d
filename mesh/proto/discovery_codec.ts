/** Codec of Envoy's delta discovery messages (discovery.proto), as far as the mesh uses them (CP section 5). */
import { type MessageReader, readMessage } from "./message_reader.ts";
import { MessageWriter, sortedEntries } from "./message_writer.ts";
import { readStruct, type StructObject, writeStruct } from "./struct_codec.ts";
import { WireFormatError } from "./wire_format_error.ts";

/** ztunnel's own decode limit (CP-450); a whole mesh may come in one response. */
export const RESPONSE_BYTES_MAX = 200 * 1024 * 1024;
/** A reconnecting client names all it holds (CP-452). */
export const REQUEST_BYTES_MAX = 64 * 1024 * 1024;
/** A response of tiny resources must not cost memory out of proportion to its bytes. */
const RESOURCES_MAX = 1_000_000;

/** Who asks. */
export interface DiscoveryNode {
  readonly id: string;
  readonly cluster?: string;
  readonly metadata: StructObject;
}

/** google.rpc.Status without details: what a NACK carries. */
export interface ErrorDetail {
  readonly code: number;
  readonly message: string;
}

export interface DeltaDiscoveryRequest {
  /** Only the first request of a stream need carry it (CP-402). */
  readonly node?: DiscoveryNode;
  readonly typeUrl: string;
  readonly resourceNamesSubscribe: readonly string[];
  readonly resourceNamesUnsubscribe: readonly string[];
  /** What the client holds, by name: its version. */
  readonly initialResourceVersions: ReadonlyMap<string, string>;
  /** Empty on a spontaneous request. */
  readonly responseNonce: string;
  readonly errorDetail?: ErrorDetail;
}

/** google.protobuf.Any with its body still encoded. */
export interface AnyMessage {
  readonly typeUrl: string;
  /** A view into what was decoded; copy it to keep it longer than the response. */
  readonly bytes: Uint8Array;
}

/** A resource with its body still encoded; the type URL is that of the body's Any. */
export interface DiscoveryResource extends AnyMessage {
  readonly name: string;
  readonly version: string;
  readonly aliases: readonly string[];
}

export interface DeltaDiscoveryResponse {
  readonly systemVersionInfo: string;
  readonly resources: readonly DiscoveryResource[];
  readonly typeUrl: string;
  readonly nonce: string;
  readonly removedResources: readonly string[];
  /** ControlPlane.identifier. */
  readonly controlPlane?: string;
}

const NO_NAMES: readonly string[] = Object.freeze([]);
const NO_VERSIONS: ReadonlyMap<string, string> = new Map();

type Writable<T> = { -readonly [K in keyof T]: T[K] };

/** @throws WireFormatError */
export function decodeDeltaDiscoveryRequest(bytes: Uint8Array): DeltaDiscoveryRequest {
  return readMessage(bytes, REQUEST_BYTES_MAX, "DeltaDiscoveryRequest", readRequest);
}

function readRequest(reader: MessageReader): DeltaDiscoveryRequest {
  // Most requests are acknowledgements, which name nothing.
  let subscribe: string[] | undefined, unsubscribe: string[] | undefined, versions: Map<string, string> | undefined;
  const request: Writable<DeltaDiscoveryRequest> = {
    node: undefined,
    typeUrl: "",
    resourceNamesSubscribe: NO_NAMES,
    resourceNamesUnsubscribe: NO_NAMES,
    initialResourceVersions: NO_VERSIONS,
    responseNonce: "",
    errorDetail: undefined,
  };
  while (reader.next()) {
    if (reader.field === 1) request.node = reader.message(readNode);
    else if (reader.field === 2) request.typeUrl = reader.text();
    else if (reader.field === 3) (request.resourceNamesSubscribe = subscribe ??= []).push(reader.text());
    else if (reader.field === 4) (request.resourceNamesUnsubscribe = unsubscribe ??= []).push(reader.text());
    else if (reader.field === 5) {
      (request.initialResourceVersions = versions ??= new Map()).set(...reader.message(readVersion));
    } else if (reader.field === 6) request.responseNonce = reader.text();
    else if (reader.field === 7) request.errorDetail = reader.message(readErrorDetail);
    else reader.skip();
  }
  return request;
}

/** For the messages of this family alone. */
export function readNode(reader: MessageReader): DiscoveryNode {
  let id = "", cluster = "", metadata: StructObject = {};
  while (reader.next()) {
    if (reader.field === 1) id = reader.text();
    else if (reader.field === 2) cluster = reader.text();
    else if (reader.field === 3) metadata = reader.message(readStruct);
    else reader.skip();
  }
  return cluster === "" ? { id, metadata } : { id, cluster, metadata };
}

function readVersion(reader: MessageReader): [string, string] {
  let name = "", version = "";
  while (reader.next()) {
    if (reader.field === 1) name = reader.text();
    else if (reader.field === 2) version = reader.text();
    else reader.skip();
  }
  return [name, version];
}

export function readErrorDetail(reader: MessageReader): ErrorDetail {
  let code = 0, message = "";
  while (reader.next()) {
    if (reader.field === 1) code = reader.int32();
    else if (reader.field === 2) message = reader.text();
    else reader.skip();
  }
  return { code, message };
}

/** @throws WireFormatError, also for a resource without a name or body, which nothing could be done with. */
export function decodeDeltaDiscoveryResponse(bytes: Uint8Array): DeltaDiscoveryResponse {
  return readMessage(bytes, RESPONSE_BYTES_MAX, "DeltaDiscoveryResponse", readResponse);
}

function readResponse(reader: MessageReader): DeltaDiscoveryResponse {
  const resources: DiscoveryResource[] = [], removed: string[] = [];
  let systemVersionInfo = "", typeUrl = "", nonce = "", controlPlane: string | undefined;
  while (reader.next()) {
    if (reader.field === 1) systemVersionInfo = reader.text();
    else if (reader.field === 2) {
      if (resources.length === RESOURCES_MAX) throw new WireFormatError(`more than ${RESOURCES_MAX} resources`);
      resources.push(reader.message(readResource));
    } else if (reader.field === 4) typeUrl = reader.text();
    else if (reader.field === 5) nonce = reader.text();
    else if (reader.field === 6) removed.push(reader.text());
    else if (reader.field === 7) controlPlane = reader.message(readControlPlane);
    else reader.skip();
  }
  const response = { systemVersionInfo, resources, typeUrl, nonce, removedResources: removed };
  return controlPlane === undefined ? response : { ...response, controlPlane };
}

function readResource(reader: MessageReader): DiscoveryResource {
  const aliases: string[] = [];
  let name = "", version = "", body: { typeUrl: string; bytes: Uint8Array } | undefined;
  while (reader.next()) {
    if (reader.field === 1) version = reader.text();
    else if (reader.field === 2) body = reader.message(readAny);
    else if (reader.field === 3) name = reader.text();
    else if (reader.field === 4) aliases.push(reader.text());
    else reader.skip();
  }
  if (name === "") throw new WireFormatError("a resource has no name");
  if (body === undefined) throw new WireFormatError(`resource ${JSON.stringify(name)} has no body`);
  return { name, version, aliases, typeUrl: body.typeUrl, bytes: body.bytes };
}

export function readAny(reader: MessageReader): AnyMessage {
  let typeUrl = "", bytes: Uint8Array = new Uint8Array(0);
  while (reader.next()) {
    if (reader.field === 1) typeUrl = reader.text();
    else if (reader.field === 2) bytes = reader.bytes();
    else reader.skip();
  }
  return { typeUrl, bytes };
}

export function readControlPlane(reader: MessageReader): string {
  let identifier = "";
  while (reader.next()) {
    if (reader.field === 1) identifier = reader.text();
    else reader.skip();
  }
  return identifier;
}

export function encodeDeltaDiscoveryRequest(request: DeltaDiscoveryRequest): Uint8Array {
  const writer = new MessageWriter();
  if (request.node !== undefined) writer.message(1, request.node, writeNode);
  writer.text(2, request.typeUrl);
  writer.texts(3, request.resourceNamesSubscribe);
  writer.texts(4, request.resourceNamesUnsubscribe);
  for (const entry of sortedEntries(request.initialResourceVersions)) writer.message(5, entry, writeVersion);
  writer.text(6, request.responseNonce);
  if (request.errorDetail !== undefined) writer.message(7, request.errorDetail, writeErrorDetail);
  return writer.finish();
}

export function writeNode(writer: MessageWriter, node: DiscoveryNode): void {
  writer.text(1, node.id);
  writer.text(2, node.cluster ?? "");
  writer.message(3, node.metadata, writeStruct);
}

function writeVersion(writer: MessageWriter, entry: readonly [string, string]): void {
  writer.text(1, entry[0]);
  writer.text(2, entry[1]);
}

export function writeErrorDetail(writer: MessageWriter, detail: ErrorDetail): void {
  writer.uint32(1, detail.code);
  writer.text(2, detail.message);
}

export function encodeDeltaDiscoveryResponse(response: DeltaDiscoveryResponse): Uint8Array {
  const writer = new MessageWriter();
  writer.text(1, response.systemVersionInfo);
  writer.messages(2, response.resources, writeResource);
  writer.text(4, response.typeUrl);
  writer.text(5, response.nonce);
  writer.texts(6, response.removedResources);
  if (response.controlPlane !== undefined) writer.message(7, response.controlPlane, writeControlPlane);
  return writer.finish();
}

function writeResource(writer: MessageWriter, resource: DiscoveryResource): void {
  writer.text(1, resource.version);
  writer.message(2, resource, writeAny);
  writer.text(3, resource.name);
  writer.texts(4, resource.aliases);
}

/** google.protobuf.Any. */
export function writeAny(writer: MessageWriter, resource: AnyMessage): void {
  writer.text(1, resource.typeUrl);
  writer.bytes(2, resource.bytes);
}

export function writeControlPlane(writer: MessageWriter, identifier: string): void {
  writer.text(1, identifier);
}
