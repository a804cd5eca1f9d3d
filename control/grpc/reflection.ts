/** Server reflection (CP-002): tools hear which services a listener has. Descriptions are not told: those are Istio's and Envoy's files. */
import {
  decodeReflectionRequest,
  encodeReflectionResponse,
  REFLECTION_REQUEST_BYTES_MAX,
} from "../../mesh/proto/reflection_codec.ts";
import { WireFormatError } from "../../mesh/proto/wire_format_error.ts";
import { Status } from "../../wire/grpc/status.ts";
import type { GrpcCall } from "./call.ts";
import type { Method } from "./methods.ts";

const VERSIONS = ["v1", "v1alpha"];
const QUESTIONS_MAX = 16; // that wait while a client does not read
const UNKNOWN = {
  code: Status.NOT_FOUND,
  message: "descriptions are not served here; give your tool the .proto files",
};

/** Both versions of the service. @param services names of what the listener offers, asked for with each question. */
export function reflectionMethods(services: () => readonly string[]): readonly Method[] {
  return VERSIONS.map((version): Method => ({
    path: `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`,
    kind: "bidi_stream",
    messageBytesMax: REFLECTION_REQUEST_BYTES_MAX,
    serve: (call) => serve(call, services),
  }));
}

function serve(call: GrpcCall, services: () => readonly string[]): void {
  const waiting: Uint8Array[] = [];
  let sending = false, asked = false;
  const next = () => {
    const answer = waiting.shift();
    sending = answer !== undefined;
    if (answer !== undefined) call.send([answer], next);
    else if (asked) call.finish("OK");
  };
  const onMessage = (question: Uint8Array) => {
    if (waiting.length >= QUESTIONS_MAX) return call.finish("RESOURCE_EXHAUSTED", "too many questions at once");
    try {
      const { host, listsServices } = decodeReflectionRequest(question);
      const answer = listsServices ? { services: services() } : UNKNOWN;
      waiting.push(encodeReflectionResponse({ host, question, answer }));
    } catch (error) {
      if (!(error instanceof WireFormatError)) throw error;
      return call.finish("INVALID_ARGUMENT", error.message);
    }
    if (!sending) next();
  };
  const onHalfClosed = () => {
    asked = true;
    if (!sending) next();
  };
  call.start({ onMessage, onHalfClosed });
}
