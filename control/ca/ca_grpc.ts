/** The CA's gRPC face: bytes to requests, results to statuses (CP-470, CP-472). */
import type { Logger } from "../../base/log.ts";
import {
  CERTIFICATE_MESSAGE_BYTES_MAX,
  decodeIstioCertificateRequest,
  encodeIstioCertificateResponse,
} from "../../mesh/proto/ca_codec.ts";
import { WireFormatError } from "../../mesh/proto/wire_format_error.ts";
import type { GrpcCall } from "../grpc/call.ts";
import { type Answer, type Method, unaryMethod } from "../grpc/methods.ts";
import { credentialsOf } from "./call_credentials.ts";
import type { CertificateService } from "./certificate_service.ts";

/** CreateCertificate, for a gRPC server. */
export function certificateMethod(service: CertificateService, log: Logger): Method {
  return unaryMethod({
    path: "/istio.v1.auth.IstioCertificateService/CreateCertificate",
    messageBytesMax: CERTIFICATE_MESSAGE_BYTES_MAX,
    log,
    answer: (question, call) => answer(question, call, service),
  });
}

async function answer(question: Uint8Array, call: GrpcCall, service: CertificateService): Promise<Answer> {
  let request;
  try {
    request = decodeIstioCertificateRequest(question);
  } catch (error) {
    if (error instanceof WireFormatError) return { status: "INVALID_ARGUMENT", details: error.message };
    throw error;
  }
  const result = await service.create(request, credentialsOf(call));
  if ("status" in result) return { status: result.status, details: result.message };
  return { bytes: encodeIstioCertificateResponse(result) };
}
