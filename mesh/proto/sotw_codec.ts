/** Codec of Envoy's state-of-the-world discovery messages (discovery.proto): tools ask with them, data planes do not. */
import {
  type AnyMessage,
  type DiscoveryNode,
  type ErrorDetail,
  readAny,
  readControlPlane,
  readErrorDetail,
  readNode,
  REQUEST_BYTES_MAX,
  RESPONSE_BYTES_MAX,
  writeAny,
  writeControlPlane,
  writeErrorDetail,
  writeNode,
} from "./discovery_codec.ts";
import { type MessageReader, readMessage } from "./message_reader.ts";
import { MessageWriter } from "./message_writer.ts";

export interface DiscoveryRequest {
  /** Only the first request of a stream need carry it. */
  readonly node?: DiscoveryNode;
  readonly resourceNames: readonly string[];
  readonly typeUrl: string;
  readonly responseNonce: string;
  readonly errorDetail?: ErrorDetail;
}

export interface DiscoveryResponse {
  readonly versionInfo: string;
  readonly resources: readonly AnyMessage[];
  readonly typeUrl: string;
  readonly nonce: string;
  /** ControlPlane.identifier. */
  readonly controlPlane: string;
}

type Writable<T> = { -readonly [K in keyof T]: T[K] };

/** @throws WireFormatError */
export function decodeDiscoveryRequest(bytes: Uint8Array): DiscoveryRequest {
  return readMessage(bytes, REQUEST_BYTES_MAX, "DiscoveryRequest", (reader) => {
    const names: string[] = [];
    const request: Writable<DiscoveryRequest> = {
      node: undefined,
      resourceNames: names,
      typeUrl: "",
      responseNonce: "",
    };
    while (reader.next()) {
      if (reader.field === 2) request.node = reader.message(readNode);
      else if (reader.field === 3) names.push(reader.text());
      else if (reader.field === 4) request.typeUrl = reader.text();
      else if (reader.field === 5) request.responseNonce = reader.text();
      else if (reader.field === 6) request.errorDetail = reader.message(readErrorDetail);
      else reader.skip();
    }
    return request;
  });
}

export function encodeDiscoveryRequest(request: DiscoveryRequest): Uint8Array {
  const writer = new MessageWriter();
  if (request.node !== undefined) writer.message(2, request.node, writeNode);
  writer.texts(3, request.resourceNames);
  writer.text(4, request.typeUrl);
  writer.text(5, request.responseNonce);
  if (request.errorDetail !== undefined) writer.message(6, request.errorDetail, writeErrorDetail);
  return writer.finish();
}

/** @throws WireFormatError */
export function decodeDiscoveryResponse(bytes: Uint8Array): DiscoveryResponse {
  return readMessage(bytes, RESPONSE_BYTES_MAX, "DiscoveryResponse", readResponse);
}

function readResponse(reader: MessageReader): DiscoveryResponse {
  const resources: AnyMessage[] = [];
  let versionInfo = "", typeUrl = "", nonce = "", controlPlane = "";
  while (reader.next()) {
    if (reader.field === 1) versionInfo = reader.text();
    else if (reader.field === 2) resources.push(reader.message(readAny));
    else if (reader.field === 4) typeUrl = reader.text();
    else if (reader.field === 5) nonce = reader.text();
    else if (reader.field === 6) controlPlane = reader.message(readControlPlane);
    else reader.skip();
  }
  return { versionInfo, resources, typeUrl, nonce, controlPlane };
}

export function encodeDiscoveryResponse(response: DiscoveryResponse): Uint8Array {
  const writer = new MessageWriter();
  writer.text(1, response.versionInfo);
  writer.messages(2, response.resources, writeAny);
  writer.text(4, response.typeUrl);
  writer.text(5, response.nonce);
  writer.message(6, response.controlPlane, writeControlPlane);
  return writer.finish();
}
