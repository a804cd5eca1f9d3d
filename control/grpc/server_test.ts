import { Buffer } from "node:buffer";
import http2 from "node:http2";
import net from "node:net";
import tls from "node:tls";
import { assert, assertEquals, assertRejects } from "@std/assert";
import * as grpc from "@grpc/grpc-js";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { CertificateAuthority } from "../ca/authority.ts";
import { toPem } from "../ca/pem.ts";
import { loadSelfSigned } from "../ca/self_signed_folder.ts";
import { openStateFolder } from "../ca/state_files.ts";
import { Folder } from "../ca/testing.ts";
import { until } from "../folder/testing.ts";
import { Metrics } from "../../base/metrics.ts";
import type { GrpcCall } from "./call.ts";
import { ListenerCredentials, type TlsRules, verifiedPeer } from "./listener_credentials.ts";
import { unaryMethod } from "./methods.ts";
import { GrpcMetrics } from "./metrics.ts";
import { GrpcServer } from "./server.ts";
import { LIMITS } from "./testing.ts";

const ECHO = "/test.Service/Echo", HOLD = "/test.Service/Hold";
const URI = "spiffe://cluster.local/ns/shop/sa/cart";
const raw = (bytes: Buffer) => bytes;
const log = new Logger("test", { sink: () => {} });
/** A gRPC channel that failed keeps a back-off timer for a while after it was closed. */
const FAILING = { sanitizeOps: false, sanitizeResources: false };

async function newAuthority(): Promise<CertificateAuthority> {
  await using folder = await Folder.create();
  await openStateFolder(folder.path);
  return await CertificateAuthority.create(await loadSelfSigned(folder.path, "cluster.local", Date.now()));
}

async function serverTls(authority: CertificateAuthority, roots = authority) {
  return { ...await authority.issueServer(["localhost"]), rootsPem: roots.material.rootsPem };
}

/** A certificate of a client, signed by this authority. */
async function clientPair(authority: CertificateAuthority): Promise<{ cert: string; key: string }> {
  const pair = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign"]);
  const spki = new Uint8Array(await crypto.subtle.exportKey("spki", pair.publicKey));
  const { pem } = await authority.issueWorkload(spki, { identities: [URI], ttlMs: 60_000, withCommonName: false });
  return { cert: pem, key: toPem("PRIVATE KEY", await crypto.subtle.exportKey("pkcs8", pair.privateKey)) };
}

/** A server on loopback; whoever it let in, and calls that the test ends. */
class Rig implements AsyncDisposable {
  readonly calls: GrpcCall[] = [];
  readonly held: GrpcCall[] = [];
  readonly server: GrpcServer;
  readonly authority: CertificateAuthority;
  readonly credentials: ListenerCredentials;
  port = 0;
  plainPort = 0;
  readonly #plain: GrpcServer;

