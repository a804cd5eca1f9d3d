/** Whom our handshakes let in, what they offer, and what the other side hears when they refuse. */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { MeshError } from "../base/errors.ts";
import { Arena } from "./arena.ts";
import { type ContextHandle, HandshakeStep, type TlsHandshake } from "./api.ts";
import { type LeafPem, ONLY_CLIENT, ONLY_SERVER, TestAuthority } from "./certificates_testing.ts";
import * as libc from "./libc_cold.ts";
import { checkPolicy, createTemplate, OpenSsl, opensslVersion, releaseTemplate, retainTemplate } from "./openssl.ts";
import { OpenSslPeer, type PeerOptions, PeerState } from "./openssl_peer_testing.ts";

const CART = "spiffe://cluster.local/ns/shop/sa/cart", DATABASE = "spiffe://cluster.local/ns/shop/sa/database";
const H2 = "\x02h2";
const tls = new OpenSsl(new Arena(1 << 20, { hugePages: false }));
const authority = await TestAuthority.create("mesh"), stranger = await TestAuthority.create("stranger");
const own = await authority.issue([CART]);
const policy = { postQuantumOnly: true };
const strict = new OpenSsl(new Arena(1 << 20, { hugePages: false }), policy);
/** The library has X25519MLKEM768. */
const postQuantum = [3, 4].includes(Number(opensslVersion()[0])) && !/^3\.[0-4]\./.test(opensslVersion());
const identity = tls.derive(createTemplate(own));

interface Outcome {
  readonly done: boolean;
  readonly failure: string;
  readonly uris: readonly string[];
  /** The alert that the peer received, or -1. */
  readonly alert: number;
  readonly peer: OpenSslPeer;
}

/** Runs a handshake to its end on both sides; `server` says which side ours is. */
function shake(
  server: boolean,
  options: Partial<PeerOptions>,
  look: (outcome: Outcome) => void,
  our = identity,
): void {
  const [fd, peerFd] = libc.socketpair(libc.AF.UNIX, libc.SOCK.STREAM | libc.SOCK.NONBLOCK) as readonly [
    number,
    number,
  ];
  const ours: TlsHandshake = server ? our.accept(fd) : our.connect(fd);
  const peer = new OpenSslPeer(peerFd, { server: !server, ...options });
  let step: number = HandshakeStep.WANTS_READ, peerStep: number = PeerState.AGAIN;
  for (let round = 0; round < 10; round++) {
    if (peerStep === PeerState.AGAIN) peerStep = peer.step();
    if (step === HandshakeStep.WANTS_READ) step = ours.step();
  }
  if (step === HandshakeStep.FAILED) peer.read(); // A TLS 1.3 client may think that it is through.
  const outcome = { done: step === HandshakeStep.DONE, failure: ours.failure(), alert: peer.alert, peer };
  try {
    look({ ...outcome, uris: outcome.done ? ours.peerUris() : [] });
  } finally {
    if (outcome.done) {
      const { sealer, opener } = ours.takeRecords();
      sealer.free();
      opener.free();
    }
    ours.free();
    peer.free();
    libc.close(fd);
    libc.close(peerFd);
  }
}

const client = (leaf: LeafPem | undefined, options: Partial<PeerOptions> = {}): Partial<PeerOptions> => ({
  leaf,
  roots: authority.rootPem,
  alpn: H2,
  ...options,
});

Deno.test("accept() lets a client of the mesh in, speaks h2, and reads its URI names in order (ZT-081, ZT-083)", async () => {
  const leaf = await authority.issue([DATABASE, "https://example.com/", CART]);
  shake(true, client(leaf), ({ done, uris, peer, failure }) => {
    assertEquals([done, failure], [true, ""]);
    assertEquals(uris, [DATABASE, "https://example.com/", CART]);
    assertEquals([peer.alpn, peer.resumed], ["h2", false]);
  });
});

