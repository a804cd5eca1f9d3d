/** Callers known by the certificate of their TLS connection, as agents that renew (CP-477). */
import { parseIdentity } from "../../mesh/identity.ts";
import type { AuthenticationWay, Caller, Credentials, Refused } from "./caller.ts";

export class ClientCertificateWay implements AuthenticationWay {
  readonly #isOurs: (trustDomain: string) => boolean;

  /** @param isOurs whether certificates of this trust domain speak for callers. */
  constructor(isOurs: (trustDomain: string) => boolean) {
    this.#isOurs = isOurs;
  }

  authenticate({ certificateUris }: Credentials): Promise<Caller | Refused> {
    return Promise.resolve(this.#judge(certificateUris));
  }

  #judge(uris: readonly string[] | undefined): Caller | Refused {
    if (uris === undefined) return { refused: "no verified client certificate" };
    const identities = uris.filter((uri) => {
      const identity = parseIdentity(uri);
      return identity !== undefined && this.#isOurs(identity.trustDomain);
    });
    if (identities.length === 0) return { refused: "the client certificate names no identity of our trust domain" };
    return { identities, token: undefined };
  }
}
