/** The CA client: one certificate per call, over a channel that follows the root file (ZT-149, ZT-150, ZT-159). */
import { Buffer } from "node:buffer";
import * as grpc from "@grpc/grpc-js";
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { decodeIstioCertificateResponse, encodeIstioCertificateRequest } from "../../mesh/proto/ca_codec.ts";
import { WireFormatError } from "../../mesh/proto/wire_format_error.ts";
import { callMetadata, connectChannel, type ControlEndpoint, rawBytes, readRoots } from "./control_channel.ts";
import type { WorkloadCertificate } from "./workload_certificate.ts";

export interface CaClientOptions {
  readonly endpoint: ControlEndpoint;
  /** SECRET_TTL: the validity asked for. */
  readonly ttlMs: number;
  /** Shared mode: ask in the name of the node for its pods' identities (ZT-150). */
  readonly impersonate: boolean;
  readonly now: () => number;
  readonly log: Logger;
}

const METHOD = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
const CALL_TIMEOUT_MS = 20_000; // a CA that verifies tokens remotely may need some seconds; after this we ask again

interface Channel {
  readonly client: grpc.Client;
  readonly rootsPem: string | null;
}

export class CaClient {
  readonly #options: CaClientOptions;
  #channel: Channel | undefined;
  #opening: Promise<Channel> | undefined;
  #closed = false;

  constructor(options: CaClientOptions) {
    this.#options = options;
  }

  /**
   * Connects ahead of the first request, and loads what reads certificates: both take longer than the request itself. What
   * fails now is said by the request.
   */
  async prepare(): Promise<void> {
    try {
      await this.#currentChannel();
      await loadCertificates(); // Not before: it keeps the thread that istiod's first answer is waited for on.
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      this.#options.log.debug("the CA is not reached yet", { error: chain(error) });
    }
  }

  /** Has a new key certified. @throws MeshError AMB0301 to AMB0304 before the call, AMB0311 if it is refused, AMB0310 for a bad answer. */
  async fetch(identity: string): Promise<WorkloadCertificate> {
    const { endpoint, impersonate, ttlMs, now, log } = this.#options;
    const { checkAnswer, makeRequest } = await loadCertificates();
    const request = await makeRequest(identity);
    const message = encodeIstioCertificateRequest({
      csr: request.csrPem,
      validitySeconds: Math.floor(ttlMs / 1_000),
      ...(impersonate ? { metadata: { ImpersonatedIdentity: identity } } : {}),
    });
    const metadata = await callMetadata(endpoint);
    const { client } = await this.#currentChannel(); // Last, for it may be closed while anything else is awaited.
    const bytes = await call(client, message, metadata);
    let certChain;
    try {
      certChain = decodeIstioCertificateResponse(bytes).certChain;
    } catch (cause) {
      if (!(cause instanceof WireFormatError)) throw cause;
      throw refused("its answer cannot be read", cause);
    }
    const onSkippedRoot = (reason: string) =>
      log.warn("a root certificate of the CA was skipped", { identity, reason });
    return checkAnswer(certChain, { identity, request, nowMs: now(), onSkippedRoot });
  }

  /** Closes the channel; calls in flight fail. */
  close(): void {
    this.#closed = true;
    this.#channel?.client.close();
    this.#channel = undefined;
  }

  /** Callers that come while a channel is being opened share it. */
  #currentChannel(): Promise<Channel> {
    this.#opening ??= this.#open().finally(() => this.#opening = undefined);
    return this.#opening;
  }

  /** The channel there is, or a new one if the roots have changed; if that fails the old one serves on (ZT-159). */
  async #open(): Promise<Channel> {
    const { endpoint, log } = this.#options;
    const old = this.#channel;
    try {
      const rootsPem = await readRoots(endpoint.roots);
      if (old !== undefined && old.rootsPem === rootsPem) return old;
      const client = await connectChannel(endpoint, rootsPem);
      if (this.#closed) {
        client.close();
        throw refused("the client was closed");
      }
      this.#channel = { client, rootsPem };
      old?.client.close(); // Calls in flight on it end by themselves.
      return this.#channel;
    } catch (error) {
      if (!(error instanceof MeshError) || old === undefined || this.#closed) throw error;
      log.warn("the new CA roots cannot be used yet", { error: chain(error) });
      return old;
    }
  }
}

/** What reads and makes certificates is the largest of the packages: it is loaded while istiod is connected to. */
function loadCertificates() {
  return import("./workload_certificate.ts");
}

async function call(client: grpc.Client, message: Uint8Array, metadata: grpc.Metadata): Promise<Uint8Array> {
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
  const options = { deadline: Date.now() + CALL_TIMEOUT_MS };
  try {
    client.makeUnaryRequest(METHOD, rawBytes, rawBytes, Buffer.from(message), metadata, options, (error, value) => {
      if (error !== null) return reject(refused(`it refused: ${grpc.status[error.code]}: ${error.details}`));
      if (value === undefined) return reject(refused("it answered nothing"));
      resolve(value);
    });
  } catch (cause) { // A closed channel takes no calls.
    reject(refused("the client was closed", cause));
  }
  return await promise;
}

function refused(what: string, cause?: unknown): MeshError {
  const remedy = "istiod's log says why it refused; often CA_TRUSTED_NODE_ACCOUNTS or the token's node does not fit";
  return new MeshError("AMB0311", `no certificate from the CA: ${what}`, { remedy, cause });
}