Deno.test("accept() takes a client that offers no ALPN (ZT-081)", () => {
  shake(true, client(own, { alpn: undefined }), ({ done, peer }) => assertEquals([done, peer.alpn], [true, ""]));
});

Deno.test("accept() finds h2 wherever it stands in the offer (ZT-081)", () => {
  shake(true, client(own, { alpn: "\x08http/1.1\x01h\x03h2c\x02h2" }), ({ done, peer }) => {
    assertEquals([done, peer.alpn], [true, "h2"]);
  });
});

Deno.test("accept() refuses other protocols with alert 120 (ZT-081)", () => {
  for (const alpn of ["\x08http/1.1", "\x02h3", "\x01h", "\x03h2c", "\x04\x02h2x"]) {
    shake(true, client(own, { alpn }), ({ done, alert }) => assertEquals([done, alert], [false, 120], alpn));
  }
});

Deno.test("accept() refuses TLS 1.2 with alert 70 (ZT-079)", () => {
  shake(true, client(own, { tls12Only: true }), ({ done, alert, failure }) => {
    assertEquals([done, alert], [false, 70]);
    assertMatch(failure, /unsupported protocol/);
  });
});

Deno.test("accept() refuses clients without a certificate that is good here and now (ZT-083)", async () => {
  const cases: [string, LeafPem | undefined, number, RegExp][] = [
    ["none", undefined, 116, /peer did not return a certificate/],
    ["expired", await authority.issue([CART], { days: -1 }), 45, /certificate has expired/],
    ["another root", await stranger.issue([CART]), 48, /unable to get local issuer certificate/],
    ["for servers only", await authority.issue([CART], { usages: ONLY_SERVER }), 43, /unsuitable certificate purpose/],
  ];
  for (const [name, leaf, alert, reason] of cases) {
    shake(true, client(leaf), (outcome) => {
      assertEquals(
        [outcome.done, outcome.alert],
        [false, alert],
        `${name}: ${outcome.failure}, ${outcome.peer.failure}`,
      );
      assertMatch(outcome.failure, reason, name);
    });
  }
});

Deno.test("of two roots in one bundle both are trusted, by both sides; of one, only it (ZT-152, ZT-159)", async () => {
  const second = await TestAuthority.create("second"), roots = authority.rootPem + second.rootPem;
  const both = tls.derive(createTemplate({ ...own, roots }));
  for (const issuer of [authority, second]) {
    const leaf = await issuer.issue([DATABASE]);
    for (const server of [true, false]) {
      const options = server ? client(leaf) : { leaf, roots: authority.rootPem };
      shake(server, options, ({ done, uris }) => assertEquals([done, uris], [true, [DATABASE]]), both);
      shake(server, options, ({ done }) => assertEquals(done, issuer === authority));
    }
  }
  both.free();
});

Deno.test("connect() refuses servers without a certificate that is good here and now (ZT-085)", async () => {
  const cases: [string, LeafPem, RegExp][] = [
    ["expired", await authority.issue([CART], { days: -1 }), /certificate has expired/],
    ["another root", await stranger.issue([CART]), /unable to get local issuer certificate/],
    ["for clients only", await authority.issue([CART], { usages: ONLY_CLIENT }), /unsuitable certificate purpose/],
  ];
  for (const [name, leaf, reason] of cases) {
    shake(false, { leaf, roots: authority.rootPem }, (outcome) => {
      assertEquals(outcome.done, false, name);
      assertMatch(outcome.failure, reason, name);
    });
  }
});

Deno.test("connect() names no server, presents its certificate, and takes whatever name the mesh signed (ZT-081, ZT-085)", async () => {
  const leaf = await authority.issue([DATABASE]);
  shake(false, { leaf, roots: authority.rootPem }, ({ done, uris, peer, failure }) => {
    assertEquals([done, failure, uris], [true, "", [DATABASE]]);
    assertEquals(peer.serverName, undefined);
  });
});

