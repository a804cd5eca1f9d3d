/** What the data path asks of the operating system and of OpenSSL: types only, so that a simulation can stand in. */

/** A file descriptor. */
export type Fd = number & { readonly unit?: "fd" };

/**
 * Low memory that both JavaScript and the kernel see. Buffers are named by *offset*; a system call takes the
 * *address*, `base + offset`, which fits 31 bits, so that it travels as a plain number.
 */
export interface Memory {
  readonly base: number;
  readonly sizeBytes: number;
  readonly u8: Uint8Array<ArrayBuffer>;
  readonly i32: Int32Array<ArrayBuffer>;
  readonly u32: Uint32Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;
  /** Takes memory for good. @returns Its offset. */
  allocate(bytes: number, alignment?: number): number;
  /** Gives whole pages back to the kernel: they are there again, and zero, when they are touched next. */
  discard(offset: number, bytes: number): void;
}

/** When the kernel gives up a connection whose other end is silent. */
export interface KeepaliveTimes {
  readonly idleS: number;
  readonly intervalS: number;
  readonly retries: number;
  /** TCP_USER_TIMEOUT; 0: the kernel's own. */
  readonly userTimeoutMs: number;
}

/**
 * System calls of the hot path. Each returns what the kernel returned, or `-errno`; none throws, none blocks, except
 * `wait`. Addresses are absolute (see {@link Memory}).
 */
export interface Os {
  readonly memory: Memory;
  /** recv(2). @returns Bytes, 0 at end of stream, or -errno. */
  receive(fd: Fd, address: number, bytes: number): number;
  /** readv(2) into `count` iovecs at `iovecs`. */
  receiveVector(fd: Fd, iovecs: number, count: number): number;
  /** send(2) with MSG_NOSIGNAL. */
  send(fd: Fd, address: number, bytes: number): number;
  /** writev(2); SIGPIPE is ignored by the process. */
  sendVector(fd: Fd, iovecs: number, count: number): number;
  /** accept4(2), non-blocking and close-on-exec; the peer's address goes to {@link addressWords}. */
  accept(listener: Fd): number;
  /** Words and port of the address that {@link accept}, {@link originalDestination} or {@link localAddress} found. */
  readonly addressWords: Uint32Array;
  /** SO_ORIGINAL_DST, IPv4 then IPv6. @returns 0, the address in {@link addressWords} (four words, then the port), or -errno. */
  originalDestination(fd: Fd): number;
  /**
   * What an application connected to before eBPF turned it here, found in the map by the application's end of the
   * connection: that stands in {@link addressWords}, and there goes the answer (CNI-202). @returns 0 or -errno.
   */
  redirectedDestination(map: Fd, cookieLow: number, cookieHigh: number): number;
  /** getsockname(2), like {@link originalDestination}. */
  localAddress(fd: Fd): number;
  /** getpeername(2), like {@link originalDestination}. */
  peerAddress(fd: Fd): number;
  /** A new stream socket in this thread's network namespace, non-blocking, TCP_NODELAY, keepalive, marked. @returns Descriptor or -errno. */
  openStream(ipv6: boolean, mark: number, keepalive: boolean): number;
  /** socketpair(2), AF_UNIX, both non-blocking. @returns One descriptor, the other in `addressWords[0]`; or -errno. */
  openPair(): number;
  /** Binds a transparent, free address with port 0 (ZT-094). @returns 0 or -errno. */
  bindSource(fd: Fd, word0: number, word1: number, word2: number, word3: number): number;
  /** Binds a transparent address and a port, on the loopback interface alone (CNI-206). @returns 0 or -errno. */
  bindLooped(fd: Fd, word0: number, word1: number, word2: number, word3: number, port: number): number;
  /** connect(2). @returns 0, -EINPROGRESS or another -errno. */
  connect(fd: Fd, word0: number, word1: number, word2: number, word3: number, port: number): number;
  /** SO_ERROR: the outcome of a connect. @returns 0 or -errno. */
  socketError(fd: Fd): number;
  /** TCP_CONGESTION by name; before connect(2), since what the kernel's choice has begun stays in part. @returns 0 or -errno. */
  setCongestionControl(fd: Fd, name: string): number;
  /** shutdown(2) of the writing side. */
  shutdownWrite(fd: Fd): number;
  close(fd: Fd): number;
  /** close(2) with a reset instead of a FIN (SO_LINGER 0). */
  abort(fd: Fd): number;
  /** Reads and drops an eventfd's count. */
  drainEvent(fd: Fd): void;
  /** Adds one to an eventfd. */
  signalEvent(fd: Fd): void;
  /** setns(2) of this thread into a network namespace. @returns 0 or -errno. */
  enterNetns(netns: Fd): number;
  /** A descriptor of the network namespace that this thread is in. @returns Descriptor or -errno. */
  ownNetns(): number;
  /** A new epoll instance. */
  pollCreate(): number;
  /** Adds, with an integer that names the row in events. */
  pollAdd(poll: Fd, fd: Fd, events: number, row: number): number;
  /** Changes the events of interest. */
  pollChange(poll: Fd, fd: Fd, events: number, row: number): number;
  /** Takes a descriptor out, which stays open. */
  pollRemove(poll: Fd, fd: Fd): number;
  /** epoll_wait(2) into `events` (12 bytes each: mask, row, zero). @returns Count or -errno. */
  wait(poll: Fd, events: number, eventsMax: number, timeoutMs: number): number;
  /** Monotonic milliseconds, with fraction. */
  nowMs(): number;
  /** What to add to {@link nowMs} for Unix time in milliseconds. */
  unixOffsetMs(): number;
  /** 32 random bits, not for keys. */
  random32(): number;
}

