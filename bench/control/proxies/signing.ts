/** Asks a control plane for certificates as a node's proxy does, many at once, for a while. */
import { Buffer } from "node:buffer";
import type * as grpc from "@grpc/grpc-js";
import { makeRequest } from "../../../dataplane/agent/workload_certificate.ts";
import { decodeIstioCertificateResponse, encodeIstioCertificateRequest } from "../../../mesh/proto/ca_codec.ts";
import { type Endpoint, nowMs, type SignAnswer } from "./messages.ts";
import { callHeaders, openChannel } from "./proxy.ts";

const METHOD = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
const VALIDITY_SECONDS = 86_400;
const CHANNELS = 4;
const raw = (bytes: Buffer): Buffer => bytes;

/** One key serves all requests: making keys is the proxies' work, not the control plane's. */
export async function sign(
  endpoint: Endpoint,
  { identity, atOnce, ms }: { identity: string; atOnce: number; ms: number },
): Promise<SignAnswer> {
  const { csrPem } = await makeRequest(identity), metadata = { ImpersonatedIdentity: identity };
  const request = { csr: csrPem, validitySeconds: VALIDITY_SECONDS, metadata };
  const bytes = Buffer.from(encodeIstioCertificateRequest(request)), headers = callHeaders(endpoint);
  const clients = await Promise.all(Array.from({ length: CHANNELS }, () => openChannel(endpoint)));
  const latencyMs: number[] = [], startedAt = nowMs(), deadlineMs = startedAt + ms;
  let failures = 0, firstFailure = "";
  const caller = async (client: grpc.Client) => {
    while (nowMs() < deadlineMs) {
      const at = nowMs(), answer = await ask(client, bytes, headers);
      if (typeof answer !== "string") latencyMs.push(nowMs() - at);
      else if (failures++ === 0) firstFailure = answer;
    }
  };
  await Promise.all(Array.from({ length: atOnce }, (_, at) => caller(clients[at % CHANNELS]!)));
  for (const client of clients) client.close();
  return {
    is: "signed",
    count: latencyMs.length,
    seconds: (nowMs() - startedAt) / 1_000,
    latencyMs,
    failures,
    firstFailure,
  };
}

/** @returns The chain's length, or why there is none. */
function ask(client: grpc.Client, bytes: Buffer, headers: grpc.Metadata): Promise<number | string> {
  return new Promise((resolve) =>
    client.makeUnaryRequest(METHOD, raw, raw, bytes, headers, (error, answer) => {
      if (error !== null || answer === undefined) return resolve(error?.message ?? "an empty answer");
      const chain = decodeIstioCertificateResponse(answer).certChain;
      resolve(chain.length > 1 ? chain.length : "a chain without a root");
    })
  );
}
