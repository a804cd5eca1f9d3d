/** Callers known by a service account token that their cluster's API server vouches for (CP-476). */
import { formatIdentity } from "../../mesh/identity.ts";
import type { TokenSubject } from "../tokens.ts";
import { type AuthenticationWay, bearerTokenOf, type Caller, type Credentials, type Refused } from "./caller.ts";
import type { CallerCluster, CallerClusters } from "./caller_clusters.ts";
import { type Found, ReviewCache } from "./review_cache.ts";
import { unprovenClaimsOf } from "./token_claims.ts";
import { reviewToken } from "./token_review.ts";

export interface KubernetesTokenOptions {
  readonly clusters: CallerClusters;
  /** TOKEN_AUDIENCES: a token must be for one of them. */
  readonly audiences: readonly string[];
  readonly trustDomain: () => string;
  readonly now: () => number;
}

const BELIEVED_MS = 5_000; // a pod that is gone keeps its token this long; a node asks for its pods' certificates within it
const DISBELIEVED_MS = 1_000; // the same wrong token again, by a client without back-off
const ENTRIES_MAX = 10_000; // some 300 bytes each; about as many pods and nodes as start within five seconds
const REVIEWS_OPEN_MAX = 64; // under the API server's usual 200 mutating calls at once
const REVIEWS_WAITING_MAX = 4_096;
const SKEW_MS = 60_000; // our clock and the API server's may differ by this much

export class KubernetesTokenWay implements AuthenticationWay {
  readonly #options: KubernetesTokenOptions;
  readonly #reviews: ReviewCache<TokenSubject | Refused>;

  constructor(options: KubernetesTokenOptions) {
    this.#options = options;
    this.#reviews = new ReviewCache({
      now: options.now,
      entriesMax: ENTRIES_MAX,
      openMax: REVIEWS_OPEN_MAX,
      waitingMax: REVIEWS_WAITING_MAX,
    });
  }

  async authenticate(credentials: Credentials): Promise<Caller | Refused> {
    const bearer = bearerTokenOf(credentials);
    if ("refused" in bearer) return bearer;
    const { clusters, trustDomain } = this.#options;
    const cluster = clusters.named(credentials.clusterId);
    if (cluster?.api === undefined) {
      const named = JSON.stringify(credentials.clusterId.join(",").slice(0, 100));
      return { refused: `cluster ${named} is unknown; known are ${clusters.ids().join(", ").slice(0, 300)}` };
    }
    const subject = await this.#subjectOf(bearer.token, cluster);
    if ("refused" in subject) return subject;
    const { namespace, serviceAccount } = subject;
    const identity = formatIdentity({ trustDomain: trustDomain(), namespace, serviceAccount });
    return { identities: [identity], token: { ...subject, cluster: cluster.id } };
  }

  async #subjectOf(token: string, { id, api }: CallerCluster): Promise<TokenSubject | Refused> {
    const { audiences, now } = this.#options;
    // Refused without asking whatever the API server would refuse: who floods us must not flood it.
    const claims = unprovenClaimsOf(token);
    if (claims === undefined) return { refused: "the token is no JWT" };
    const { expiresAtMs } = claims;
    if (expiresAtMs !== undefined && expiresAtMs + SKEW_MS < now()) return { refused: "the token has expired" };
    if (claims.audiences.length > 0 && !claims.audiences.some((it) => audiences.includes(it))) {
      return { refused: `the token is for ${JSON.stringify(claims.audiences.join(",").slice(0, 100))}` };
    }
    const ask = async (): Promise<Found<TokenSubject | Refused>> => {
      const value = await reviewToken(api!, token, audiences);
      if ("refused" in value) return { value, untilMs: value.unavailable ? 0 : now() + DISBELIEVED_MS };
      return { value, untilMs: Math.min(now() + BELIEVED_MS, expiresAtMs ?? 0) };
    };
    return await this.#reviews.find(id, token, ask) ??
      { refused: "too many tokens wait for review", unavailable: true };
  }
}
