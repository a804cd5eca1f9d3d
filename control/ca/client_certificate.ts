/** Callers known by the certificate of their TLS connection, as agents that renew (CP-477). */
import { parseIdentity } from "../../mesh/identity.ts";
import type { AuthenticationWay, Caller, Credentials, Refused } from "./caller.ts";
import type { RevokedCertificates } from "./revoked_certificates.ts";

export class ClientCertificateWay implements AuthenticationWay {
  readonly #isOurs: (trustDomain: string) => boolean;
  readonly #revoked: Pick<RevokedCertificates, "firstOf">;

  /** @param isOurs whether certificates of this trust domain speak for callers. */
  constructor(isOurs: (trustDomain: string) => boolean, revoked: Pick<RevokedCertificates, "firstOf">) {
    this.#isOurs = isOurs;
    this.#revoked = revoked;
  }

  authenticate(credentials: Credentials): Promise<Caller | Refused> {
    return Promise.resolve(this.#judge(credentials));
  }

  #judge({ certificateUris: uris, certificateChain }: Credentials): Caller | Refused {
    if (uris === undefined) return { refused: "no verified client certificate" };
    // Asked with every call, since a connection outlives the list it began with: else a stolen key could be renewed.
    const revoked = this.#revoked.firstOf(certificateChain);
    if (revoked !== undefined) return { refused: `certificate ${revoked} of the client's is revoked` };
    const identities = uris.filter((uri) => {
      const identity = parseIdentity(uri);
      return identity !== undefined && this.#isOurs(identity.trustDomain);
    });
    if (identities.length === 0) return { refused: "the client certificate names no identity of our trust domain" };
    return { identities, token: undefined };
  }
}
