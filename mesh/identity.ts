/** SPIFFE identities as the mesh writes them (ZT-148). */

/** `spiffe://<trust domain>/ns/<namespace>/sa/<service account>` taken apart. */
export interface Identity {
  readonly trustDomain: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** The SPIFFE URI. */
export function formatIdentity(identity: Identity): string {
  return `spiffe://${principalOf(identity)}`;
}

/** The form policies write: the URI without its scheme (ZT-114). */
export function principalOf(identity: Identity): string {
  return `${identity.trustDomain}/ns/${identity.namespace}/sa/${identity.serviceAccount}`;
}

/** Parses a SPIFFE URI of exactly the mesh's form; parts may be empty (ZT-084). @returns undefined for anything else. */
export function parseIdentity(uri: string): Identity | undefined {
  if (!uri.startsWith("spiffe://")) return undefined;
  const parts = uri.slice("spiffe://".length).split("/");
  if (parts.length !== 5 || parts[1] !== "ns" || parts[3] !== "sa") return undefined;
  return { trustDomain: parts[0]!, namespace: parts[2]!, serviceAccount: parts[4]! };
}
