/** Callers known by a token of our own issuer, where no Kubernetes is there to ask (CP-476). */
import { formatIdentity } from "../../mesh/identity.ts";
import type { TokenIssuer } from "../tokens.ts";
import { type AuthenticationWay, bearerTokenOf, type Caller, type Credentials, type Refused } from "./caller.ts";

export interface OwnTokenOptions {
  readonly tokens: TokenIssuer;
  readonly trustDomain: () => string;
  readonly clusterId: string;
  readonly now: () => number;
}

export class OwnTokenWay implements AuthenticationWay {
  readonly #options: OwnTokenOptions;

  constructor(options: OwnTokenOptions) {
    this.#options = options;
  }

  async authenticate(credentials: Credentials): Promise<Caller | Refused> {
    const bearer = bearerTokenOf(credentials);
    if ("refused" in bearer) return bearer;
    const { trustDomain, tokens, now, clusterId: own } = this.#options;
    if (credentials.clusterId.some((it) => it !== own)) { // CP-476: absent means ours, unknown is a failure.
      const named = JSON.stringify(credentials.clusterId.join(",").slice(0, 100));
      return { refused: `cluster ${named} is unknown; ours is ${own}` };
    }
    const subject = await tokens.verify(bearer.token, now());
    if ("refused" in subject) return subject;
    const identity = formatIdentity({ trustDomain: trustDomain(), ...subject });
    return { identities: [identity], token: { ...subject, cluster: own } };
  }
}
