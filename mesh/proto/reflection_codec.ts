/** Codec of gRPC's server reflection (reflection.proto): which services there are, and that more is not told. */
import { type MessageReader, readMessage } from "./message_reader.ts";
import { MessageWriter } from "./message_writer.ts";

/** Longest question that is taken: a name of a host, a file or a symbol. */
export const REFLECTION_REQUEST_BYTES_MAX = 16_384;

export interface ReflectionRequest {
  readonly host: string;
  /** Whether it asks for the services; otherwise it asks for a description. */
  readonly listsServices: boolean;
}

export interface ReflectionResponse {
  readonly host: string;
  /** The question, as it came. */
  readonly question: Uint8Array;
  readonly answer: { readonly services: readonly string[] } | { readonly code: number; readonly message: string };
}

/** @throws WireFormatError */
export function decodeReflectionRequest(bytes: Uint8Array): ReflectionRequest {
  return readMessage(bytes, REFLECTION_REQUEST_BYTES_MAX, "ServerReflectionRequest", readRequest);
}

function readRequest(reader: MessageReader): ReflectionRequest {
  let host = "", listsServices = false;
  while (reader.next()) {
    if (reader.field === 1) host = reader.text();
    else {
      if (reader.field >= 3 && reader.field <= 7) listsServices = reader.field === 7; // One of them; the last counts.
      reader.skip();
    }
  }
  return { host, listsServices };
}

export function encodeReflectionResponse({ host, question, answer }: ReflectionResponse): Uint8Array {
  const writer = new MessageWriter();
  writer.text(1, host);
  writer.bytesEvenEmpty(2, question);
  if ("services" in answer) writer.message(6, answer.services, writeServices);
  else writer.message(7, answer, writeError);
  return writer.finish();
}

function writeServices(writer: MessageWriter, services: readonly string[]): void {
  writer.messages(1, services, (inner, name) => inner.text(1, name));
}

function writeError(writer: MessageWriter, { code, message }: { code: number; message: string }): void {
  writer.uint32(1, code);
  writer.text(2, message);
}
