/** Who calls: several ways of finding out, tried in order until one succeeds (CP-430, CP-475). */
import type { TokenSubject } from "../tokens.ts";

/** Whom a token speaks for, and the cluster that vouches for it. */
export interface CallerToken extends TokenSubject {
  readonly cluster: string;
}

/** An authenticated caller. */
export interface Caller {
  /** SPIFFE URIs; empty only where nobody was asked. */
  readonly identities: readonly string[];
  /** Only with a token of a pod: nothing else says which pod calls, so nothing else can impersonate (CP-477). */
  readonly token: CallerToken | undefined;
}

/** What a call presents. */
export interface Credentials {
  /** URI SANs of a client certificate that TLS has verified against the mesh's roots; undefined without one. */
  readonly certificateUris: readonly string[] | undefined;
  /** That certificate and those above it, in DER; empty without one. */
  readonly certificateChain: readonly Uint8Array[];
  /** Values of the `authorization` header. */
  readonly authorization: readonly string[];
  /** Values of the `clusterid` header. */
  readonly clusterId: readonly string[];
  /** Values of the `x-forwarded-client-cert` header. */
  readonly forwardedCertificate: readonly string[];
  /** The address of the connection's other end, without its port; empty if it is not known. */
  readonly peerAddress: string;
}

/** Why a way failed: for the log, never for the caller (CP-472). */
export interface Refused {
  readonly refused: string;
  /** Whoever would know cannot be asked now; the same call may succeed later. */
  readonly unavailable?: boolean;
}

/** One way of finding out who calls. It never throws. */
export interface AuthenticationWay {
  authenticate(credentials: Credentials): Promise<Caller | Refused>;
}

export class Authenticator implements AuthenticationWay {
  readonly #ways: readonly AuthenticationWay[];

  constructor(ways: readonly AuthenticationWay[]) {
    this.#ways = ways;
  }

  /** @returns The caller of the first way that succeeds, or why every way failed. */
  async authenticate(credentials: Credentials): Promise<Caller | Refused> {
    const reasons: string[] = [];
    let unavailable = false;
    for (const way of this.#ways) {
      const result = await way.authenticate(credentials);
      if (!("refused" in result)) return result;
      reasons.push(result.refused);
      unavailable ||= result.unavailable === true;
    }
    return { refused: reasons.join("; "), unavailable };
  }
}

/** Takes everybody, as nobody in particular: XDS_AUTH=false. Never for the CA. */
export const NO_AUTHENTICATION: AuthenticationWay = Object.freeze({
  authenticate: () => Promise.resolve({ identities: [], token: undefined }),
});

/** The token of the one `authorization` header that a call may have. */
export function bearerTokenOf({ authorization }: Credentials): { token: string } | Refused {
  if (authorization.length !== 1) return { refused: `${authorization.length} authorization headers` };
  const token = /^(?:Bearer|Istio) (\S+)$/.exec(authorization[0]!)?.[1];
  return token === undefined ? { refused: "the authorization header is not Bearer and a token" } : { token };
}
