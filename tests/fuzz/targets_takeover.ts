/** Fuzzed: what a ztunnel hands to its successor. */
import { equal } from "@std/assert";
import {
  type ConnectionState,
  type TunnelState,
  WORKER_STATE_CODEC,
  type WorkerState,
} from "../../dataplane/tables/takeover_format.ts";
import { promise, shapeOf, type Target, utf8 } from "./target.ts";

const IP = [0, 0, 0xffff, 0x0a000001];
const EMPTY: WorkerState = {
  workloads: [],
  issuers: [],
  sessions: [],
  waiting: [],
  relays: [],
  parked: [],
  listeners: [],
};
const UPSTREAM = { ip: IP, port: 15008, identities: ["spiffe://cluster.local/ns/a/sa/b"] };

const CONNECTION: ConnectionState = {
  pod: 1,
  direction: 0,
  kind: 1,
  open: true,
  closeRequested: false,
  openedAtMs: 5.5,
  receivedBytes: 7,
  sentBytes: 9,
  source: IP,
  sourcePort: 4000,
  destination: IP,
  destinationPort: 80,
  actual: IP,
  actualPort: 15008,
  host: "web",
  authority: "10.0.0.1:80",
  flow: "flow",
  facts: { identityUri: "spiffe://cluster.local/ns/a/sa/b", workload: 0 },
};

const TUNNEL: TunnelState = {
  connection: CONNECTION,
  fd: 3,
  streamId: 1,
  sendWindow: -1,
  receiveWindow: 65_535,
  creditBytes: 0,
  up: true,
  connecting: false,
  endOwed: false,
  endSent: false,
  endReceived: false,
  shutdownPending: false,
  kept: utf8("kept"),
  inbound: { endStream: false, baggage: "a=b", header: undefined },
  outbound: { answered: true, upstream: UPSTREAM, baggage: "a=b", forwarded: "for=x" },
};

const END = { fd: 4, ended: false, shut: false, kept: utf8("k") };
const FULL: WorkerState = {
  issuers: [new Uint8Array(8).fill(48)],
  workloads: [utf8("workload")],
  sessions: [],
  waiting: [TUNNEL],
  relays: [{ connection: CONNECTION, connected: true, downstream: END, upstream: END }],
  parked: [{ pod: 1, fd: 5, kind: 0, waitedMs: 1 }],
  listeners: [{ pod: 1, fd: 6, kind: 2 }],
};

/** Taken only if it is exactly a state, and then it is the same when written again. */
export const TAKEOVER_TARGET: Target = {
  name: "takeover-state",
  seeds: [EMPTY, FULL, { ...FULL, waiting: [] }].map((state) => WORKER_STATE_CODEC.encode(state).slice()),
  bytesMax: 4_096,
  run(input) {
    const state = WORKER_STATE_CODEC.decode(input);
    if (state === undefined) return "refused";
    const again = WORKER_STATE_CODEC.decode(WORKER_STATE_CODEC.encode(state));
    promise(again !== undefined && equal(again, state), "a state is the same when written and read");
    return `taken ${shapeOf(state)}`;
  },
};
