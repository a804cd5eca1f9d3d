/** What a ztunnel hands to its successor, declared once: every connection of a worker, between two turns (decision 14). */
import { list, maybe, record, type RecordCodec, recordCodec, type ValueOf } from "../../base/record_codec.ts";

/** Grows when the meaning of a member changes without its shape. Shape and version together name the format. */
export const TAKEOVER_VERSION = 4;

/** Descriptors are numbers in the list that travels beside the state; pods are rows of the predecessor's table. */
const HANDLE = "u32", POD_ROW = "u32", IP = list("u32");

/** One direction's traffic secret and the number of its next record: no record may be sealed under it twice. */
const KEYS = record({ suite: "text", secret: "bytes", sequence: "f64" });

const UPSTREAM = record({ ip: IP, port: "u32", identities: list("text") });

/** What policies judge an inbound connection by, when they change: the peer, and which of the listed workloads it came to. */
const FACTS = record({ identityUri: "text", workload: "u32" });

const CONNECTION = record({
  pod: POD_ROW,
  direction: "u32",
  kind: "u32",
  open: "flag",
  closeRequested: "flag",
  openedAtMs: "f64",
  receivedBytes: "f64",
  sentBytes: "f64",
  source: IP,
  sourcePort: "u32",
  destination: IP,
  destinationPort: "u32",
  actual: IP,
  actualPort: "u32",
  host: "text",
  authority: "text",
  flow: maybe("text"),
  facts: maybe(FACTS),
});

const TUNNEL = record({
  connection: CONNECTION,
  fd: HANDLE,
  streamId: "u32",
  sendWindow: "i32",
  receiveWindow: "i32",
  creditBytes: "u32",
  up: "flag",
  connecting: "flag",
  endOwed: "flag",
  endSent: "flag",
  endReceived: "flag",
  shutdownPending: "flag",
  kept: "bytes",
  inbound: maybe(record({ endStream: "flag", baggage: "text", header: maybe("bytes") })),
  outbound: maybe(record({ answered: "flag", upstream: UPSTREAM, baggage: "text", forwarded: "text" })),
});

const RECEIVER = record({
  at: "u32",
  header: "bytes",
  type: "u32",
  flags: "u32",
  streamId: "u32",
  left: "u32",
  paddingLeft: "u32",
  paddingBytes: "u32",
  collected: maybe("bytes"),
  collectedBytes: "u32",
});

const ANNOUNCED = record({
  headerTableBytes: "u32",
  pushAllowed: "flag",
  concurrentStreamsMax: "u32",
  initialWindowBytes: "u32",
  payloadBytesMax: "u32",
  headerListBytesMax: "u32",
  connectProtocol: "flag",
});

const OUTPUT = record({
  announced: ANNOUNCED,
  goingAway: "flag",
  sendWindow: "i32",
  receiveWindow: "i32",
  creditBytes: "u32",
  lastStreamId: "u32",
  control: "bytes",
  keyUpdateOwed: "flag",
  unsent: "bytes",
});

const INPUT = record({
  headerTable: record({ maxBytes: "u32", entries: list(record({ name: "bytes", value: "bytes" })) }),
  dataStreamId: "u32",
  dataFlowBytes: "u32",
  block: maybe(record({ streamId: "u32", endStream: "flag", bytes: "bytes" })),
  greeted: "flag",
});

/** How the peer's certificate led to a root, for lists of revoked ones that come later; issuers by their place in the list. */
const PATH = record({ serial: "bytes", negative: "flag", issuers: list("u32") });

const SESSION = record({
  pod: POD_ROW,
  fd: HANDLE,
  seal: KEYS,
  open: KEYS,
  carry: "bytes",
  output: OUTPUT,
  input: INPUT,
  receiver: RECEIVER,
  postHandshake: "bytes",
  prefaceBytes: "u32",
  pingOutstanding: "flag",
  peerPath: maybe(PATH),
  inbound: maybe(record({
    peerIp: IP,
    peerPort: "u32",
    localIp: IP,
    identityUri: "text",
    lastStreamOwed: "flag",
  })),
  outbound: maybe(record({ upstream: UPSTREAM, nextStreamId: "u32" })),
  tunnels: list(TUNNEL),
});

const RELAY_END = record({ fd: HANDLE, ended: "flag", shut: "flag", kept: "bytes" });
const RELAY = record({ connection: CONNECTION, connected: "flag", downstream: RELAY_END, upstream: RELAY_END });

/** A connection that was accepted and waits for its workload or certificate. */
const PARKED = record({ pod: POD_ROW, fd: HANDLE, kind: "u32", waitedMs: "f64" });
const LISTENER = record({ pod: POD_ROW, fd: HANDLE, kind: "u32" });

/** All of one worker. */
const WORKER = record({
  /** Workloads that connections came to, as xDS encodes them. */
  workloads: list("bytes"),
  /** Certificates that issued those of peers, by DER. */
  issuers: list("bytes"),
  sessions: list(SESSION),
  /** Outbound tunnels whose session is not there yet. */
  waiting: list(TUNNEL),
  relays: list(RELAY),
  parked: list(PARKED),
  listeners: list(LISTENER),
});

export type TrafficKeysState = ValueOf<typeof KEYS>;
export type UpstreamState = ValueOf<typeof UPSTREAM>;
export type ConnectionState = ValueOf<typeof CONNECTION>;
export type TunnelState = ValueOf<typeof TUNNEL>;
export type OutputState = ValueOf<typeof OUTPUT>;
export type InputState = ValueOf<typeof INPUT>;
export type SessionState = ValueOf<typeof SESSION>;
export type RelayState = ValueOf<typeof RELAY>;
export type RelayEndState = ValueOf<typeof RELAY_END>;
export type WorkerState = ValueOf<typeof WORKER>;

const ADOPTION = record({
  /** Rows of the predecessor's pods, and of ours. */
  pods: list(record({ theirs: POD_ROW, ours: POD_ROW })),
  /** Memory files with what workers of the predecessor wrote down, and our duplicates of their descriptors. */
  states: list(record({ fd: "u32", handles: list("u32") })),
});
/** What the agent gives a worker to adopt. */
export const ADOPTION_CODEC: RecordCodec<ValueOf<typeof ADOPTION>> = recordCodec(ADOPTION);

/** What a worker has adopted to listen on: pods by our own rows, descriptors of our process. */
const LISTENING = record({ sockets: list(record({ pod: POD_ROW, fd: "u32" })) });
/** What a worker that adopted tells its agent, who may have to give the sockets to the node agent. */
export const LISTENING_CODEC: RecordCodec<ValueOf<typeof LISTENING>> = recordCodec(LISTENING);

/** A worker's state as bytes. Decoding fails by value; what the numbers mean is checked where they are used. */
export const WORKER_STATE_CODEC: RecordCodec<WorkerState> = recordCodec(WORKER);
