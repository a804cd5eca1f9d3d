/** Why connections end: one number each, with what metrics, logs and retries make of it (ZT-195, ZT-069). */

/** The values of the label `response_flags`, by number (ZT-195). */
export const RESPONSE_FLAGS = [
  "-",
  "DENY",
  "CONNECT",
  "TLS_FAILURE",
  "H2_HANDSHAKE_FAILURE",
  "NETWORK_POLICY",
  "IDENTITY_ERROR",
  "CERT_REVOKED",
] as const;
export type ResponseFlagName = (typeof RESPONSE_FLAGS)[number];

/** Who caused the end: whoever connected to us, whom we connected to, or the mesh itself. */
export type CloseSide = "downstream" | "upstream" | "mesh";

export const CloseReason = {
  ENDED: 0,
  POLICY_REJECTED: 1,
  POLICY_CHANGED: 2,
  DRAINED: 3,
  POD_REMOVED: 4,
  ROUTE_REFUSED: 5,
  SELF_CALL: 6,
  SOURCE_UNKNOWN: 7,
  CONNECT_FAILED: 8,
  CONNECT_TIMED_OUT: 9,
  HBONE_TIMED_OUT: 10,
  TLS_SETUP_FAILED: 11,
  TLS_HANDSHAKE_FAILED: 12,
  HTTP2_FAILED: 13,
  STATUS_NOT_OK: 14,
  CERTIFICATE_UNAVAILABLE: 15,
  CERTIFICATE_REVOKED: 16,
  SEND_FAILED: 17,
  RECEIVE_FAILED: 18,
  DOWNSTREAM_GONE: 19,
  UPSTREAM_GONE: 20,
} as const;
export type CloseReason = (typeof CloseReason)[keyof typeof CloseReason];

export interface CloseReasonRow {
  readonly name: string;
  readonly flag: ResponseFlagName;
  readonly side: CloseSide;
  /** Whether another attempt, before any byte was carried, may fare better. */
  readonly retryable: boolean;
  /** The access log's `error`; empty where only a detail can say it. A detail follows after `: `. */
  readonly text: string;
}

/** By {@link CloseReason}. */
export const CLOSE_REASONS: readonly CloseReasonRow[] = [
  row("ended", "-", "downstream", false, ""),
  row("policy-rejected", "DENY", "mesh", false, "connection closed due to policy rejection"), // ZT-107
  row("policy-changed", "DENY", "mesh", false, "connection closed due to policy change"), // ZT-120
  row("drained", "CONNECT", "mesh", true, "connection closed due to connection drain"), // ZT-077
  row("pod-removed", "CONNECT", "mesh", false, "connection closed because its workload was removed"), // ZT-169
  row("route-refused", "CONNECT", "mesh", false, ""), // The route says why (ZT-022, ZT-032, ZT-036).
  row("self-call", "CONNECT", "downstream", false, "attempted recursive call to ourselves"), // ZT-015, ZT-101
  row("source-unknown", "CONNECT", "mesh", true, "failed to fetch information about local workload"), // ZT-016
  row("connect-failed", "CONNECT", "upstream", true, "connection failed"),
  row("connect-timed-out", "CONNECT", "upstream", true, "connection timed out"), // ZT-051
  row(
    "hbone-timed-out",
    "NETWORK_POLICY",
    "upstream",
    true,
    "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008",
  ), // ZT-051
  row("tls-setup-failed", "TLS_FAILURE", "mesh", false, "tls setup failed"),
  row("tls-handshake-failed", "CONNECT", "upstream", true, "tls handshake failed"), // Also the upstream's refusal of us.
  row("http2-failed", "H2_HANDSHAKE_FAILURE", "upstream", true, "http2 failed"), // Also a reset instead of a response.
  row("status-not-ok", "CONNECT", "upstream", false, "http status"), // ZT-059
  row("certificate-unavailable", "IDENTITY_ERROR", "mesh", true, "identity error"),
  row("certificate-revoked", "CERT_REVOKED", "mesh", false, "certificate revoked"),
  row("send-failed", "CONNECT", "upstream", false, "send"), // ZT-069
  row("receive-failed", "CONNECT", "downstream", false, "receive"), // ZT-069
  row("downstream-gone", "CONNECT", "downstream", false, "client disconnected before all data was written"), // ZT-069
  row("upstream-gone", "CONNECT", "upstream", false, "destination disconnected before all data was written"), // ZT-069
];

/** The access log's `error`: the reason's text and what is particular to this connection. Empty for an orderly end. */
export function closeText(reason: CloseReason, detail = ""): string {
  const { text } = CLOSE_REASONS[reason]!;
  if (text === "" || detail === "") return text + detail;
  return `${text}: ${detail}`;
}

/** The number of the reason's flag in {@link RESPONSE_FLAGS}. */
export function closeFlag(reason: CloseReason): number {
  return RESPONSE_FLAGS.indexOf(CLOSE_REASONS[reason]!.flag);
}

function row(
  name: string,
  flag: ResponseFlagName,
  side: CloseSide,
  retryable: boolean,
  text: string,
): CloseReasonRow {
  return Object.freeze({ name, flag, side, retryable, text });
}
