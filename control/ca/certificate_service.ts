/** CreateCertificate, from decoded request to answer: authenticate, decide, sign (CP-470 to CP-485). No gRPC in here. */
import { assert } from "../../base/assert.ts";
import type { Logger } from "../../base/log.ts";
import { chain, MeshError } from "../../base/errors.ts";
import type { IstioCertificateRequest } from "../../mesh/proto/ca_codec.ts";
import type { Metrics } from "../../base/metrics.ts";
import type { CertificateAuthority } from "./authority.ts";
import type { AuthenticationWay, Caller, Credentials, Refused } from "./caller.ts";
import { acceptCsr } from "./csr.ts";
import type { NodeAuthorizer } from "./node_authorizer.ts";

/** A gRPC status by name; the text is all that the caller learns. */
export interface Refusal {
  readonly status: "UNAUTHENTICATED" | "INVALID_ARGUMENT" | "INTERNAL" | "RESOURCE_EXHAUSTED" | "UNAVAILABLE";
  readonly message: string;
}

export interface CertificateServiceOptions {
  readonly authority: CertificateAuthority;
  readonly authenticator: AuthenticationWay;
  readonly authorizer: NodeAuthorizer;
  readonly defaultTtlMs: number;
  readonly maxTtlMs: number;
  readonly metrics: Metrics;
  readonly log: Logger;
}

const IMPERSONATED_IDENTITY = "ImpersonatedIdentity";
const CERT_SIGNER = "CertSigner";
const IN_FLIGHT_MAX = 512; // each holds a few KiB and a thread's turn; a node asks for 8 at a time

export class CertificateService {
  readonly #options: CertificateServiceOptions;
  readonly #counters;
  #inFlight = 0;

