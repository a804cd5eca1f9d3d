/** The gRPC listener of 15012: TLS with an optional client certificate, and what a call presents (CP-003, CP-008, CP-009). */
import { Buffer } from "node:buffer";
import * as grpc from "@grpc/grpc-js";
import * as x509 from "@peculiar/x509";
import { MeshError } from "../../base/errors.ts";
import type { ListenAddress } from "../../base/config.ts";
import { REQUEST_BYTES_MAX } from "../../mesh/proto/discovery_codec.ts";
import type { Credentials } from "../ca/caller.ts";

export interface SecureServerOptions {
  readonly keepaliveIntervalMs: number;
  readonly keepaliveTimeoutMs: number;
  readonly connectionAgeMsMax: number;
  /** For tests; {@link CONNECTION_AGE_GRACE_MS} otherwise. */
  readonly connectionAgeGraceMs?: number;
}

const STREAMS_PER_CONNECTION_MAX = 1_000; // a ztunnel needs one stream and eight CSRs, a test rig many more
const CONNECTION_AGE_GRACE_MS = 10_000;

/** Our certificate with its key, and the roots that client certificates must lead to. */
export interface ServerTls {
  readonly chainPem: string;
  readonly keyPem: string;
  readonly rootsPem: string;
}

/** TLS that asks for a client certificate, verifies one if it comes, and lets the call decide when none does. */
export class ListenerCredentials extends grpc.ServerCredentials {
  constructor(tls: ServerTls) {
    super({ requestCert: true, rejectUnauthorized: false, minVersion: "TLSv1.2" }, contextOf(tls));
  }

  /** New handshakes use these from here on; connections that stand are kept (CP-006). */
  update(tls: ServerTls): void {
    this.updateSecureContextOptions(contextOf(tls));
  }

  override _equals(other: grpc.ServerCredentials): boolean {
    return this === other;
  }
}

function contextOf({ chainPem, keyPem, rootsPem }: ServerTls): { cert: Buffer; key: Buffer; ca: Buffer } {
  return { cert: Buffer.from(chainPem), key: Buffer.from(keyPem), ca: Buffer.from(rootsPem) };
}

/** A gRPC server without services yet. */
export function createServer(options: SecureServerOptions): grpc.Server {
  grpc.setLogVerbosity(grpc.logVerbosity.NONE); // What goes wrong is reported by us, once.
  return new grpc.Server({
    "grpc.max_receive_message_length": REQUEST_BYTES_MAX, // CP-452: a reconnect request names the whole mesh.
    "grpc.max_send_message_length": -1,
    "grpc.max_concurrent_streams": STREAMS_PER_CONNECTION_MAX,
    "grpc.keepalive_time_ms": options.keepaliveIntervalMs,
    "grpc.keepalive_timeout_ms": options.keepaliveTimeoutMs,
    "grpc.max_connection_age_ms": options.connectionAgeMsMax,
    "grpc.max_connection_age_grace_ms": options.connectionAgeGraceMs ?? CONNECTION_AGE_GRACE_MS,
    "grpc.enable_channelz": 0,
  });
}

/** Binds a server. @returns The port. @throws MeshError AMB0220 */
export async function listenGrpc(
  server: grpc.Server,
  address: ListenAddress,
  credentials: grpc.ServerCredentials,
): Promise<number> {
  const target = address.host.includes(":") ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  server.bindAsync(target, credentials, (cause, port) => {
    if (cause === null) return resolve(port);
    const remedy = "choose another --secure-grpc-address or --grpc-address, or stop what listens there";
    reject(new MeshError("AMB0220", `cannot listen on ${target} for gRPC`, { remedy, cause }));
  });
  return await promise;
}

/** Stops taking calls, waits for those there are, and cuts what is left after `graceMs`. */
export async function stopServer(server: grpc.Server, graceMs: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(() => {
    server.forceShutdown();
    resolve();
  }, graceMs);
  server.tryShutdown(() => resolve());
  await promise;
  clearTimeout(timer);
}

/** What a call presents. A client certificate counts only if TLS verified it against the mesh's roots. */
export function credentialsOf(
  call: {
    metadata: grpc.Metadata;
    getAuthContext(): { sslPeerCertificate?: { raw: Uint8Array } };
    getPeer(): string;
  },
): Credentials {
  const der = call.getAuthContext().sslPeerCertificate?.raw;
  return {
    certificateUris: der === undefined ? undefined : uriNamesOf(der),
    authorization: call.metadata.get("authorization").map(String),
    clusterId: call.metadata.get("clusterid").map(String),
    forwardedCertificate: call.metadata.get("x-forwarded-client-cert").map(String),
    peerAddress: call.getPeer().replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1"),
  };
}

function uriNamesOf(der: Uint8Array): string[] {
  const names = new x509.X509Certificate(new Uint8Array(der)).getExtension(x509.SubjectAlternativeNameExtension);
  return names?.names.items.filter((name) => name.type === "url").map((name) => name.value) ?? [];
}
