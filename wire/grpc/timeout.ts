/** The field `grpc-timeout`: how long a caller waits (gRPC over HTTP/2, "Requests"). */

const UNIT_MS: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1_000,
  m: 1,
  u: 0.001,
  n: 0.000_001,
};

/** Milliseconds, not rounded; undefined if it is not one to eight digits and a unit. */
export function parseTimeoutMs(text: string): number | undefined {
  const parts = /^(\d{1,8})([HMSmun])$/.exec(text);
  return parts === null ? undefined : Number(parts[1]) * UNIT_MS[parts[2]!]!;
}
