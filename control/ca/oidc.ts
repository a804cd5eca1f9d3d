/** Callers known by a token of an OpenID Connect issuer, as JWT_RULE names one (CP-430). */
import * as jose from "jose";
import { MeshError } from "../../base/errors.ts";
import { formatIdentity } from "../../mesh/identity.ts";
import { isNamespaceName, isObjectName } from "../tokens.ts";
import { type AuthenticationWay, bearerTokenOf, type Caller, type Credentials, type Refused } from "./caller.ts";
import { TOKEN_BYTES_MAX } from "./token_claims.ts";

/** Whose tokens count, as Istio's JWTRule has it. */
export interface OidcRule {
  readonly issuer: string;
  /** Empty: the issuer's own discovery page says where its keys are. */
  readonly keysUrl: string;
  readonly audiences: readonly string[];
}

export interface OidcOptions {
  readonly rule: OidcRule;
  readonly trustDomain: () => string;
  readonly now: () => number;
  /** For tests; the runtime's own otherwise. */
  readonly fetch?: (url: string, init: RequestInit) => Promise<Response>;
}

const FETCH_MS_MAX = 5_000;
const PAGE_BYTES_MAX = 1_048_576; // keys of an issuer take some KiB
const KEYS_AGE_MS_MAX = 600_000;
const COOL_DOWN_MS = 30_000; // between two fetches for keys that are not among those known
const ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

/** Reads JWT_RULE. @throws MeshError AMB0257 */
export function readOidcRule(json: string): OidcRule {
  const refuse = (what: string, cause?: unknown) =>
    new MeshError("AMB0257", `JWT_RULE cannot be used: ${what}`, {
      remedy: 'give it as {"issuer":"https://…","jwks_uri":"https://…","audiences":["istio-ca"]}',
      cause,
    });
  let rule: Record<string, unknown>;
  try {
    const parsed: unknown = JSON.parse(json);
    if (typeof parsed !== "object" || parsed === null) throw refuse("it is no object");
    rule = parsed as Record<string, unknown>;
  } catch (cause) {
    if (cause instanceof MeshError) throw cause;
    throw refuse("it is no JSON", cause);
  }
  const { issuer, audiences } = rule, keysUrl = rule.jwksUri ?? rule.jwks_uri ?? "";
  if (typeof issuer !== "string" || issuer === "") throw refuse("it names no issuer");
  if (typeof keysUrl !== "string") throw refuse("jwks_uri is no text");
  const texts = Array.isArray(audiences) && audiences.every((it) => typeof it === "string" && it !== "");
  if (!texts || audiences.length === 0) throw refuse("it names no audiences, so it would let nobody in");
  for (const url of [issuer, ...(keysUrl === "" ? [] : [keysUrl])]) {
    if (!isSafe(url)) throw refuse(`${JSON.stringify(url.slice(0, 200))} is no https address`);
  }
  return { issuer, keysUrl, audiences: audiences as string[] };
}

/** Keys that came in the clear are anybody's, but for those of this machine. */
function isSafe(text: string): boolean {
  const url = URL.parse(text);
  if (url === null) return false;
  return url.protocol === "https:" ||
    (url.protocol === "http:" && ["localhost", "127.0.0.1", "[::1]"].includes(url.hostname));
}

export class OidcWay implements AuthenticationWay {
  readonly #options: OidcOptions;
  #keys: Promise<jose.JWTVerifyGetKey> | undefined;

  constructor(options: OidcOptions) {
    this.#options = options;
  }

  async authenticate(credentials: Credentials): Promise<Caller | Refused> {
    const bearer = bearerTokenOf(credentials);
    if ("refused" in bearer) return bearer;
    const { rule, now, trustDomain } = this.#options;
    if (bearer.token.length > TOKEN_BYTES_MAX) return { refused: "the token is too long" };
    try {
      // Another issuer's token asks nobody for keys: most tokens are a cluster's.
      if (jose.decodeJwt(bearer.token).iss !== rule.issuer) return { refused: `the token is not of ${rule.issuer}` };
      this.#keys ??= this.#findKeys();
      const { payload } = await jose.jwtVerify(bearer.token, await this.#keys, {
        algorithms: ALGORITHMS,
        issuer: rule.issuer,
        audience: [...rule.audiences],
        currentDate: new Date(now()),
        requiredClaims: ["exp", "sub"],
      });
      const [system, kind, namespace, serviceAccount, ...rest] = (payload.sub ?? "").split(":");
      const wellFormed = system === "system" && kind === "serviceaccount" && rest.length === 0;
      if (!wellFormed || !isNamespaceName(namespace ?? "") || !isObjectName(serviceAccount ?? "")) {
        return { refused: "the token's subject is not system:serviceaccount:NAMESPACE:NAME" };
      }
      const identity = { trustDomain: trustDomain(), namespace: namespace!, serviceAccount: serviceAccount! };
      return { identities: [formatIdentity(identity)], token: undefined };
    } catch (error) {
      // jose throws for whatever is wrong with a token; hostile input is an ordinary outcome here.
      const refused = `the token is refused: ${error instanceof Error ? error.message : String(error)}`;
      return { refused, unavailable: error instanceof KeysUnreachable || error instanceof jose.errors.JWKSTimeout };
    }
  }

  async #findKeys(): Promise<jose.JWTVerifyGetKey> {
    const { rule } = this.#options;
    try {
      const url = rule.keysUrl === "" ? await this.#discover() : rule.keysUrl;
      return jose.createRemoteJWKSet(new URL(url), {
        timeoutDuration: FETCH_MS_MAX,
        cooldownDuration: COOL_DOWN_MS,
        cacheMaxAge: KEYS_AGE_MS_MAX,
        [jose.customFetch]: (url, { signal, headers }) => this.#fetch(url, { signal, headers }),
      });
    } catch (error) {
      this.#keys = undefined; // Looked for again by the next caller.
      throw error;
    }
  }

  /** OpenID Connect Discovery 1.0 §4. */
  async #discover(): Promise<string> {
    const { issuer } = this.#options.rule;
    const page = `${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`;
    const response = await this.#fetch(page, { signal: AbortSignal.timeout(FETCH_MS_MAX) });
    const found = await response.json() as { issuer?: unknown; jwks_uri?: unknown } | null;
    if (found?.issuer !== issuer || typeof found.jwks_uri !== "string" || !isSafe(found.jwks_uri)) {
      throw new KeysUnreachable(`${page} does not say where the keys of ${issuer} are`);
    }
    return found.jwks_uri;
  }

  /** A page in memory, of bounded size, from the address itself. @throws KeysUnreachable */
  async #fetch(url: string, init: RequestInit): Promise<Response> {
    try {
      const response = await (this.#options.fetch ?? fetch)(url, { ...init, redirect: "error" });
      const parts: Uint8Array<ArrayBuffer>[] = [];
      let bytes = 0;
      for await (const part of response.body ?? []) {
        parts.push(part as Uint8Array<ArrayBuffer>);
        if ((bytes += part.length) > PAGE_BYTES_MAX) throw new KeysUnreachable(`${url} is longer than we read`);
      }
      if (!response.ok) throw new KeysUnreachable(`${url} answers with status ${response.status}`);
      return new Response(new Blob(parts));
    } catch (cause) {
      if (cause instanceof KeysUnreachable) throw cause;
      throw new KeysUnreachable(`${url} cannot be read`, { cause });
    }
  }
}

class KeysUnreachable extends Error {
  override readonly name = "KeysUnreachable";
}