/** The address of an OpenSSL object, passed between threads as two words; never dereferenced outside os/. */
export interface ContextHandle {
  readonly low: number;
  readonly high: number;
}

/** What a handshake step came to. */
export const HandshakeStep = { WANTS_READ: 0, DONE: 1, FAILED: 2, WANTS_WRITE: 3 } as const;
export type HandshakeStep = (typeof HandshakeStep)[keyof typeof HandshakeStep];

/** A TLS handshake over a socket. Freed by {@link TlsHandshake.free} or by {@link TlsHandshake.takeRecords}. */
export interface TlsHandshake {
  step(): HandshakeStep;
  /** Why the last step failed, as OpenSSL says it. */
  failure(): string;
  /** Whether the last step failed because a certificate of the peer's chain is revoked. */
  readonly peerRevoked: boolean;
  /** URI names of the peer's verified leaf, in order. */
  peerUris(): readonly string[];
  /** How the peer's certificate led to a root, for the caller to keep and free; null if it cannot be kept or nobody asks. */
  takePath(): PeerPath | null;
  /** Ends OpenSSL's part: the record layer with the negotiated keys. The handshake object is gone afterwards. */
  takeRecords(): { readonly sealer: RecordSealer; readonly opener: RecordOpener };
  free(): void;
}

/** This worker's own contexts for one identity, derived from the agent's template. */
export interface TlsIdentity {
  connect(fd: Fd): TlsHandshake;
  accept(fd: Fd): TlsHandshake;
  free(): void;
}

/** A verified chain, for later lists to be held against. */
export interface PeerPath {
  /** Whether a certificate of it is in the lists that are in force now. Its having expired since counts for nothing. */
  readonly revoked: boolean;
  /** For another process, which watches the lists from then on. */
  exportPath(): PeerPathState;
  free(): void;
}

/** A peer's verified chain as bytes: nothing of it is secret. */
export interface PeerPathState {
  /** The leaf's number. */
  readonly serial: Uint8Array;
  readonly negative: boolean;
  /** Certificates by DER, from the leaf's issuer to the root. */
  readonly issuers: readonly Uint8Array[];
}

/** Revocation lists of one worker. */
export interface TlsRevocation {
  /** Puts lists in force, for handshakes and paths alike, and takes over one reference to them. */
  use(lists: ContextHandle): void;
  /** Lists in force that name a peer's certificate without being its issuer's: they count for nothing. */
  readonly forgedCount: number;
  /** A path that another process had. @returns null for what is none. The caller frees it. */
  resumePath(state: PeerPathState): PeerPath | null;
}

/** What every TLS connection of this process must keep to, on both sides. */
export interface TlsPolicy {
  /** Peers are held against revocation lists, of which the agent tells later. */
  readonly revocation?: boolean;
  /** Key exchange by X25519MLKEM768 alone (COMPLIANCE_POLICY=pqc, ZT-080). */
  readonly postQuantumOnly?: boolean;
  /** TLS 1.2 as well as 1.3 (TLS12_ENABLED, ZT-079). Nothing of it is post-quantum: with that asked for, 1.3 alone is spoken. */
  readonly tls12?: boolean;
}

export interface Tls {
  /** null: nobody asks for revocation. */
  readonly revocation: TlsRevocation | null;
  /** Takes over one reference to the template; throws MeshError when OpenSSL refuses it. */
  derive(template: ContextHandle): TlsIdentity;
  /**
   * Goes on with a connection's records where another process stopped. Each key must be in use in one place only: a
   * sequence number that is used twice gives AES-GCM's protection away. @returns undefined for keys that fit no suite.
   */
  resumeRecords(
    seal: TrafficKeys,
    open: TrafficKeys,
  ): { readonly sealer: RecordSealer; readonly opener: RecordOpener } | undefined;
}

/** What one direction of a connection's records stands on. Secret: it never enters a table, log or page. */
export interface TrafficKeys {
  readonly suite: string;
  /** The traffic secret, a copy. */
  readonly secret: Uint8Array;
  /** The number of the next record. */
  readonly sequence: number;
}

/** Outcomes of {@link RecordOpener.open} below zero. */
export const RecordError = { BAD_RECORD: -1, OVERFLOW: -2, UNEXPECTED: -3 } as const;

/** The sending half of a TLS connection (RFC 8446 §5.2, RFC 5288 §3). */
export interface RecordSealer {
  /** Whether the connection is of TLS 1.2: its key lasts as long as it does, and it stays in this process. */
  readonly tls12: boolean;
  /** Content of a full record, which is 2^14 + 22 bytes long in either version. */
  readonly contentBytesMax: number;
  /**
   * Makes a record of the `bytes` of plaintext that lie at `at + 5`, in place: header before, type byte and tag behind.
   * @returns The record's length: `bytes + 22`, or `bytes + 29` in TLS 1.2.
   */
  seal(at: number, bytes: number, contentType: number): number;
  /** Records sealed with the present key. */
  readonly sealedCount: number;
  /** Moves to the next key (RFC 8446 §7.2), after a KeyUpdate was sealed. */
  nextKey(): void;
  /** For another process to go on with: nothing may be sealed afterwards unless that process never will. */
  exportKeys(): TrafficKeys;
  free(): void;
}

/** The receiving half. */
export interface RecordOpener {
  /** As {@link RecordSealer.tls12}. Content types stand in the open then, and handshake messages have no place. */
  readonly tls12: boolean;
  /**
   * Opens the record of `recordBytes` (header included) at `at` in place; content starts at `at + 5`.
   * @returns Content bytes with the type byte last and padding still there, or a {@link RecordError}.
   */
  open(at: number, recordBytes: number): number;
  nextKey(): void;
  /** As {@link RecordSealer.exportKeys}. */
  exportKeys(): TrafficKeys;
  free(): void;
}
