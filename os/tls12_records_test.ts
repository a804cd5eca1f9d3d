/** TLS 1.2 where it is asked for: whom our handshakes let in, and our records against OpenSSL's own. */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { Arena } from "./arena.ts";
import type { MeshError } from "../base/errors.ts";
import { HandshakeStep, RecordError, type RecordOpener, type RecordSealer, type TlsPolicy } from "./api.ts";
import { type LeafPem, ONLY_SERVER, TestAuthority } from "./certificates_testing.ts";
import * as libc from "./libc_cold.ts";
import { checkPolicy, createTemplate, OpenSsl } from "./openssl.ts";
import { OpenSslPeer, type PeerOptions, PeerState } from "./openssl_peer_testing.ts";
import { readRevocationLists, releaseLists, retainLists } from "./revocation_lists.ts";
import { prf } from "./tls12_records.ts";
import { VerifiedChains } from "./verified_chains.ts";

const CART = "spiffe://cluster.local/ns/shop/sa/cart";
const arena = new Arena(1 << 20, { hugePages: false });
const tls = new OpenSsl(arena, { tls12: true });
/** Libraries before 3.5 have nothing post-quantum to ask for. */
const stricter = [{}, { tls12: true, postQuantumOnly: true }].filter(takes).map((policy) => new OpenSsl(arena, policy));
const authority = await TestAuthority.create("mesh"), stranger = await TestAuthority.create("stranger");
const ecdsa = await authority.issue([CART]), rsa = await authority.issue([CART], { rsa: true });
const identities = { ecdsa: tls.derive(createTemplate(ecdsa)), rsa: tls.derive(createTemplate(rsa)) };
const verified = new VerifiedChains(Date.now);
const watched = new OpenSsl(arena, { tls12: true }, verified).derive(createTemplate(ecdsa));
const revokingTls = new OpenSsl(arena, { tls12: true, revocation: true });
const revoking = { tls: revokingTls, identity: revokingTls.derive(createTemplate(rsa)) };
const AT = arena.allocate(5 + 16_384 + 256 + 64);
const ALERT = 21, HANDSHAKE = 22, APPLICATION = 23;
const SUITES = [
  "ECDHE-ECDSA-AES256-GCM-SHA384",
  "ECDHE-ECDSA-AES128-GCM-SHA256",
  "ECDHE-RSA-AES256-GCM-SHA384",
  "ECDHE-RSA-AES128-GCM-SHA256",
];

function takes(policy: TlsPolicy): boolean {
  try {
    checkPolicy(policy);
    return true;
  } catch (error) {
    assertEquals((error as MeshError).code, "AMB7057");
    return false;
  }
}

interface Outcome {
  readonly done: boolean;
  readonly failure: string;
  readonly revoked: boolean;
  readonly peer: OpenSslPeer;
  readonly fd: number;
  take(): { sealer: RecordSealer; opener: RecordOpener };
}

/** Runs a handshake to its end on both sides; `server` says which side ours is. */
function shake(
  server: boolean,
  options: Partial<PeerOptions>,
  look: (outcome: Outcome) => void,
  our = identities.ecdsa,
): void {
  const pair = libc.socketpair(libc.AF.UNIX, libc.SOCK.STREAM | libc.SOCK.NONBLOCK | libc.SOCK.CLOEXEC);
  const [fd, peerFd] = pair as readonly [number, number];
  const ours = server ? our.accept(fd) : our.connect(fd);
  const peer = new OpenSslPeer(peerFd, {
    server: !server,
    leaf: ecdsa,
    roots: authority.rootPem,
    tls12Only: true,
    alpn: server ? "\x02h2" : undefined,
    ...options,
  });
  let step: number = HandshakeStep.WANTS_READ, peerStep: number = PeerState.AGAIN;
  for (let round = 0; round < 10; round++) {
    if (peerStep === PeerState.AGAIN) peerStep = peer.step();
    if (step === HandshakeStep.WANTS_READ) step = ours.step();
  }
  if (step === HandshakeStep.FAILED) peer.read();
  let taken: { sealer: RecordSealer; opener: RecordOpener } | undefined;
  try {
    const done = step === HandshakeStep.DONE && peerStep === PeerState.DONE;
    const { peerRevoked: revoked } = ours;
    look({ done, failure: ours.failure(), revoked, peer, fd, take: () => taken = ours.takeRecords() });
  } finally {
    taken?.sealer.free();
    taken?.opener.free();
    ours.free();
    peer.free();
    libc.close(fd);
    libc.close(peerFd);
  }
}

