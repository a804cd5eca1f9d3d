/** Every table that agent and workers share, declared once. The comment behind a field says who writes it, if not the table's owner. */
import { array, bytes, layout } from "../../base/shm/layout.ts";

/** Most workers a node can have: listeners of a pod are stored per worker. */
export const WORKERS_MAX = 16;

/** Longest SPIFFE URI an identity row holds; the SPIFFE standard allows 2048 bytes, the mesh's own form stays far below. */
export const IDENTITY_BYTES_MAX = 512;

/** Bound of a flow's label text; longer texts are cut, and say so. */
export const LABEL_BYTES_MAX = 1024;

/** "AMB1" in ASCII. */
export const TABLES_MAGIC = 0x414d4231;

/** One row. Written by the agent before any worker starts, but for the atomics. */
export const HEADER = layout("header", {
  magic: "u32", // TABLES_MAGIC
  workerCount: "u32",
  generation: "atomic", // the live snapshot; 0: none yet. Its slot is `generation & 1`
  accessOpened: "atomic", // 1: workers also write a record when a connection is counted (ZT-204)
  policyLevel: "atomic", // the log level at which workers tell of each policy decision; 0: they do not (ZT-206)
  networkBytes: "u32",
  network: bytes(256), // the node's own network (NETWORK), UTF-8
});

/** What a turn should never take: everything of the worker waits for it. */
export const SLOW_TURN_MS = 5;

export const WorkerState = { ABSENT: 0, LIVE: 1, STOPPED: 2 } as const;

/** One row a worker. The worker writes its own row, but for `state`, `draining`. */
export const WORKER = layout("worker", {
  state: "atomic", // WorkerState; the agent's
  draining: "atomic", // 1: accept nothing more; the agent's
  acknowledgedGeneration: "atomic", // the snapshot this worker reads
  load: "atomic", // open connections, for whoever hands out work
  turns: "f64", // also the heartbeat: it stands still only if the worker does
  accepted: "f64",
  handshakes: "f64",
  handshakeFailures: "f64",
  glitches: "f64",
  upstreamSessions: "f64", // HBONE sessions we opened and still hold
  downstreamSessions: "f64",
  socketsOpen: array("f64", 2), // accepted sockets by Direction (ZT-198)
  revocationRejections: array("f64", 2), // by Direction
  revocationUntracked: array("f64", 2), // by Direction
  flowOverflows: "f64", // connections reported under the overflow flow
  longestTurnUs: "f64", // since the start
  slowTurns: "f64", // longer than SLOW_TURN_MS
  padding: bytes(40), // three cache lines: workers count every turn, and must not share one
});

export const PodState = { FREE: 0, ACTIVE: 1, CLOSING: 2 } as const;

/** `flags` of a pod row. */
export const PodFlag = { TRANSPARENT: 1, IPV6: 2, SOCKS: 4, OWN: 8, SHARED: 16 } as const; // OWN: the proxy itself (ZT-005); SHARED: in the host's namespace, beside others

/** Ports that a workload of the host's namespace serves at most. */
export const SHARED_PORTS_MAX = 15;

/** One enrolled pod. The agent's; each worker writes its own descriptors. */
export const POD = layout("pod", {
  state: "atomic", // PodState
  epoch: "u32", // grows with each use of the row
  netnsFd: "i32", // -1: the proxy's own namespace
  identityRow: "i32", // -1: not known yet, since its workload is not (ZT-043)
  flags: "u32", // PodFlag
  byTuple: "atomic", // descriptor of the map of redirected connections, plus one; 0: rules redirect (CNI-202)
  cookieLow: "u32", // of the pod's namespace, for that map's keys
  cookieHigh: "u32",
  outboundFd: array("i32", WORKERS_MAX), // by worker; -1: not listening
  hboneFd: array("i32", WORKERS_MAX),
  plaintextFd: array("i32", WORKERS_MAX),
  socksFd: array("i32", WORKERS_MAX), // with PodFlag.SOCKS only
  sharedPortCount: "u32", // with PodFlag.SHARED: what it serves, at which address of the host; all zero is every one
  sharedPorts: array("u32", SHARED_PORTS_MAX),
  sharedIp: array("u32", 4),
  whoBytes: "u32",
  who: bytes(256), // `<service account>.<namespace> (<name>)`, for the access log (ZT-016)
});

export const IdentityState = { FREE: 0, PENDING: 1, READY: 2, FAILED: 3 } as const;

/** One SPIFFE identity of this node. The agent's. Read the handle through `readContext` (identities.ts): it is two words. */
export const IDENTITY = layout("identity", {
  state: "atomic", // IdentityState
  version: "atomic", // odd while the agent writes
  contextLow: "atomic", // address of an SSL_CTX that workers make their sessions from
  contextHigh: "atomic", // atomic so that no processor reads them after `version`
  expiresAtMs: "f64", // of the leaf, in Unix time
  uriBytes: "u32",
  failureBytes: "u32",
  uri: bytes(IDENTITY_BYTES_MAX),
  failure: bytes(256), // why FAILED, for the access log
});

/** ZT-195, in the order of their numbers. */
export const ResponseFlag = {
  NONE: 0,
  DENY: 1,
  CONNECT: 2,
  TLS_FAILURE: 3,
  H2_HANDSHAKE_FAILURE: 4,
  NETWORK_POLICY: 5,
  IDENTITY_ERROR: 6,
  CERT_REVOKED: 7,
} as const;
export type ResponseFlag = (typeof ResponseFlag)[keyof typeof ResponseFlag];

