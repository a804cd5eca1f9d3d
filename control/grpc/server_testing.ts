/** A gRPC server on loopback for tests, its certificates, and clients of another make. */
import { Buffer } from "node:buffer";
import * as grpc from "@grpc/grpc-js";
import { Logger } from "../../base/log.ts";
import { CertificateAuthority } from "../ca/authority.ts";
import { toPem } from "../ca/pem.ts";
import { loadSelfSigned } from "../ca/self_signed_folder.ts";
import { openStateFolder } from "../ca/state_files.ts";
import { Folder } from "../ca/testing.ts";
import { Metrics } from "../../base/metrics.ts";
import type { GrpcCall } from "./call.ts";
import { ListenerCredentials } from "./listener_credentials.ts";
import type { TlsRules } from "./tls_rules.ts";
import { unaryMethod } from "./methods.ts";
import { GrpcMetrics } from "./metrics.ts";
import { GrpcServer } from "./server.ts";
import { LIMITS } from "./testing.ts";

export const ECHO = "/test.Service/Echo", HOLD = "/test.Service/Hold";
const URI = "spiffe://cluster.local/ns/shop/sa/cart";
export const raw = (bytes: Buffer) => bytes;
export const log = new Logger("test", { sink: () => {} });
/** A gRPC channel that failed keeps a back-off timer for a while after it was closed. */
export const FAILING = { sanitizeOps: false, sanitizeResources: false };

export async function newAuthority(): Promise<CertificateAuthority> {
  await using folder = await Folder.create();
  await openStateFolder(folder.path);
  return await CertificateAuthority.create(await loadSelfSigned(folder.path, "cluster.local", Date.now()));
}

export async function serverTls(authority: CertificateAuthority, roots = authority) {
  return { ...await authority.issueServer(["localhost"]), rootsPem: roots.material.rootsPem };
}

/** A certificate of a client, signed by this authority. */
export async function clientPair(authority: CertificateAuthority): Promise<{ cert: string; key: string }> {
  const pair = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign"]);
  const spki = new Uint8Array(await crypto.subtle.exportKey("spki", pair.publicKey));
  const { pem } = await authority.issueWorkload(spki, { identities: [URI], ttlMs: 60_000, withCommonName: false });
  return { cert: pem, key: toPem("PRIVATE KEY", await crypto.subtle.exportKey("pkcs8", pair.privateKey)) };
}

/** A server on loopback; whoever it let in, and calls that the test ends. */
export class Rig implements AsyncDisposable {
  readonly calls: GrpcCall[] = [];
  readonly held: GrpcCall[] = [];
  readonly server: GrpcServer;
  readonly authority: CertificateAuthority;
  readonly credentials: ListenerCredentials;
  readonly metrics = new Metrics();
  port = 0;
  plainPort = 0;
  readonly #plain: GrpcServer;

  private constructor(authority: CertificateAuthority, credentials: ListenerCredentials) {
    this.authority = authority;
    this.credentials = credentials;
    const options = { limits: LIMITS, metrics: new GrpcMetrics(this.metrics, () => performance.now()), log };
    this.server = new GrpcServer(options);
    this.#plain = new GrpcServer(options);
    const answer = (bytes: Uint8Array, call: GrpcCall) => {
      this.calls.push(call);
      return Promise.resolve({ bytes });
    };
    for (const server of [this.server, this.#plain]) {
      server.add(unaryMethod({ path: ECHO, messageBytesMax: 10_000_000, log, answer }));
      server.add({ path: HOLD, kind: "bidi_stream", messageBytesMax: 10, serve: (call) => void this.held.push(call) });
    }
  }

  static async start(rules?: TlsRules): Promise<Rig> {
    const authority = await newAuthority();
    const rig = new Rig(authority, new ListenerCredentials(await serverTls(authority), rules));
    rig.port = await rig.server.listen({ host: "127.0.0.1", port: 0 }, rig.credentials);
    rig.plainPort = await rig.#plain.listen({ host: "127.0.0.1", port: 0 });
    return rig;
  }

  client(pair?: { cert: string; key: string }, roots = this.authority): grpc.Client {
    const buffer = (pem: string | undefined) => pem === undefined ? null : Buffer.from(pem);
    const credentials = grpc.credentials.createSsl(
      Buffer.from(roots.material.rootsPem),
      buffer(pair?.key),
      buffer(pair?.cert),
    );
    const options = { "grpc.use_local_subchannel_pool": 1, "grpc.max_receive_message_length": -1 };
    return new grpc.Client(`localhost:${this.port}`, credentials, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.server.stop(100), this.#plain.stop(100)]);
  }
}

/** Asks for the bytes back. @returns Their number, or the status. */
export function echo(client: grpc.Client, bytes = 5): Promise<number | string> {
  return new Promise((resolve) =>
    client.makeUnaryRequest(
      ECHO,
      raw,
      raw,
      Buffer.alloc(bytes),
      (error, answer) => resolve(error === null ? answer!.length : grpc.status[error.code]!),
    )
  );
}
