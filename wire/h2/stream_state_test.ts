/** Tests of stream_state.ts: every state with every event. */
import { assertEquals, assertThrows } from "@std/assert";
import { AssertionError } from "../../base/assert.ts";
import { H2Error } from "./frame_rules.ts";
import { isStreamError, nextStreamState, StreamEvent, StreamState } from "./stream_state.ts";

const PROTOCOL = -H2Error.PROTOCOL_ERROR, CLOSED = -H2Error.STREAM_CLOSED;

/** RFC 9113 §5.1 told state by state; an event that is not told is our own mistake. */
const TOLD: Readonly<Record<keyof typeof StreamState, Partial<Record<keyof typeof StreamEvent, number>>>> = {
  IDLE: {
    HEADERS_IN: StreamState.OPEN,
    HEADERS_OUT: StreamState.OPEN,
    DATA_IN: PROTOCOL,
    END_IN: PROTOCOL,
    RESET_IN: PROTOCOL,
    WINDOW_IN: PROTOCOL,
  },
  OPEN: {
    HEADERS_IN: StreamState.OPEN,
    DATA_IN: StreamState.OPEN,
    WINDOW_IN: StreamState.OPEN,
    HEADERS_OUT: StreamState.OPEN,
    DATA_OUT: StreamState.OPEN,
    END_IN: StreamState.HALF_REMOTE,
    END_OUT: StreamState.HALF_LOCAL,
    RESET_IN: StreamState.CLOSED,
    RESET_OUT: StreamState.ABANDONED,
  },
  HALF_LOCAL: {
    HEADERS_IN: StreamState.HALF_LOCAL,
    DATA_IN: StreamState.HALF_LOCAL,
    WINDOW_IN: StreamState.HALF_LOCAL,
    END_IN: StreamState.CLOSED,
    RESET_IN: StreamState.CLOSED,
    RESET_OUT: StreamState.ABANDONED,
  },
  HALF_REMOTE: {
    HEADERS_IN: CLOSED,
    DATA_IN: CLOSED,
    END_IN: CLOSED,
    WINDOW_IN: StreamState.HALF_REMOTE,
    RESET_IN: StreamState.CLOSED,
    HEADERS_OUT: StreamState.HALF_REMOTE,
    DATA_OUT: StreamState.HALF_REMOTE,
    END_OUT: StreamState.CLOSED,
    RESET_OUT: StreamState.ABANDONED,
  },
  CLOSED: {
    HEADERS_IN: CLOSED,
    DATA_IN: CLOSED,
    END_IN: CLOSED,
    RESET_IN: StreamState.CLOSED,
    WINDOW_IN: StreamState.CLOSED,
    RESET_OUT: StreamState.CLOSED,
  },
  ABANDONED: {
    HEADERS_IN: StreamState.ABANDONED,
    DATA_IN: StreamState.ABANDONED,
    END_IN: StreamState.ABANDONED,
    RESET_IN: StreamState.ABANDONED,
    WINDOW_IN: StreamState.ABANDONED,
    RESET_OUT: StreamState.ABANDONED,
  },
};

Deno.test("nextStreamState() goes where RFC 9113 §5.1 says, for every state and event", () => {
  for (const [stateName, state] of Object.entries(StreamState)) {
    for (const [eventName, event] of Object.entries(StreamEvent)) {
      const told = TOLD[stateName as keyof typeof StreamState][eventName as keyof typeof StreamEvent];
      if (told === undefined) assertThrows(() => nextStreamState(state, event), AssertionError);
      else assertEquals(nextStreamState(state, event), told, `${stateName} ${eventName}`);
    }
  }
});

Deno.test("isStreamError() spares the connection in half-closed (remote) alone (RFC 9113 §5.1)", () => {
  for (const state of Object.values(StreamState)) assertEquals(isStreamError(state), state === StreamState.HALF_REMOTE);
});
