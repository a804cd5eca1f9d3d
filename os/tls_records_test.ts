/** Our records against OpenSSL's own, both ends in this thread. */
import { assert, assertEquals } from "@std/assert";
import { Arena } from "./arena.ts";
import { HandshakeStep, RecordError } from "./api.ts";
import { TestAuthority } from "./certificates_testing.ts";
import * as libc from "./libc_cold.ts";
import { createTemplate, OpenSsl } from "./openssl.ts";
import { OpenSslPeer, type PeerOptions, PeerState } from "./openssl_peer_testing.ts";
import type { Opener, Sealer } from "./tls_records.ts";

const arena = new Arena(1 << 20, { hugePages: false });
const tls = new OpenSsl(arena);
const authority = await TestAuthority.create("records");
const leaf = await authority.issue(["spiffe://cluster.local/ns/a/sa/b"]);
const identity = tls.derive(createTemplate(leaf));
const AT = arena.allocate(5 + 16_384 + 256 + 64);
const HANDSHAKE = 22, APPLICATION = 23;
const KEY_UPDATE = [24, 0, 0, 1, 0];

interface Ends {
  readonly sealer: Sealer;
  readonly opener: Opener;
  readonly peer: OpenSslPeer;
  readonly fd: number;
}

/** A connection after its handshake; `server` says which side ours is. */
function connected(server: boolean, options: Partial<PeerOptions>, body: (ends: Ends) => void): void {
  const pair = libc.socketpair(libc.AF.UNIX, libc.SOCK.STREAM | libc.SOCK.NONBLOCK | libc.SOCK.CLOEXEC);
  const [fd, peerFd] = pair as readonly [number, number];
  const ours = server ? identity.accept(fd) : identity.connect(fd);
  const peer = new OpenSslPeer(peerFd, { server: !server, leaf, roots: authority.rootPem, ...options });
  let step: number = HandshakeStep.WANTS_READ, peerStep: number = PeerState.AGAIN;
  for (let round = 0; step !== HandshakeStep.DONE || peerStep !== PeerState.DONE; round++) {
    assert(round < 20, `the handshake ends (${peer.failure}, ${ours.failure()})`);
    peerStep = peer.step();
    assert(peerStep !== PeerState.FAILED, peer.failure);
    if (step !== HandshakeStep.DONE) step = ours.step();
    assert(step !== HandshakeStep.FAILED, ours.failure());
  }
  const { sealer, opener } = ours.takeRecords() as { sealer: Sealer; opener: Opener };
  try {
    body({ sealer, opener, peer, fd });
  } finally {
    sealer.free();
    opener.free();
    peer.free();
    libc.close(fd);
    libc.close(peerFd);
  }
}

function receiveExactly(fd: number, at: number, bytes: number): void {
  const got = new Uint8Array(bytes);
  assertEquals(libc.receive(fd, got), bytes);
  arena.u8.set(got, at);
}

/** Opens the next record from the peer. @returns Content type and content, padding taken off. */
function nextRecord({ fd, opener }: Ends): { type: number; content: Uint8Array } {
  receiveExactly(fd, AT, 5);
  const bytes = arena.u8[AT + 3]! << 8 | arena.u8[AT + 4]!;
  receiveExactly(fd, AT + 5, bytes);
  let end = opener.open(AT, 5 + bytes);
  assert(end > 0, `the record of ${bytes} bytes opens: ${end}`);
  while (arena.u8[AT + 5 + end - 1] === 0) end--;
  return { type: arena.u8[AT + 5 + end - 1]!, content: arena.u8.slice(AT + 5, AT + 5 + end - 1) };
}

function sendRecord({ fd, sealer }: Ends, content: Uint8Array, type = APPLICATION): void {
  arena.u8.set(content, AT + 5);
  const bytes = sealer.seal(AT, content.length, type);
  assertEquals(bytes, content.length + 22);
  assertEquals(libc.send(fd, arena.u8.slice(AT, AT + bytes)), bytes);
}

function pattern(bytes: number, from: number): Uint8Array<ArrayBuffer> {
  const made = new Uint8Array(bytes);
  for (let at = 0; at < bytes; at++) made[at] = (at * 31 + from) & 255;
  return made;
}

const SUITES = [
  { ciphers: "TLS_AES_256_GCM_SHA384", name: "AES-256" },
  { ciphers: "TLS_AES_128_GCM_SHA256", name: "AES-128" },
];