interface Ends {
  readonly sealer: RecordSealer;
  readonly opener: RecordOpener;
  readonly peer: OpenSslPeer;
  readonly fd: number;
}

function connected(server: boolean, options: Partial<PeerOptions>, body: (ends: Ends) => void, our = identities.ecdsa) {
  shake(server, options, ({ done, failure, peer, fd, take }) => {
    assert(done, `${failure}, ${peer.failure}`);
    body({ ...take(), peer, fd });
  }, our);
}

function receiveExactly(fd: number, at: number, bytes: number): void {
  const got = new Uint8Array(bytes);
  assertEquals(libc.receive(fd, got), bytes);
  arena.u8.set(got, at);
}

/** Brings the next record of the peer to {@link AT}. @returns Its length. */
function fetchRecord(fd: number): number {
  receiveExactly(fd, AT, 5);
  const bytes = arena.u8[AT + 3]! << 8 | arena.u8[AT + 4]!;
  receiveExactly(fd, AT + 5, bytes);
  return 5 + bytes;
}

function nextRecord({ fd, opener }: Ends): { type: number; content: Uint8Array } {
  const end = opener.open(AT, fetchRecord(fd));
  assert(end > 0, `the record opens: ${end}`);
  return { type: arena.u8[AT + 5 + end - 1]!, content: arena.u8.slice(AT + 5, AT + 5 + end - 1) };
}

function sendRecord({ fd, sealer }: Ends, content: Uint8Array, type = APPLICATION): void {
  arena.u8.set(content, AT + 5);
  const bytes = sealer.seal(AT, content.length, type);
  assertEquals(bytes, content.length + 29);
  assertEquals(libc.send(fd, arena.u8.slice(AT, AT + bytes)), bytes);
}

function pattern(bytes: number, from: number): Uint8Array<ArrayBuffer> {
  const made = new Uint8Array(bytes);
  for (let at = 0; at < bytes; at++) made[at] = (at * 31 + from) & 255;
  return made;
}

for (const ciphers of SUITES) {
  for (const server of [true, false]) {
    const side = server ? "server" : "client", leaf = ciphers.includes("RSA-") ? rsa : ecdsa;
    Deno.test(`records of ${ciphers} go both ways with OpenSSL, every content size, as ${side} (ZT-080, RFC 5288 §3)`, () => {
      const our = leaf === rsa ? identities.rsa : identities.ecdsa;
      connected(server, { ciphers, leaf: server ? ecdsa : leaf }, (ends) => {
        assertEquals([ends.peer.cipher, ends.peer.tls12, ends.peer.resumed], [ciphers, true, false]);
        if (server) assertEquals(ends.peer.alpn, "h2");
        assertEquals([ends.sealer.tls12, ends.opener.tls12], [true, true]);
        for (let bytes = 1; bytes <= 16_384; bytes += bytes < 300 || bytes > 16_360 ? 1 : 331) {
          assertEquals(ends.peer.write(pattern(bytes, bytes)), bytes);
          assertEquals(nextRecord(ends), { type: APPLICATION, content: pattern(bytes, bytes) });
          if (bytes > ends.sealer.contentBytesMax) continue;
          sendRecord(ends, pattern(bytes, 7));
          assertEquals(ends.peer.read(), pattern(bytes, 7), ends.peer.failure);
        }
        sendRecord(ends, Uint8Array.of(1, 0), ALERT);
        assertEquals([ends.peer.read(), ends.peer.closed], [undefined, true]);
        ends.peer.shutdown();
        assertEquals(nextRecord(ends), { type: ALERT, content: Uint8Array.of(1, 0) });
      }, server ? our : identities.ecdsa);
    });
  }
}

