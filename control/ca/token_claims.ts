/** What a token says of itself, unproven: enough to refuse it early, or to forget what was learnt of it, never to believe it. */

export interface UnprovenClaims {
  readonly audiences: readonly string[];
  /** Undefined if the token names no end. */
  readonly expiresAtMs: number | undefined;
}

export const TOKEN_BYTES_MAX = 16_384; // a bound service account token has some 1,200

/** The claims of a compact JWS (RFC 7515 §7.1). @returns undefined if the text is not one. Never throws. */
export function unprovenClaimsOf(token: string): UnprovenClaims | undefined {
  if (token.length > TOKEN_BYTES_MAX) return undefined;
  const payload = /^[\w-]+\.([\w-]+)\.[\w-]+$/.exec(token)?.[1];
  if (payload === undefined) return undefined;
  try {
    const claims: unknown = JSON.parse(
      new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.fromBase64(payload, { alphabet: "base64url" })),
    );
    if (typeof claims !== "object" || claims === null) return undefined;
    const { aud, exp } = claims as { aud?: unknown; exp?: unknown };
    const audiences = typeof aud === "string"
      ? [aud]
      : Array.isArray(aud)
      ? aud.filter((it) => typeof it === "string")
      : [];
    return { audiences, expiresAtMs: typeof exp === "number" ? exp * 1_000 : undefined };
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return undefined; // Neither base64, UTF-8 nor JSON.
    throw error;
  }
}