for (const { ciphers, name } of SUITES) {
  for (const server of [true, false]) {
    const side = server ? "server" : "client";
    Deno.test(`Sealer and Opener speak ${name} with OpenSSL, every content size, as ${side} (RFC 8446 §5.2)`, () => {
      connected(server, { ciphers, tickets: 0 }, (ends) => {
        assertEquals(ends.peer.cipher, ciphers);
        for (let bytes = 0; bytes <= 16_384; bytes += bytes < 300 || bytes > 16_370 ? 1 : 97) {
          if (bytes > 0) { // OpenSSL sends no empty record by itself.
            assertEquals(ends.peer.write(pattern(bytes, bytes)), bytes);
            assertEquals(nextRecord(ends), { type: APPLICATION, content: pattern(bytes, bytes) });
          }
          sendRecord(ends, pattern(bytes, 7));
          if (bytes > 0) assertEquals(ends.peer.read(), pattern(bytes, 7), ends.peer.failure);
        }
      });
    });
  }

  Deno.test(`Opener leaves padding to its caller, with ${name} (RFC 8446 §5.4)`, () => {
    connected(true, { ciphers, blockPadding: 1000 }, (ends) => {
      for (const bytes of [1, 15, 998, 999, 1000, 1001, 16_383, 16_384]) {
        assertEquals(ends.peer.write(pattern(bytes, bytes)), bytes);
        assertEquals(nextRecord(ends), { type: APPLICATION, content: pattern(bytes, bytes) });
        sendRecord(ends, Uint8Array.of(bytes & 255, APPLICATION, 0, 0, 0, 0), 0); // Padded by ours.
        assertEquals(ends.peer.read(), Uint8Array.of(bytes & 255), ends.peer.failure);
      }
    });
  });

  Deno.test(`nextKey() follows key updates of either side, many times, with ${name} (RFC 8446 §4.6.3, §7.2)`, () => {
    connected(false, { ciphers, tickets: 0 }, (ends) => {
      for (let round = 0; round < 60; round++) {
        const request = round % 3 === 0;
        if (round % 2 === 0) {
          ends.peer.keyUpdate(request);
          assertEquals(ends.peer.write(pattern(100, round)), 100);
          const update = nextRecord(ends);
          assertEquals(update, { type: HANDSHAKE, content: Uint8Array.of(24, 0, 0, 1, request ? 1 : 0) });
          ends.opener.nextKey();
          assertEquals(nextRecord(ends).content, pattern(100, round));
        }
        if (round % 5 === 0) {
          sendRecord(ends, Uint8Array.from(KEY_UPDATE), HANDSHAKE);
          assertEquals(ends.sealer.sealedCount > 0, true);
          ends.sealer.nextKey();
          assertEquals(ends.sealer.sealedCount, 0);
        }
        for (let record = 0; record <= round % 4; record++) {
          sendRecord(ends, pattern(50, record));
          assertEquals(ends.peer.read(), pattern(50, record), ends.peer.failure);
        }
      }
    });
  });
}

Deno.test("Opener opens the tickets of a server as handshake records (RFC 8446 §4.6.1)", () => {
  connected(false, { tickets: 3 }, (ends) => {
    ends.peer.write(pattern(1, 1));
    for (let ticket = 0; ticket < 3; ticket++) {
      const { type, content } = nextRecord(ends);
      assertEquals([type, content[0]], [HANDSHAKE, 4]);
    }
    assertEquals(nextRecord(ends).content, pattern(1, 1));
  });
});

Deno.test("Opener refuses a record with any bit changed, cut or reordered (RFC 8446 §5.2)", () => {
  for (let at = 0; at < 5 + 10 + 17; at++) {
    connected(true, {}, (ends) => {
      ends.peer.write(pattern(10, 0));
      receiveExactly(ends.fd, AT, 32);
      arena.u8[AT + at]! ^= 1 << (at & 7);
      assertEquals(ends.opener.open(AT, 32), RecordError.BAD_RECORD, `byte ${at}`);
    });
  }
  connected(true, {}, (ends) => {
    ends.peer.write(pattern(10, 0));
    receiveExactly(ends.fd, AT, 32);
    for (let bytes = 5; bytes < 22; bytes++) assertEquals(ends.opener.open(AT, bytes), RecordError.BAD_RECORD);
    assertEquals(ends.opener.open(AT, 5 + 16_384 + 257), RecordError.OVERFLOW);
  });
  connected(true, {}, (ends) => {
    ends.peer.write(pattern(10, 0));
    receiveExactly(ends.fd, AT, 32); // Lost.
    ends.peer.write(pattern(10, 0));
    receiveExactly(ends.fd, AT, 32);
    assertEquals(ends.opener.open(AT, 32), RecordError.BAD_RECORD);
  });
});

