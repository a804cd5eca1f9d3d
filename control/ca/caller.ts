/** Who calls: a verified client certificate, or a token, tried in that order (CP-430, CP-475). */
import { formatIdentity, parseIdentity } from "../../mesh/identity.ts";
import type { TokenIssuer, TokenSubject } from "../tokens.ts";

/** An authenticated caller. */
export interface Caller {
  /** SPIFFE URIs; never empty. */
  readonly identities: readonly string[];
  /** Only with a token: a certificate says nothing of a pod, so it cannot impersonate (CP-477). */
  readonly token: TokenSubject | undefined;
}

/** What a call presents. */
export interface Credentials {
  /** URI SANs of a client certificate that TLS has verified against the mesh's roots; undefined without one. */
  readonly certificateUris: readonly string[] | undefined;
  /** Values of the `authorization` header. */
  readonly authorization: readonly string[];
  /** Values of the `clusterid` header. */
  readonly clusterId: readonly string[];
}

export interface AuthenticatorOptions {
  readonly tokens: TokenIssuer;
  readonly trustDomain: string;
  readonly clusterId: string;
  readonly now: () => number;
}

export class Authenticator {
  readonly #options: AuthenticatorOptions;

  constructor(options: AuthenticatorOptions) {
    this.#options = options;
  }

  /** @returns The caller, or why every way failed as `{ refused }`: for the log, never for the caller (CP-472). */
  async authenticate(credentials: Credentials): Promise<Caller | { refused: string }> {
    const certificate = this.#byCertificate(credentials.certificateUris);
    if (!("refused" in certificate)) return certificate;
    const token = await this.#byToken(credentials);
    if (!("refused" in token)) return token;
    return { refused: `${certificate.refused}; ${token.refused}` };
  }

  #byCertificate(uris: readonly string[] | undefined): Caller | { refused: string } {
    if (uris === undefined) return { refused: "no verified client certificate" };
    const trustDomain = this.#options.trustDomain;
    const identities = uris.filter((uri) => parseIdentity(uri)?.trustDomain === trustDomain);
    if (identities.length === 0) return { refused: `the client certificate names no identity of ${trustDomain}` };
    return { identities, token: undefined };
  }

  async #byToken({ authorization, clusterId }: Credentials): Promise<Caller | { refused: string }> {
    if (authorization.length !== 1) return { refused: `${authorization.length} authorization headers` };
    const token = /^(?:Bearer|Istio) (\S+)$/.exec(authorization[0]!)?.[1];
    if (token === undefined) return { refused: "the authorization header is not Bearer and a token" };
    const { trustDomain, tokens, now, clusterId: own } = this.#options;
    if (clusterId.some((it) => it !== own)) { // CP-476: absent means ours, unknown is a failure.
      return { refused: `cluster ${JSON.stringify(clusterId.join(",").slice(0, 100))} is unknown; ours is ${own}` };
    }
    const subject = await tokens.verify(token, now());
    if ("refused" in subject) return subject;
    return { identities: [formatIdentity({ trustDomain, ...subject })], token: subject };
  }
}
