/** How to reach an API server and who we are there: what a kubeconfig or a pod's environment comes to. */

import type { Socket } from "node:net";

/** A certificate and its key, as PEM. */
export interface KeyPair {
  readonly certificate: string;
  readonly key: string;
}

/** Who we are, for one request. Both may be absent: anonymous. */
export interface Credential {
  readonly token?: string;
  readonly keyPair?: KeyPair;
}

/** Where credentials come from; those of a file or a program change while we run. */
export interface Credentials {
  /** What is valid now. @throws MeshError if it cannot be had. */
  current(signal: AbortSignal): Promise<Credential>;
  /** The API server answered 401 to this one: the next must be another, if there is one. */
  refused(credential: Credential): void;
}

/** Opens a connection to a host and port where a proxy lies between, unless the signal comes first. Rejects with why it cannot. */
export type Dial = (host: string, port: number, signal: AbortSignal) => Promise<Socket>;

/** Everything a client needs. Made without a connection. */
export interface KubeAccess {
  /** `https:` or `http:`, host, port and perhaps a path before the API's own. */
  readonly server: URL;
  /** Whom to trust, as PEM; undefined: the roots of the system. Then no other root is trusted. */
  readonly ca: string | undefined;
  /** The name that its certificate must have, if it is not the URL's. */
  readonly serverName: string | undefined;
  /** Whether its certificate is taken unseen. */
  readonly insecure: boolean;
  readonly credentials: Credentials;
  /** Sent with each request: impersonation. */
  readonly headers: Readonly<Record<string, string | readonly string[]>>;
  /** The namespace that the context names, or our own pod's; empty: none. */
  readonly namespace: string;
  /** Absent: connections are opened directly. */
  readonly dial?: Dial;
  /** For people: `in-cluster`, or file and context. */
  readonly source: string;
}

/** Credentials that never change. */
export function fixedCredentials(credential: Credential): Credentials {
  return { current: () => Promise.resolve(credential), refused: () => {} };
}