Deno.test("connect() refuses a server of TLS 1.2 (ZT-079)", () => {
  shake(false, { leaf: own, tls12Only: true }, ({ done, failure }) => {
    assertEquals(done, false);
    assertMatch(failure, /protocol version|unsupported protocol/);
  });
});

Deno.test("both sides prefer AES-256, take AES-128, and know nothing else (ZT-080)", () => {
  const aes256 = "TLS_AES_256_GCM_SHA384", aes128 = "TLS_AES_128_GCM_SHA256", chacha = "TLS_CHACHA20_POLY1305_SHA256";
  for (const ciphers of [aes256, aes128, `${chacha}:${aes128}`]) {
    const expected = ciphers.split(":").at(-1);
    shake(true, client(own, { ciphers }), ({ done, peer }) => assertEquals([done, peer.cipher], [true, expected]));
    shake(false, { leaf: own, ciphers }, ({ done, peer }) => assertEquals([done, peer.cipher], [true, expected]));
  }
  shake(false, { leaf: own }, ({ peer }) => assertEquals(peer.cipher, aes256)); // The order of our offer.
  shake(true, client(own, { ciphers: chacha }), ({ done, alert }) => assertEquals([done, alert], [false, 40]));
  shake(false, { leaf: own, ciphers: chacha }, ({ done }) => assertEquals(done, false));
});

Deno.test("both sides exchange keys by the groups of Istio's ztunnel, X25519 first (ZT-080)", () => {
  const known: [string, number][] = [["P-384", 24], ["P-256", 23], ["X25519", 29], ["P-521:P-256", 23]];
  if (postQuantum) known.push(["X25519MLKEM768", 4588]);
  for (const [groups, group] of known) {
    const expected = [true, group];
    shake(
      true,
      client(own, { groups }),
      ({ done, peer }) => assertEquals([done, peer.group], expected, groups),
    );
    shake(
      false,
      { leaf: own, groups },
      ({ done, peer }) => assertEquals([done, peer.group], expected, groups),
    );
  }
  shake(false, { leaf: own, groups: "P-384:P-256:X25519" }, ({ peer }) => assertEquals(peer.group, 29)); // The first of our offer.
  shake(true, client(own, { groups: "P-521" }), ({ done, alert }) => assertEquals([done, alert], [false, 40]));
  shake(false, { leaf: own, groups: "P-521" }, ({ done }) => assertEquals(done, false));
});

Deno.test("with COMPLIANCE_POLICY=pqc both sides know X25519MLKEM768 alone, or say what lacks (ZT-080)", () => {
  if (!postQuantum) { // No library before 3.5 can: neither the start nor a context goes by a weaker exchange.
    for (const attempt of [() => checkPolicy(policy), () => strict.derive(createTemplate(own))]) {
      const error = assertThrows(attempt, MeshError);
      assertEquals(error.code, "AMB7057");
      assertMatch(error.remedy, /OpenSSL 3\.5/);
    }
    return;
  }
  checkPolicy(policy);
  const our = strict.derive(createTemplate(own));
  for (const groups of ["X25519MLKEM768", "X25519:P-256:X25519MLKEM768"]) {
    shake(true, client(own, { groups }), ({ done, peer }) => assertEquals([done, peer.group], [true, 4588]), our);
    shake(false, { leaf: own, groups }, ({ done, peer }) => assertEquals([done, peer.group], [true, 4588]), our);
  }
  shake(true, client(own, { groups: "X25519:P-256" }), ({ done, alert }) => {
    assertEquals([done, alert], [false, 40]);
  }, our);
  shake(false, { leaf: own, groups: "X25519:P-256" }, ({ done }) => assertEquals(done, false), our);
  our.free();
});