  constructor(options: CertificateServiceOptions) {
    this.#options = options;
    const { metrics, authority } = options;
    const counter = (name: string, help: string) => metrics.counter(`citadel_server_${name}`, help);
    this.#counters = { // Names of CP-024.
      requests: counter("csr_count", "Certificate requests received."),
      unauthenticated: counter("authentication_failure_count", "Certificate requests refused for who asked."),
      badCsr: counter("csr_parsing_err_count", "Certificate requests with an unusable CSR."),
      badIdentity: counter("id_extraction_err_count", "Certificate requests whose impersonation was refused."),
      signErrors: metrics.counter("citadel_server_csr_sign_err_count", "CSR signing errors.", { labelled: true }),
      issued: counter("success_cert_issuance_count", "Certificates issued."),
    };
    const ends = (name: string, what: string, atMs: () => number) => {
      const help = `When ${what} ends, in seconds`;
      metrics.gauge(`citadel_server_${name}_timestamp`, `${help} since 1970.`, () => Math.floor(atMs() / 1_000));
      metrics.gauge(
        `citadel_server_${name}_seconds`,
        `${help} from now.`,
        () => Math.floor((atMs() - Date.now()) / 1_000),
      );
    };
    ends("root_cert_expiry", "the root", () => authority.rootExpiresAtMs);
    ends("cert_chain_expiry", "the signing certificate", () => authority.signerExpiresAtMs);
  }

  /** Answers one request: the chain of CP-471, or a refusal, logged and counted here. */
  async create(
    request: IstioCertificateRequest,
    credentials: Credentials,
  ): Promise<{ certChain: readonly string[] } | Refusal> {
    this.#counters.requests.increment();
    if (this.#inFlight >= IN_FLIGHT_MAX) return { status: "RESOURCE_EXHAUSTED", message: "too many requests at once" };
    this.#inFlight++;
    try {
      const caller = await this.#options.authenticator.authenticate(credentials);
      if ("refused" in caller) {
        this.#counters.unauthenticated.increment();
        this.#options.log.warn("certificate request refused", {
          reason: caller.refused,
          from: credentials.peerAddress,
        });
        return refusalOf(caller, "request authenticate failure");
      }
      return await this.#sign(request, caller);
    } finally {
      this.#inFlight--;
    }
  }

  async #sign(request: IstioCertificateRequest, caller: Caller): Promise<{ certChain: readonly string[] } | Refusal> {
    assert(caller.identities.length > 0, "nobody in particular gets no certificate");
    const { authority, log, defaultTtlMs, maxTtlMs } = this.#options;
    const identities = await this.#identitiesFor(request, caller);
    if ("status" in identities) return identities;
    const signer = metadataOf(request, CERT_SIGNER);
    if (signer !== undefined && signer !== "") { // Another signer's certificate is not what was asked for (CP-495).
      this.#counters.signErrors.increment({ error: "CERT_SIGNER" });
      log.warn("certificate request refused", { reason: "it asks for a signer of its own", ...factsOf(caller) });
      return { status: "INVALID_ARGUMENT", message: "CSR signing error (no other signer is known here)" };
    }
    if (request.validitySeconds * 1_000 > maxTtlMs) {
      this.#counters.signErrors.increment({ error: "TTL_ERROR" });
      const message = `CSR signing error (requested TTL ${request.validitySeconds}s exceeds ${maxTtlMs / 1_000}s)`;
      return { status: "INVALID_ARGUMENT", message };
    }
    const csr = await acceptCsr(request.csr);
    if ("refused" in csr) {
      this.#counters.badCsr.increment();
      log.warn("certificate request refused", { reason: csr.refused, ...factsOf(caller) });
      return { status: "INVALID_ARGUMENT", message: `CSR signing error (${csr.refused})` };
    }
    try {
      const ttlMs = request.validitySeconds <= 0 ? defaultTtlMs : request.validitySeconds * 1_000; // CP-493
      const issued = await authority.issueWorkload(csr.publicKey, {
        identities,
        ttlMs,
        withCommonName: csr.hasCommonName,
      });
      this.#counters.issued.increment();
      const facts = { identity: identities.join(","), serial: issued.serial, notAfter: issued.notAfter.toISOString() };
      log.info("certificate issued", { ...facts, ...factsOf(caller) });
      return { certChain: issued.chain };
    } catch (error) {
      if (!(error instanceof MeshError) && !(error instanceof DOMException)) throw error;
      this.#counters.signErrors.increment({ error: "CERT_GEN_ERROR" });
      log.error("certificate could not be signed", { error: chain(error), ...factsOf(caller) });
      return { status: "INTERNAL", message: "CSR signing error (the CA cannot sign now)" };
    }
  }

  /** The identities to certify: the caller's own, or the one it may impersonate (CP-478, CP-480). */
  async #identitiesFor(request: IstioCertificateRequest, caller: Caller): Promise<readonly string[] | Refusal> {
    const requested = metadataOf(request, IMPERSONATED_IDENTITY);
    if (requested === undefined || requested === "") return caller.identities;
    const refused = typeof requested === "string"
      ? await this.#options.authorizer.refusal(caller, requested)
      : { refused: "the requested identity is not text" };
    if (refused === undefined) return [requested as string];
    this.#counters.badIdentity.increment();
    this.#counters.unauthenticated.increment();
    const identity = JSON.stringify(requested).slice(0, 300);
    this.#options.log.warn("impersonation refused", {
      reason: refused.refused,
      requested: identity,
      ...factsOf(caller),
    });
    return refusalOf(refused, "request impersonation authentication failure");
  }
}

/** An opaque text (CP-472). Whoever could not be checked is told to come again: stock agents do so for UNAVAILABLE alone. */
function refusalOf({ unavailable }: Refused, message: string): Refusal {
  return unavailable ? { status: "UNAVAILABLE", message } : { status: "UNAUTHENTICATED", message };
}

function metadataOf({ metadata }: IstioCertificateRequest, name: string) {
  return metadata !== undefined && Object.hasOwn(metadata, name) ? metadata[name] : undefined;
}

function factsOf({ identities, token }: Caller): Record<string, string> {
  if (token === undefined) return { caller: identities.join(",") };
  const { cluster, namespace, pod, podUid, node } = token;
  const facts = { caller: identities.join(","), cluster, pod: `${namespace}/${pod}`, uid: podUid };
  return node === "" ? facts : { ...facts, node };
}
