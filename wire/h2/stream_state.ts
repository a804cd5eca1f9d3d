/** The life of one HTTP/2 stream as a table (RFC 9113 §5.1), for streams that either side opens; push is not spoken. */
import { assert } from "../../base/assert.ts";
import { H2Error } from "./frame_rules.ts";

/** HALF_LOCAL: we have ended our direction. HALF_REMOTE: the other side has. ABANDONED: closed by a reset of ours. */
export const StreamState = { IDLE: 0, OPEN: 1, HALF_LOCAL: 2, HALF_REMOTE: 3, CLOSED: 4, ABANDONED: 5 } as const;
export type StreamState = (typeof StreamState)[keyof typeof StreamState];

/** What happens to a stream. A frame with END_STREAM is two events: the frame, then END_IN or END_OUT. */
export const StreamEvent = {
  HEADERS_IN: 0,
  DATA_IN: 1,
  END_IN: 2,
  RESET_IN: 3,
  WINDOW_IN: 4,
  HEADERS_OUT: 5,
  DATA_OUT: 6,
  END_OUT: 7,
  RESET_OUT: 8,
} as const;
export type StreamEvent = (typeof StreamEvent)[keyof typeof StreamEvent];

const EVENT_COUNT = 9;
const I = StreamState.IDLE, O = StreamState.OPEN, L = StreamState.HALF_LOCAL, R = StreamState.HALF_REMOTE;
const C = StreamState.CLOSED, A = StreamState.ABANDONED;
const P = -H2Error.PROTOCOL_ERROR, S = -H2Error.STREAM_CLOSED, BUG = -128;

/** Next state by state and event, or a negative H2Error, or BUG where the event is our own mistake. */
// deno-fmt-ignore: a table is read by its columns.
const NEXT = Int8Array.of(
  //               headers in  data in  end in  reset in  window in  headers out  data out  end out  reset out
  /* idle      */  O,          P,       P,      P,        P,         O,           BUG,      BUG,     BUG,
  /* open      */  O,          O,       R,      C,        O,         O,           O,        L,       A,
  /* h.local   */  L,          L,       C,      C,        L,         BUG,         BUG,      BUG,     A,
  /* h.remote  */  S,          S,       S,      C,        R,         R,           R,        C,       A,
  /* closed    */  S,          S,       S,      C,        C,         BUG,         BUG,      BUG,     C,
  /* abandoned */  A,          A,       A,      A,        A,         BUG,         BUG,      BUG,     A,
);
assert(NEXT.length === EVENT_COUNT * 6 && I === 0, "every state has a column for every event");

/**
 * The state after an event. @returns A StreamState, or -H2Error for what the other side may not do: PROTOCOL_ERROR
 * (idle) ends the connection; STREAM_CLOSED ends the stream in HALF_REMOTE, and the connection in CLOSED.
 * In ABANDONED all that comes is ignored, since it was under way before our reset arrived.
 */
export function nextStreamState(state: number, event: number): number {
  const next = NEXT[state * EVENT_COUNT + event]!;
  assert(next !== BUG, "we never send on a stream whose state forbids it");
  return next;
}

/** Whether the error that {@link nextStreamState} gave in this state ends just the stream (RFC 9113 §5.1). */
export function isStreamError(state: number): boolean {
  return state === StreamState.HALF_REMOTE;
}
