/**
 * A certificate service for peers that fetch their certificates as Istio's data planes do: it certifies whatever name a
 * request asks for, so it is for benchmarks alone. Its argument is a folder with an authority.
 */
import * as grpc from "@grpc/grpc-js";
import * as x509 from "@peculiar/x509";
import { Buffer } from "node:buffer";
import { MeshError } from "../../../base/errors.ts";
import { decodeIstioCertificateRequest, encodeIstioCertificateResponse } from "../../../mesh/proto/ca_codec.ts";
import { Authority } from "../certificates.ts";

export const CA_PORT = 15012;
const SUBJECT_ALTERNATIVE_NAME = "2.5.29.17";

/** The SPIFFE name that a CSR asks for. Throws AMB9006 when it asks for none. */
export function requestedUri(request: x509.Pkcs10CertificateRequest): string {
  const extension = request.extensions.find((candidate) => candidate.type === SUBJECT_ALTERNATIVE_NAME);
  const names = extension === undefined ? [] : new x509.SubjectAlternativeNameExtension(extension.rawData).names.items;
  const uri = names.find((name) => name.type === "url")?.value;
  if (uri !== undefined) return uri;
  throw new MeshError("AMB9006", "the certificate request names no URI", { remedy: "Give the peer an identity." });
}

async function certify(authority: Authority, request: Uint8Array): Promise<Uint8Array> {
  const csr = new x509.Pkcs10CertificateRequest(decodeIstioCertificateRequest(request).csr);
  const leaf = await authority.certify(csr.publicKey, { uri: requestedUri(csr) });
  return encodeIstioCertificateResponse({ certChain: [leaf, authority.rootPem] });
}

async function serve(folder: string): Promise<void> {
  const authority = await Authority.load(folder);
  const { privateKey, chain } = await authority.issue({ ip: "127.0.0.1" });
  const server = new grpc.Server();
  const raw = (bytes: Uint8Array) => Buffer.from(bytes);
  server.addService({
    createCertificate: {
      path: "/istio.v1.auth.IstioCertificateService/CreateCertificate",
      requestStream: false,
      responseStream: false,
      requestSerialize: raw,
      requestDeserialize: (bytes: Buffer) => new Uint8Array(bytes),
      responseSerialize: raw,
      responseDeserialize: raw,
    },
  }, {
    createCertificate: (call: grpc.ServerUnaryCall<Uint8Array, Uint8Array>, reply: grpc.sendUnaryData<Uint8Array>) => {
      certify(authority, call.request).then(
        (response) => reply(null, response),
        (error) => reply({ code: grpc.status.INVALID_ARGUMENT, details: String(error) }),
      );
    },
  });
  const pair = { private_key: Buffer.from(privateKey), cert_chain: Buffer.from(chain) };
  // Without roots of its own the server would name every system authority in a request for a client certificate.
  const credentials = grpc.ServerCredentials.createSsl(Buffer.from(authority.rootPem), [pair], false);
  await new Promise<void>((resolve, reject) => {
    const bound = (error: Error | null) => error === null ? resolve() : reject(error);
    server.bindAsync(`127.0.0.1:${CA_PORT}`, credentials, bound);
  });
}

if (import.meta.main) await serve(Deno.args[0]!);