Deno.test("the peer's own OpenSSL refuses what was sealed under a key it has not been told of", () => {
  connected(true, {}, (ends) => {
    ends.sealer.nextKey();
    sendRecord(ends, pattern(10, 0));
    assertEquals(ends.peer.read(), undefined);
    assert(ends.peer.failure.includes("bad record mac"), ends.peer.failure);
  });
});

Deno.test("expandLabel() derives key and IV as RFC 8448 §3 shows them", () => {
  const secret = new Uint8Array(Uint8Array.fromHex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643"));
  assertEquals(tls.records.expandLabel("aes128", secret, "key", 16).toHex(), "9f02283b6c9c07efc26bb9f2ac92e356");
  assertEquals(tls.records.expandLabel("aes128", secret, "iv", 12).toHex(), "cf782b88dd83549aadf1e984");
});

Deno.test("expandLabel() is HMAC over the label by the suite's hash, whichever was used before, and leaves nothing of it", async () => {
  for (
    const [suite, hash, bytes] of [["aes256", "SHA-384", 48], ["aes128", "SHA-256", 32], ["aes256", "SHA-384", 48]]
  ) {
    const secret = crypto.getRandomValues(new Uint8Array(bytes as number)),
      label = new TextEncoder().encode("tls13 key");
    const key = await crypto.subtle.importKey("raw", secret, { name: "HMAC", hash: hash as string }, false, ["sign"]);
    const info = Uint8Array.of(0, 16, label.length, ...label, 0, 1);
    const expected = new Uint8Array(await crypto.subtle.sign("HMAC", key, info)).subarray(0, 16).toHex();
    assertEquals(tls.records.expandLabel(suite as "aes256", secret, "key", 16).toHex(), expected);
    assert(!arena.u8.toHex().includes(secret.toHex()) && !arena.u8.toHex().includes(expected), "all of it is wiped");
  }
});

Deno.test("a new connection's keys leave nothing of the last one's in the arena's key scratch", () => {
  connected(true, {}, () => {
    assert(arena.u8.subarray(tls.records.keyAt, tls.records.keyAt + 32).every((byte) => byte === 0));
  });
});

for (const ciphers of ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"]) {
  Deno.test(`exported keys go on where they stood, also after a new one (${ciphers})`, () => {
    connected(true, { ciphers }, (ends) => {
      let { sealer, opener } = ends;
      for (let round = 0; round < 6; round++) {
        sendRecord({ ...ends, sealer }, pattern(100, round));
        assertEquals(ends.peer.read(), pattern(100, round));
        ends.peer.write(pattern(10, round));
        receiveExactly(ends.fd, AT, 32);
        assertEquals(opener.open(AT, 32), 11);
        if (round === 2) {
          sendRecord({ ...ends, sealer }, Uint8Array.from(KEY_UPDATE), HANDSHAKE);
          sealer.nextKey();
        }
        const [seal, open] = [sealer.exportKeys(), opener.exportKeys()];
        assertEquals([seal.sequence, open.sequence], [round < 2 ? round + 1 : round - 2, round + 1]);
        const resumed = tls.resumeRecords(seal, open);
        if (resumed === undefined) throw new Error("our own keys are not whole");
        if (round > 0) { // The first pair is freed with the connection.
          sealer.free();
          opener.free();
        }
        ({ sealer, opener } = resumed);
      }
      sealer.free();
      opener.free();
    });
  });
}

Deno.test("OpenSsl.resumeRecords() takes no keys that fit no suite", () => {
  const good = { suite: "aes128", secret: new Uint8Array(32), sequence: 0 };
  for (const change of [{ suite: "aes" }, { secret: new Uint8Array(31) }, { sequence: -1 }, { sequence: 2 ** 53 }]) {
    assertEquals(tls.resumeRecords(good, { ...good, ...change }), undefined);
    assertEquals(tls.resumeRecords({ ...good, ...change }, good), undefined);
  }
});