/** As the label `response_flags` writes them. */
export const RESPONSE_FLAG_NAMES = [
  "-",
  "DENY",
  "CONNECT",
  "TLS_FAILURE",
  "H2_HANDSHAKE_FAILURE",
  "NETWORK_POLICY",
  "IDENTITY_ERROR",
  "CERT_REVOKED",
] as const;

/** Outbound connections are reported by the source, inbound ones by the destination (ZT-199). */
export const Direction = { OUTBOUND: 0, INBOUND: 1 } as const;
export type Direction = (typeof Direction)[keyof typeof Direction];

export const FlowState = { FREE: 0, LIVE: 1, RETIRED: 2 } as const;

/**
 * One set of connections with equal telemetry. The worker's, but for RETIRED → FREE: a worker retires a row that no
 * connection uses, and may use it again only when the agent has taken its last counts and freed it.
 */
export const FLOW = layout("flow", {
  state: "atomic", // FlowState
  epoch: "u32", // grows with each use of the row
  references: "u32", // open connections
  labelBytes: "u32",
  opened: "f64",
  closed: array("f64", RESPONSE_FLAG_NAMES.length), // by ResponseFlag; failed is the sum of all but NONE (ZT-196)
  receivedBytes: "f64", // from the connection's initiator (ZT-197)
  sentBytes: "f64", // to it
  label: bytes(LABEL_BYTES_MAX), // FLOW_FIELDS joined by U+0001, UTF-8
});

export const ConnectionState = { FREE: 0, OPENING: 1, OPEN: 2, CLOSING: 3 } as const;
export const ConnectionKind = { TCP: 0, HBONE: 1, DOUBLE_HBONE: 2 } as const;
export const CONNECTION_KIND_NAMES = ["TCP", "HBONE", "DOUBLEHBONE"] as const;

/** Set in `control` by any thread. */
export const CLOSE_REQUESTED = 1;

/** One live connection. The worker that accepted it is the only writer, `control` excepted. */
export const CONNECTION = layout("connection", {
  state: "atomic", // ConnectionState
  control: "atomic", // any thread may OR in CLOSE_REQUESTED
  epoch: "u32",
  flowRow: "i32", // -1: not counted yet
  podRow: "i32",
  direction: "u32", // Direction
  kind: "u32", // ConnectionKind
  policyGeneration: "u32", // the snapshot whose policies let it in
  sourceIp: array("u32", 4),
  sourcePort: "u32",
  destinationPort: "u32",
  destinationIp: array("u32", 4), // what the application addressed
  actualIp: array("u32", 4), // what was dialled
  actualPort: "u32",
  hostBytes: "u32",
  openedAtMs: "f64", // Unix time: workers share no monotonic origin
  receivedBytes: "f64", // from the initiator; application bytes, without TLS or framing
  sentBytes: "f64",
  host: bytes(128), // inbound: the `forwarded` host (ZT-213)
});

/**
 * How far a worker is in handing its connections over, or in taking some. The agent asks for a phase, and the worker says
 * which it has reached (decision 14).
 */
export const TakeoverPhase = {
  RUN: 0,
  /** Accept nothing: newcomers wait in the kernel's queues. */
  QUIET: 1,
  /** Write everything down, and touch nothing from then on. */
  FROZEN: 2,
  /** Let go of what was written down: it is the successor's. */
  RELEASED: 3,
  /** Build what another process wrote down, and touch nothing of it. */
  ADOPTED: 4,
  /** What was built is ours. */
  LIVE: 5,
  /** A worker's answer: it cannot, for the reason in its row. */
  FAILED: 6,
} as const;
export type TakeoverPhase = (typeof TakeoverPhase)[keyof typeof TakeoverPhase];

/** One row a worker. The worker's, but for `asked` and `adoptionFd`. */
export const TAKEOVER = layout("takeover", {
  asked: "atomic", // TakeoverPhase; the agent's
  reached: "atomic", // TakeoverPhase
  adoptionFd: "i32", // what to adopt, a memory file; the agent's, the worker closes it
  stateFd: "i32", // what was written down, a memory file; both are open while the worker is frozen
  handlesFd: "i32", // the descriptors that it names, 32-bit words
  listeningFd: "i32", // once live: what was adopted to listen on, a memory file that the agent closes; -1: none
  sessions: "u32",
  connections: "u32",
  left: "u32", // connections that stay
  frozenAtMs: "f64", // Unix time
  reasonBytes: "u32",
  reason: bytes(256), // of FAILED
});

/** What stands in word 0 of a command (agent → worker). Words 1 to 7 are its arguments. */
export const Command = {
  POD_ADDED: 1, // pod row, epoch
  POD_REMOVED: 2, // pod row, epoch
  IDENTITY_CHANGED: 3, // identity row
  CLOSE_CONNECTION: 4, // connection row, epoch
  DRAIN: 5, // deadline in ms from now
  ANSWER: 6, // question number, AnswerStatus, 4 words of address
  STOP: 7,
  POLICIES_CHANGED: 8, // generation
  POD_IDENTITY: 9, // pod row, epoch: it has become known whose certificates the pod bears
  REVOCATIONS_CHANGED: 10, // address of an X509_STORE with the lists, low and high word; DONE follows
} as const;

/** What stands in word 0 of a request (worker → agent). Word 1 is the request's number, words 2 to 7 are arguments. */
export const Request = {
  DONE: 5, // command word, argument: a command was carried out
} as const;

export const COMMAND_WORDS = 8;
export const REQUEST_WORDS = 8;
export const RING_ENTRIES = 4096;
