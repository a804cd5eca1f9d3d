/** The identity rows: the agent puts an SSL_CTX address in, workers read both halves of one and the same. */
import { MeshError } from "../../base/errors.ts";
import type { Rows } from "../../base/shm/rows.ts";
import { IDENTITY, IDENTITY_BYTES_MAX, IdentityState } from "./layout.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Agent: takes a free row for a SPIFFE URI, state PENDING. Throws AMB2001 if all are in use, AMB2002 if the URI is too long. */
export function acquireIdentity(rows: Rows<"identity">, uri: string): number {
  const bytes = encoder.encode(uri);
  if (bytes.length > IDENTITY_BYTES_MAX) {
    throw new MeshError("AMB2002", `the identity ${uri.slice(0, 64)}… has ${bytes.length} bytes`, {
      remedy: `use a trust domain, namespace and service account of at most ${IDENTITY_BYTES_MAX} bytes together`,
    });
  }
  for (let row = 0; row < rows.rowCount; row++) {
    if (rows.load(row, IDENTITY.state) !== IdentityState.FREE) continue;
    write(rows, row, () => {
      rows.store(row, IDENTITY.contextLow, 0);
      rows.store(row, IDENTITY.contextHigh, 0);
      rows.set(row, IDENTITY.uriBytes, bytes.length);
      rows.writeBytes(row, IDENTITY.uri, bytes);
    });
    rows.store(row, IDENTITY.state, IdentityState.PENDING);
    return row;
  }
  throw new MeshError("AMB2001", `no room for the identity ${uri}: all ${rows.rowCount} rows are in use`, {
    remedy: "run fewer service accounts on this node, or raise the number of identities",
  });
}

/** Agent: puts a new SSL_CTX in force. The old one must live until every worker has taken a turn since. */
export function putContext(rows: Rows<"identity">, row: number, address: number, expiresAtMs: number): void {
  write(rows, row, () => {
    rows.store(row, IDENTITY.contextLow, address % 0x1_0000_0000);
    rows.store(row, IDENTITY.contextHigh, Math.floor(address / 0x1_0000_0000));
    rows.setF64(row, IDENTITY.expiresAtMs, expiresAtMs);
  });
  rows.store(row, IDENTITY.state, IdentityState.READY);
}

/** Agent: says why there is no certificate; connections that need it fail with that text. */
export function putFailure(rows: Rows<"identity">, row: number, reason: string): void {
  const bytes = encoder.encode(reason).subarray(0, 256);
  write(rows, row, () => {
    rows.set(row, IDENTITY.failureBytes, bytes.length);
    rows.writeBytes(row, IDENTITY.failure, bytes);
  });
  rows.store(row, IDENTITY.state, IdentityState.FAILED);
}

/** Agent: gives the row back; nobody may use it any more. */
export function releaseIdentity(rows: Rows<"identity">, row: number): void {
  rows.store(row, IDENTITY.state, IdentityState.FREE);
}

/** The SSL_CTX address (below 2^53), or 0 if there is none. Never sees half of a change: it reads again while one is under way. */
export function readContext(rows: Rows<"identity">, row: number): number {
  for (;;) {
    const version = rows.load(row, IDENTITY.version);
    const low = rows.load(row, IDENTITY.contextLow), high = rows.load(row, IDENTITY.contextHigh);
    if ((version & 1) === 0 && rows.load(row, IDENTITY.version) === version) return high * 0x1_0000_0000 + low;
  }
}

/** The SPIFFE URI of a row. */
export function readUri(rows: Rows<"identity">, row: number): string {
  return decoder.decode(rows.readBytes(row, IDENTITY.uri, rows.get(row, IDENTITY.uriBytes)));
}

/** Why the row is FAILED. */
export function readFailure(rows: Rows<"identity">, row: number): string {
  return decoder.decode(rows.readBytes(row, IDENTITY.failure, rows.get(row, IDENTITY.failureBytes)));
}

function write(rows: Rows<"identity">, row: number, change: () => void): void {
  rows.add(row, IDENTITY.version, 1); // Odd: a reader that comes now reads again.
  change();
  rows.add(row, IDENTITY.version, 1);
}
