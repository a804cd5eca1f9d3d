/** Flow-control arithmetic (RFC 9113 §6.9). Windows live in the caller's rows; a send window may be negative (§6.9.2). */
import { H2Error } from "./frame_rules.ts";
import { WINDOW_BYTES_LIMIT } from "./settings.ts";

/**
 * Checks a WINDOW_UPDATE before the caller adds it: `window += increment`. @returns 0; PROTOCOL_ERROR for an increment
 * of 0; FLOW_CONTROL_ERROR past 2^31-1. Both end the stream, or the connection if the window is the connection's.
 */
export function checkGrowth(windowBytes: number, increment: number): H2Error {
  if (increment === 0) return H2Error.PROTOCOL_ERROR;
  return windowBytes + increment > WINDOW_BYTES_LIMIT ? H2Error.FLOW_CONTROL_ERROR : H2Error.NO_ERROR;
}

/**
 * Checks a changed INITIAL_WINDOW_SIZE for one stream before the caller adds the difference, which may leave the window
 * negative. @returns 0, or FLOW_CONTROL_ERROR that ends the connection (RFC 9113 §6.9.2).
 */
export function checkInitialWindowChange(
  windowBytes: number,
  oldInitialBytes: number,
  newInitialBytes: number,
): H2Error {
  const changed = windowBytes + newInitialBytes - oldInitialBytes;
  return changed > WINDOW_BYTES_LIMIT ? H2Error.FLOW_CONTROL_ERROR : H2Error.NO_ERROR;
}