Deno.test("accept() gives nothing to resume, and ignores a session that is offered (ZT-081)", () => {
  const [fd, peerFd] = libc.socketpair(libc.AF.UNIX, libc.SOCK.STREAM | libc.SOCK.NONBLOCK) as readonly [
    number,
    number,
  ];
  const foreign = new OpenSslPeer(fd, { server: true, leaf: own, roots: authority.rootPem });
  const friend = new OpenSslPeer(peerFd, { server: false, leaf: own, roots: authority.rootPem });
  for (let round = 0; round < 10; round++) {
    foreign.step();
    friend.step();
  }
  friend.read(); // Takes the tickets of a server that gives some.
  assertEquals(friend.resumable, true);
  const session = friend.takeSession();
  shake(true, client(own, { resume: session }), ({ done, peer, failure }) => {
    assertEquals([done, failure], [true, ""]);
    assertEquals([peer.resumed, peer.read()], [false, undefined]);
    assertEquals([peer.resumable, peer.failure], [false, ""]);
  });
  OpenSslPeer.freeSession(session);
  foreign.free();
  friend.free();
  libc.close(fd);
  libc.close(peerFd);
});

Deno.test("a handshake with garbage, or with nobody, fails and says so", () => {
  const cases: [Uint8Array<ArrayBuffer> | undefined, RegExp][] = [
    [new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"), /http request|wrong version number/],
    [new Uint8Array(2_000).fill(0x16), /wrong version number|record|length/],
    [undefined, /the peer closed the connection|unexpected eof/],
  ];
  for (const [bytes, reason] of cases) {
    const [fd, peerFd] = libc.socketpair(libc.AF.UNIX, libc.SOCK.STREAM | libc.SOCK.NONBLOCK) as readonly [
      number,
      number,
    ];
    const ours = identity.accept(fd);
    assertEquals(ours.step(), HandshakeStep.WANTS_READ);
    if (bytes !== undefined) libc.send(peerFd, bytes);
    else libc.shutdown(peerFd);
    assertEquals(ours.step(), HandshakeStep.FAILED);
    assertMatch(ours.failure(), reason);
    ours.free();
    ours.free(); // Harmless.
    libc.close(fd);
    libc.close(peerFd);
  }
});

Deno.test("peerUris() passes over names that are no identity: with NUL, controls, or beyond ASCII", async () => {
  const hostile = `${CART}\0.evil`, spaced = "spiffe://cluster.local/ns/a b/sa/c", empty = "";
  const leaf = await authority.issue([hostile, spaced, "spiffe://cluster.local/\x7f", empty, DATABASE]);
  shake(true, client(leaf), ({ done, uris }) => assertEquals([done, uris], [true, [DATABASE]]));
  const none = await authority.issue([]);
  shake(true, client(none), ({ done, uris }) => assertEquals([done, uris], [true, []]));
});

Deno.test("peerUris() reads a bounded number of names", async () => {
  const leaf = await authority.issue(Array.from({ length: 40 }, (_, at) => `spiffe://cluster.local/ns/n/sa/a${at}`));
  shake(true, client(leaf), ({ uris }) => assertEquals(uris.length, 16));
});

Deno.test("createTemplate() refuses parts that do not belong together", async () => {
  const other = await authority.issue([CART]);
  const cases = [
    { ...own, privateKey: other.privateKey },
    { ...own, chain: "" },
    { ...own, roots: "no PEM" },
    { ...own, privateKey: "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n" },
  ];
  for (const pem of cases) assertEquals(assertThrows(() => createTemplate(pem), MeshError).code, "AMB7052");
});

Deno.test("a template lives as long as someone holds a reference", () => {
  const template: ContextHandle = createTemplate(own);
  retainTemplate(template);
  const first = tls.derive(template); // derive() takes one reference over.
  const second = tls.derive((retainTemplate(template), template));
  releaseTemplate(template);
  first.free();
  second.free();
  assert(template.low + template.high > 0);
});

Deno.test("opensslVersion() is that of OpenSSL 3 or 4", () => assertMatch(opensslVersion(), /^[34]\.\d+\.\d+$/));