Deno.test("a full record of ours is as long as one of TLS 1.3, and no longer", () => {
  connected(true, {}, ({ sealer }) => {
    const before = arena.u8[AT + 16_406] = 77;
    assertEquals(sealer.seal(AT, sealer.contentBytesMax, APPLICATION), 5 + 16_384 + 1 + 16);
    assertEquals(arena.u8[AT + 16_406], before);
    assertThrows(() => sealer.seal(AT, sealer.contentBytesMax + 1, APPLICATION), Error, "stays in its place");
  });
});

Deno.test("a record with any bit changed, cut, twice, or out of order does not open (RFC 5246 §6.2.3.3)", () => {
  for (let at = 0; at < 5 + 8 + 10 + 16; at++) {
    if (at === 3 || at === 4) continue; // The length is what the caller read.
    connected(true, {}, (ends) => {
      ends.peer.write(pattern(10, 0));
      assertEquals(fetchRecord(ends.fd), 39);
      arena.u8[AT + at]! ^= 1 << (at & 7);
      assertEquals(ends.opener.open(AT, 39), RecordError.BAD_RECORD, `byte ${at}`);
    });
  }
  connected(true, {}, (ends) => {
    ends.peer.write(pattern(10, 0));
    fetchRecord(ends.fd);
    for (let bytes = 5; bytes < 39; bytes++) {
      const saved = arena.u8.slice(AT, AT + 39);
      assertEquals(ends.opener.open(AT, bytes), RecordError.BAD_RECORD, `${bytes} bytes`);
      arena.u8.set(saved, AT);
    }
    assertEquals(ends.opener.open(AT, 5 + 8 + 16_385 + 16), RecordError.OVERFLOW);
  });
  connected(true, {}, (ends) => {
    ends.peer.write(pattern(10, 0));
    const saved = arena.u8.slice(AT, AT + fetchRecord(ends.fd)), record = arena.u8.slice(AT, AT + saved.length);
    assertEquals(ends.opener.open(AT, record.length), 11);
    arena.u8.set(record, AT);
    assertEquals(ends.opener.open(AT, record.length), RecordError.BAD_RECORD);
  });
  connected(true, {}, (ends) => {
    for (let record = 0; record < 2; record++) {
      ends.peer.write(pattern(10, 0));
      fetchRecord(ends.fd); // The first is lost.
    }
    assertEquals(ends.opener.open(AT, 39), RecordError.BAD_RECORD);
  });
});

Deno.test("OpenSSL refuses our record twice, and a nonce never comes again", () => {
  connected(true, {}, (ends) => {
    const nonces = new Set<string>();
    for (let round = 0; round < 100; round++) {
      sendRecord(ends, pattern(10, round));
      nonces.add(arena.u8.slice(AT + 5, AT + 13).toHex());
      assertEquals(ends.peer.read(), pattern(10, round));
    }
    assertEquals(nonces.size, 100);
    libc.send(ends.fd, arena.u8.slice(AT, AT + 39));
    assertEquals(ends.peer.read(), undefined);
    assert(ends.peer.failure !== ""); // Which of its layers says so differs by version.
  });
});

Deno.test("a peer that renegotiates is opened as a handshake record, which its caller refuses; keys never change", () => {
  for (const server of [true, false]) {
    connected(server, {}, (ends) => {
      ends.peer.renegotiate();
      assertEquals(nextRecord(ends).type, HANDSHAKE);
      for (const it of [ends.sealer, ends.opener]) {
        assertThrows(() => it.nextKey(), Error, "no KeyUpdate");
        assertThrows(() => it.exportKeys(), Error, "not handed over");
      }
    });
  }
});

Deno.test("with TLS 1.2 allowed 1.3 is still spoken by whoever can (ZT-079)", () => {
  for (const server of [true, false]) {
    connected(server, { tls12Only: false }, ({ peer, sealer }) => {
      assertEquals([peer.cipher, sealer.tls12], ["TLS_AES_256_GCM_SHA384", false]);
    });
  }
});

Deno.test("TLS 1.2 is refused with alert 70 where it is not asked for, and where key exchange must be post-quantum (ZT-079)", () => {
  for (const strict of stricter) {
    const identity = strict.derive(createTemplate(ecdsa));
    shake(true, {}, ({ done, peer }) => assertEquals([done, peer.alert], [false, 70]), identity);
    shake(false, {}, ({ done, failure }) => {
      assertEquals(done, false);
      assertMatch(failure, /unsupported protocol|protocol version/);
    }, identity);
    identity.free();
  }
});

