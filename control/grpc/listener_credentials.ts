/** What a TLS listener presents and whom it believes, changed live (CP-003, CP-006). */
import type { DetailedPeerCertificate, TlsOptions, TLSSocket } from "node:tls";
import type { Peer } from "./carrier.ts";
import { TLS_VERSIONS, type TlsRules } from "./tls_rules.ts";

/** Our certificate with its key, and the roots that client certificates must lead to. */
export interface ServerTls {
  readonly chainPem: string;
  readonly keyPem: string;
  readonly rootsPem: string;
}

const HANDSHAKE_MS_MAX = 10_000;
const ISSUERS_MAX = 16; // a chain that verifies is shorter

export class ListenerCredentials {
  readonly rules: TlsRules;
  readonly #subscribers = new Set<(tls: ServerTls) => void>();
  #now: ServerTls;
  #rootsChanged = false;

  constructor(tls: ServerTls, rules: TlsRules = { tlsVersionMin: "TLSV1_2" }) {
    this.#now = tls;
    this.rules = rules;
  }

  get now(): ServerTls {
    return this.#now;
  }

  /** Whether a certificate may have been verified against other roots than those of now. */
  get rootsChanged(): boolean {
    return this.#rootsChanged;
  }

  /** New handshakes use these from here on; connections that stand are kept (CP-006). */
  update(tls: ServerTls): void {
    if (tls.rootsPem !== this.#now.rootsPem) this.#rootsChanged = true;
    this.#now = tls;
    for (const subscriber of this.#subscribers) subscriber(tls);
  }

  /** Hears of every update. @returns What ends that. */
  subscribe(subscriber: (tls: ServerTls) => void): () => void {
    this.#subscribers.add(subscriber);
    return () => void this.#subscribers.delete(subscriber);
  }
}

/** A client certificate is asked for, but not demanded: the call decides what to do without one. */
export function tlsOptions({ chainPem, keyPem, rootsPem }: ServerTls, rules: TlsRules): TlsOptions {
  return {
    cert: chainPem,
    key: keyPem,
    ca: rootsPem,
    requestCert: true,
    // True would refuse whoever has none. What does not verify is refused by verifiedPeer().
    rejectUnauthorized: false,
    minVersion: TLS_VERSIONS[rules.tlsVersionMin],
    ALPNProtocols: ["h2"],
    handshakeTimeout: rules.handshakeMsMax ?? HANDSHAKE_MS_MAX,
  };
}

/**
 * Who is at the other end of a handshake that succeeded: whoever shows a certificate that does not verify is refused before
 * a byte of his is read (CP-003). A resumed session was verified against the roots of its first handshake, which the
 * runtime does not repeat, so that it counts only as long as those are the roots of now.
 */
export function verifiedPeer(
  socket: Pick<TLSSocket, "authorized" | "authorizationError" | "getPeerCertificate" | "isSessionReused">,
  rootsChanged: boolean,
): Pick<Peer, "certificate" | "issuers"> | { readonly refused: string } {
  const peer = socket.getPeerCertificate(true); // Undefined or empty without one.
  const certificate = peer?.raw;
  if (certificate === undefined) return ANONYMOUS;
  const known = { certificate: new Uint8Array(certificate), issuers: issuersOf(peer) };
  if (!socket.authorized) return { refused: `its certificate does not verify: ${socket.authorizationError}` };
  if (!socket.isSessionReused()) return known;
  if (rootsChanged) return { refused: "its session is of a time with other roots" };
  if (!(Date.parse(peer.valid_to) > Date.now())) return { refused: "its certificate has expired" };
  return known;
}

/** Nobody has shown a certificate. */
export const ANONYMOUS: Pick<Peer, "certificate" | "issuers"> = Object.freeze({ certificate: undefined, issuers: [] });

/** The certificates above a peer's own. A root's issuer is the root itself. */
function issuersOf(peer: DetailedPeerCertificate): Uint8Array[] {
  const issuers: Uint8Array[] = [];
  let at: DetailedPeerCertificate | undefined = peer;
  while (issuers.length < ISSUERS_MAX && at?.issuerCertificate !== undefined && at.issuerCertificate !== at) {
    at = at.issuerCertificate;
    issuers.push(new Uint8Array(at.raw));
  }
  return issuers;
}
