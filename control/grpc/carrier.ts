/** What a connection's bytes travel on, TLS or not: what HTTP/2 asks of it, so that tests can be one. */

export interface Carrier {
  /**
   * Takes bytes, one write at a time. Other carriers may be writing the very same ones: nobody changes them.
   * @param taken called once they have left this process's memory.
   */
  write(bytes: Uint8Array, taken: () => void): void;
  /** Ends once what was written has left. */
  end(): void;
  /** Ends now. */
  destroy(): void;
}

/** Who is at the other end. */
export interface Peer {
  /** Without a port. */
  readonly host: string;
  readonly port: number;
  /** DER of the client certificate that TLS has verified; undefined if there was none. */
  readonly certificate: Uint8Array | undefined;
  /** Those that it leads to, each one's issuer behind it, as far as they were shown or are roots of ours. */
  readonly issuers: readonly Uint8Array[];
}
