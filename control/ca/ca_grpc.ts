/** The CA's gRPC face: bytes to requests, results to statuses (CP-470, CP-472). */
import { Buffer } from "node:buffer";
import * as grpc from "@grpc/grpc-js";
import type { Logger } from "../../base/log.ts";
import {
  CERTIFICATE_MESSAGE_BYTES_MAX,
  decodeIstioCertificateRequest,
  encodeIstioCertificateResponse,
} from "../../mesh/proto/ca_codec.ts";
import { WireFormatError } from "../../mesh/proto/wire_format_error.ts";
import { credentialsOf } from "../xds/secure_server.ts";
import type { CertificateService } from "./certificate_service.ts";

type Call = grpc.ServerUnaryCall<Buffer, Buffer>;
type Answer = { bytes: Buffer } | { code: grpc.status; details: string };

const raw = (bytes: Buffer) => bytes;
const SERVICE = {
  createCertificate: {
    path: "/istio.v1.auth.IstioCertificateService/CreateCertificate",
    requestStream: false,
    responseStream: false,
    requestSerialize: raw,
    requestDeserialize: raw,
    responseSerialize: raw,
    responseDeserialize: raw,
  },
};

/** Serves CreateCertificate on a gRPC server. */
export function addCertificateService(server: grpc.Server, service: CertificateService, log: Logger): void {
  const createCertificate = (call: Call, callback: grpc.sendUnaryData<Buffer>) => {
    answer(call, service).then(
      (result) => "bytes" in result ? callback(null, result.bytes) : callback(result),
      (error) => { // Our own mistake: the caller learns nothing, and nothing was signed.
        log.error("certificate request failed", { error: String(error) });
        callback({ code: grpc.status.INTERNAL, details: "internal error" });
      },
    );
  };
  server.addService(SERVICE, { createCertificate });
}

async function answer(call: Call, service: CertificateService): Promise<Answer> {
  const invalid = (details: string) => ({ code: grpc.status.INVALID_ARGUMENT, details });
  if (call.request.length > CERTIFICATE_MESSAGE_BYTES_MAX) return invalid("the request is too large");
  let request;
  try {
    request = decodeIstioCertificateRequest(call.request);
  } catch (error) {
    if (error instanceof WireFormatError) return invalid(error.message);
    throw error;
  }
  const result = await service.create(request, credentialsOf(call));
  if ("status" in result) return { code: grpc.status[result.status], details: result.message };
  return { bytes: Buffer.from(encodeIstioCertificateResponse(result)) };
}