  private constructor(authority: CertificateAuthority, credentials: ListenerCredentials) {
    this.authority = authority;
    this.credentials = credentials;
    const options = { limits: LIMITS, metrics: new GrpcMetrics(new Metrics(), () => performance.now()), log };
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
function echo(client: grpc.Client, bytes = 5): Promise<number | string> {
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

Deno.test("GrpcServer answers over TLS and without, small and large, many at once", async () => {
  await using rig = await Rig.start();
  const secure = rig.client();
  const open = new grpc.Client(`127.0.0.1:${rig.plainPort}`, grpc.credentials.createInsecure());
  for (const client of [secure, open]) {
    assertEquals([await echo(client), await echo(client, 0), await echo(client, 3_000_000)], [5, 0, 3_000_000]);
    const many = await Promise.all(Array.from({ length: 100 }, (_, at) => echo(client, at * 100)));
    assertEquals(many, Array.from({ length: 100 }, (_, at) => at * 100));
    client.close();
  }
  assertEquals([rig.calls[0]!.peer.host, rig.calls[0]!.peer.certificate], ["127.0.0.1", undefined]);
});

Deno.test("GrpcServer speaks with the runtime's own HTTP/2, and takes the name h2 alone", async () => {
  await using rig = await Rig.start();
  const session = http2.connect(`https://localhost:${rig.port}`, { ca: rig.authority.material.rootsPem });
  const stream = session.request({ ":method": "POST", ":path": ECHO, "content-type": "application/grpc" });
  const trailers = new Promise((resolve) => stream.on("trailers", resolve));
  let body = 0;
  stream.on("data", (bytes: Uint8Array) => body += bytes.length);
  stream.end(Buffer.from([0, 0, 0, 0, 1, 7]));
  assertEquals([Object.entries(await trailers as object)[0], body], [["grpc-status", "0"], 6]);
  session.close();
  const failed = new Promise((resolve) =>
    tls.connect({
      port: rig.port,
      ca: rig.authority.material.rootsPem,
      ALPNProtocols: ["http/1.1"],
      servername: "localhost",
    })
      .on("error", resolve)
  );
  assert(await failed instanceof Error);
});

Deno.test(
  "GrpcServer knows a client by its certificate, and reads nothing of one that does not verify (CP-003)",
  FAILING,
  async () => {
    await using rig = await Rig.start();
    const known = rig.client(await clientPair(rig.authority));
    assertEquals(await echo(known), 5);
    assert(rig.calls[0]!.peer.certificate!.length > 100);
    const stranger = rig.client(await clientPair(await newAuthority()));
    assertEquals([await echo(stranger), rig.calls.length], ["UNAVAILABLE", 1]);
    known.close();
    stranger.close();
  },
);

Deno.test("GrpcServer closes who says nothing in the handshake, as the runtime would not", async () => {
  await using rig = await Rig.start({ tlsVersionMin: "TLSV1_2", handshakeMsMax: 100 });
  const socket = net.connect(rig.port, "127.0.0.1"), closed = new Promise((resolve) => socket.on("close", resolve));
  socket.on("error", () => {}).on("data", () => {});
  await closed;
});

Deno.test("GrpcServer takes no TLS below the version that it was given (CP-003)", async () => {
  await using rig = await Rig.start({ tlsVersionMin: "TLSV1_3" });
  const connect = (maxVersion: "TLSv1.2" | "TLSv1.3") =>
    new Promise<string>((resolve) => {
      const options = { port: rig.port, ca: rig.authority.material.rootsPem, servername: "localhost" };
      const socket = tls.connect({ ...options, maxVersion, ALPNProtocols: ["h2"] }, () => {
        resolve(socket.getProtocol() ?? "");
        socket.destroy();
      });
      socket.on("error", () => resolve("refused"));
    });
  assertEquals([await connect("TLSv1.2"), await connect("TLSv1.3")], ["refused", "TLSv1.3"]);
});

Deno.test(
  "GrpcServer presents what it is given from then on, and keeps the connections there are (CP-006)",
  FAILING,
  async () => {
    await using rig = await Rig.start();
    const other = await newAuthority(), standing = rig.client(), late = rig.client(undefined, other);
    assertEquals([await echo(standing), await echo(late)], [5, "UNAVAILABLE"]);
    rig.credentials.update(await serverTls(other));
    const newer = rig.client(await clientPair(other), other),
      older = rig.client(await clientPair(rig.authority), other);
    assertEquals([await echo(standing), await echo(newer), await echo(older)], [5, 5, "UNAVAILABLE"]);
    for (const client of [standing, late, newer, older]) client.close();
  },
);

Deno.test("verifiedPeer() takes a resumed session's certificate only while the roots stand and it is valid (CP-003, CP-505)", () => {
  const peer = (authorized: boolean, reused: boolean, validTo: string) => ({
    authorized,
    authorizationError: new Error("of another root"),
    isSessionReused: () => reused,
    getPeerCertificate: () => ({ raw: Buffer.from([1]), valid_to: validTo }),
  });
  const known = (it: ReturnType<typeof peer>, changed: boolean) =>
    !("refused" in verifiedPeer(it as unknown as Parameters<typeof verifiedPeer>[0], changed));
  const later = new Date(Date.now() + 60_000).toString(), past = new Date(Date.now() - 60_000).toString();
  assertEquals(known(peer(false, false, later), false), false);
  assertEquals(known(peer(true, false, later), true), true);
  assertEquals(known(peer(true, true, later), false), true);
  assertEquals(known(peer(true, true, later), true), false);
  assertEquals(known(peer(true, true, past), false), false);
  assertEquals(known(peer(true, true, "whenever"), false), false);
});

Deno.test("GrpcServer.stop() waits for calls for a while, and takes none meanwhile", async () => {
  const rig = await Rig.start(), client = rig.client();
  const call = client.makeBidiStreamRequest(HOLD, raw, raw);
  call.on("error", () => {}).on("data", () => {});
  const status = new Promise<grpc.StatusObject>((resolve) => call.on("status", resolve));
  await until("the call", () => rig.held.length === 1);
  const stopped = rig.server.stop(60_000);
  rig.held[0]!.finish("OK", "");
  assertEquals((await status).code, grpc.status.OK);
  await stopped;
  client.close();
  await rig[Symbol.asyncDispose]();
});

Deno.test("GrpcServer.stop() cuts calls that outlast its patience", async () => {
  await using rig = await Rig.start();
  const client = rig.client(), call = client.makeBidiStreamRequest(HOLD, raw, raw);
  const status = new Promise<grpc.StatusObject>((resolve) => call.on("status", resolve));
  call.on("error", () => {}).on("data", () => {});
  await until("the call", () => rig.held.length === 1);
  await rig.server.stop(50);
  assertEquals([(await status).code === grpc.status.OK, rig.held[0]!.over], [false, true]);
  client.close();
});

Deno.test("GrpcServer.listen() says which address is taken", async () => {
  await using rig = await Rig.start();
  const options = { limits: LIMITS, metrics: new GrpcMetrics(new Metrics(), () => performance.now()), log };
  const second = new GrpcServer(options);
  const error = await assertRejects(() => second.listen({ host: "127.0.0.1", port: rig.port }), MeshError);
  assertEquals([error.code, error.message.includes(`127.0.0.1:${rig.port}`)], ["AMB0220", true]);
});