Deno.test("no suite of TLS 1.2 but the four is agreed on (ZT-080)", () => {
  const others = ["ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"];
  for (const ciphers of others) {
    shake(true, { ciphers }, ({ done, peer }) => assertEquals([done, peer.alert], [false, 40], ciphers));
    shake(false, { ciphers }, ({ done }) => assertEquals(done, false, ciphers));
  }
  shake(true, { ciphers: "AES256-GCM-SHA384" }, ({ done }) => assertEquals(done, false), identities.rsa); // No forward secrecy.
});

Deno.test("a TLS 1.2 without extended master secret is refused (RFC 7627 §5.4)", () => {
  for (const server of [true, false]) {
    shake(server, { noExtendedMaster: true }, ({ done, failure }) => {
      assertEquals(done, false);
      assertMatch(failure, /no extended master secret/);
    });
  }
});

Deno.test("a TLS 1.2 client without a good certificate is refused within the handshake (ZT-083)", async () => {
  const cases: [string, LeafPem | undefined, number, RegExp][] = [
    ["none", undefined, 40, /peer did not return a certificate/],
    ["expired", await authority.issue([CART], { days: -1 }), 45, /certificate has expired/],
    ["another root", await stranger.issue([CART]), 48, /unable to get local issuer certificate/],
    ["for servers only", await authority.issue([CART], { usages: ONLY_SERVER }), 43, /unsuitable certificate purpose/],
  ];
  for (const [name, leaf, alert, reason] of cases) {
    shake(true, { leaf }, ({ done, failure, peer }) => {
      assertEquals([done, peer.alert], [false, alert], name);
      assertMatch(failure, reason, name);
    });
  }
  shake(false, { leaf: await stranger.issue([CART]) }, ({ done, peer }) => {
    assertEquals([done, peer.alert], [false, 48]); // ZT-085
  });
  shake(true, { alpn: "\x08http/1.1" }, ({ done, peer }) => assertEquals([done, peer.alert], [false, 120])); // ZT-081
});

Deno.test("a TLS 1.2 connection is never resumed, and gives no ticket (ZT-081)", () => {
  shake(true, {}, ({ done, peer }) => {
    assertEquals([done, peer.resumable], [true, false]);
    const session = peer.takeSession();
    shake(true, { resume: session }, (second) => assertEquals([second.done, second.peer.resumed], [true, false]));
    OpenSslPeer.freeSession(session);
  });
});

Deno.test("with TLS 1.2 a chain is verified once for each role too, and a revoked one is refused within the handshake (ZT-088)", async () => {
  const counts: number[] = [];
  for (const server of [true, true, false, false]) {
    const before = verified.doneCount;
    shake(server, {}, ({ done, take }) => (assert(done), take()), watched);
    counts.push(verified.doneCount - before);
  }
  assertEquals(counts, [1, 0, 1, 0]);
  const lists = await readRevocationLists([await authority.revoke([ecdsa.serial!])]);
  retainLists(lists);
  revoking.tls.revocation!.use(lists.handle);
  await releaseLists(lists);
  for (const server of [true, false]) {
    shake(server, {}, ({ done, peer, revoked }) => {
      assertEquals([done, revoked, peer.alert], [false, true, 44]);
    }, revoking.identity);
    shake(server, { leaf: rsa }, ({ done, take }) => (assert(done), take()), revoking.identity);
  }
});

Deno.test("prf() is that of TLS 1.2 (RFC 5246 §5; vectors for SHA-256 as the working group published them)", () => {
  const secret = new Uint8Array(Uint8Array.fromHex("9bbe436ba940f017b17652849a71db35"));
  const seed = Uint8Array.fromHex("a0ba9f936cda311827a6f796ffd5198c");
  const label = new TextEncoder().encode("test label"), joined = new Uint8Array([...label, ...seed]);
  assertEquals(
    prf("aes128", secret, joined, 32).toHex(),
    "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a",
  );
});
