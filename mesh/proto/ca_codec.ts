/** Codec of istio.v1.auth.IstioCertificateService's messages (citadel.proto; ZT-149, CP-470). */
import { type MessageReader, readMessage } from "./message_reader.ts";
import { MessageWriter } from "./message_writer.ts";
import { readStruct, type StructObject, writeStruct } from "./struct_codec.ts";

/** A CSR is under 1 KiB, a chain with a root bundle some ten: 1 MiB leaves room for large bundles. */
export const CERTIFICATE_MESSAGE_BYTES_MAX = 1024 * 1024;

export interface IstioCertificateRequest {
  /** PEM. */
  readonly csr: string;
  readonly validitySeconds: number;
  /** `ImpersonatedIdentity` in shared mode (ZT-150). */
  readonly metadata?: StructObject;
}

export interface IstioCertificateResponse {
  /** PEM: the leaf, then intermediates, last the root bundle (CP-471). */
  readonly certChain: readonly string[];
}

/** @throws WireFormatError */
export function decodeIstioCertificateRequest(bytes: Uint8Array): IstioCertificateRequest {
  return readMessage(bytes, CERTIFICATE_MESSAGE_BYTES_MAX, "IstioCertificateRequest", readRequest);
}

function readRequest(reader: MessageReader): IstioCertificateRequest {
  let csr = "", validitySeconds = 0, metadata: StructObject | undefined;
  while (reader.next()) {
    if (reader.field === 1) csr = reader.text();
    else if (reader.field === 3) validitySeconds = reader.int64();
    else if (reader.field === 4) metadata = reader.message(readStruct);
    else reader.skip();
  }
  return metadata === undefined ? { csr, validitySeconds } : { csr, validitySeconds, metadata };
}

/** @throws WireFormatError */
export function decodeIstioCertificateResponse(bytes: Uint8Array): IstioCertificateResponse {
  return readMessage(bytes, CERTIFICATE_MESSAGE_BYTES_MAX, "IstioCertificateResponse", readResponse);
}

function readResponse(reader: MessageReader): IstioCertificateResponse {
  const certChain: string[] = [];
  while (reader.next()) {
    if (reader.field === 1) certChain.push(reader.text());
    else reader.skip();
  }
  return { certChain };
}

export function encodeIstioCertificateRequest(request: IstioCertificateRequest): Uint8Array {
  const writer = new MessageWriter();
  writer.text(1, request.csr);
  writer.int64(3, request.validitySeconds);
  if (request.metadata !== undefined) writer.message(4, request.metadata, writeStruct);
  return writer.finish();
}

export function encodeIstioCertificateResponse(response: IstioCertificateResponse): Uint8Array {
  const writer = new MessageWriter();
  writer.texts(1, response.certChain);
  return writer.finish();
}
