/** What was verified is not verified again, and nothing else is believed for it. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { HandshakeStep, type TlsIdentity } from "./api.ts";
import { Arena } from "./arena.ts";
import { type LeafPem, ONLY_SERVER, TestAuthority } from "./certificates_testing.ts";
import * as libc from "./libc_cold.ts";
import { createTemplate, OpenSsl } from "./openssl.ts";
import { OpenSslPeer, PeerState } from "./openssl_peer_testing.ts";
import { VerifiedChains } from "./verified_chains.ts";

const URI = "spiffe://cluster.local/ns/shop/sa/cart";
const DAY_MS = 86_400_000, CHAINS = 3;
let nowMs = Date.now();
const verified = new VerifiedChains(() => nowMs, CHAINS);
const arena = new Arena(1 << 20, { hugePages: false });
const tls = new OpenSsl(arena, {}, verified);
const authority = await TestAuthority.create("mesh"), stranger = await TestAuthority.create("mesh");
const own = await authority.issue([URI]);

/** Runs a handshake. @returns The peer's names, or why it failed; and whether its chain was verified anew. */
function shake(identity: TlsIdentity, server: boolean, leaf: LeafPem): { names: string; anew: number } {
  const pair = libc.socketpair(libc.AF.UNIX, libc.SOCK.STREAM | libc.SOCK.NONBLOCK) as readonly [number, number];
  const ours = server ? identity.accept(pair[0]) : identity.connect(pair[0]);
  const peer = new OpenSslPeer(pair[1], { server: !server, leaf, roots: authority.rootPem });
  const before = verified.doneCount;
  let step: number = HandshakeStep.WANTS_READ, peerStep: number = PeerState.AGAIN;
  for (let round = 0; round < 10; round++) {
    if (peerStep === PeerState.AGAIN) peerStep = peer.step();
    if (step === HandshakeStep.WANTS_READ) step = ours.step();
  }
  const names = step === HandshakeStep.DONE ? ours.peerUris().join() : ours.failure();
  ours.free();
  peer.free();
  pair.forEach((fd) => libc.close(fd));
  return { names, anew: verified.doneCount - before };
}

/** A pod's identity, freed at the end. */
function withIdentity(body: (identity: TlsIdentity) => void): void {
  const identity = tls.derive(createTemplate(own));
  try {
    body(identity);
  } finally {
    identity.free();
  }
}

Deno.test("handshakes under way at once have each its own peer's names, known or not (ZT-083, ZT-085)", async () => {
  const leaves = await Promise.all(["a", "b", "c"].map((name) => authority.issue([URI + name])));
  withIdentity((identity) => {
    for (let round = 0; round < 3; round++) { // Of three chains that are kept, so that later ones are known.
      const under = leaves.map((leaf) => {
        const pair = libc.socketpair(libc.AF.UNIX, libc.SOCK.STREAM | libc.SOCK.NONBLOCK) as readonly [number, number];
        const peer = new OpenSslPeer(pair[1], { server: false, leaf, roots: authority.rootPem });
        return { pair, peer, ours: identity.accept(pair[0]) };
      });
      for (let turn = 0; turn < 3; turn++) {
        for (const { peer } of under) peer.step();
        for (const { ours } of under.toReversed()) ours.step();
      }
      assertEquals(under.map(({ ours }) => ours.peerUris()), [[URI + "a"], [URI + "b"], [URI + "c"]]);
      for (const { ours, peer, pair } of under) {
        ours.free();
        peer.free();
        pair.forEach((fd) => libc.close(fd));
      }
    }
  });
});

Deno.test("a chain is verified once for each role, and its names stay its own (ZT-083, ZT-085)", async () => {
  const other = await authority.issue([URI + "2"]);
  withIdentity((identity) => {
    for (const server of [true, false]) {
      assertEquals(shake(identity, server, own), { names: URI, anew: 1 });
      assertEquals(shake(identity, server, own), { names: URI, anew: 0 });
      assertEquals(shake(identity, server, other), { names: URI + "2", anew: 1 });
      assertEquals(shake(identity, server, other), { names: URI + "2", anew: 0 });
    }
  });
  // Another context may have other roots: it has verified nothing.
  withIdentity((identity) => assertEquals(shake(identity, true, own).anew, 1));
});

Deno.test("what was refused is refused again, whatever else is known (ZT-083, ZT-085)", async () => {
  const forServers = await authority.issue([URI], { usages: ONLY_SERVER });
  const forged = await stranger.issue([URI]); // By an authority of the same name.
  const late = await authority.issue([URI], { days: -1 });
  withIdentity((identity) => {
    assertEquals(shake(identity, false, forServers), { names: URI, anew: 1 });
    for (let round = 0; round < 2; round++) {
      assertEquals(shake(identity, true, own).names, URI);
      const refused = (leaf: LeafPem, reason: RegExp) => {
        const { names, anew } = shake(identity, true, leaf);
        assertMatch(names, reason);
        assertEquals(anew, 1, "a refusal is not remembered");
      };
      refused(forServers, /unsuitable certificate purpose/); // Known to the client's side alone.
      refused(forged, /certificate signature failure|unable to get local issuer/);
      refused(late, /certificate has expired/);
    }
  });
});

Deno.test("a chain is verified anew once a certificate of it has expired, or the clock was put back", async () => {
  const short = await authority.issue([URI], { days: 2 });
  withIdentity((identity) => {
    const startMs = nowMs;
    assertEquals([1, 2].map(() => shake(identity, true, short).anew), [1, 0]);
    const at = (ms: number) => {
      nowMs = startMs + ms;
      return shake(identity, true, short).anew;
    };
    assertEquals(at(2 * DAY_MS - 60_000), 0);
    assertEquals(at(2 * DAY_MS + 1), 1); // OpenSSL's clock has not moved, so that it is believed again.
    nowMs = startMs + 2 * DAY_MS + 1;
    assertEquals(at(-1), 1);
    nowMs = startMs;
  });
});

Deno.test("the chains that are remembered are few, and the oldest makes room", async () => {
  const leaves = await Promise.all(Array.from({ length: CHAINS + 1 }, () => authority.issue([URI])));
  withIdentity((identity) => {
    const anew = (at: number) => shake(identity, true, leaves[at]!).anew;
    assertEquals([0, 1, 2, 0, 1, 2].map(anew), [1, 1, 1, 0, 0, 0]);
    assertEquals([3, 3, 2, 1, 0, 1].map(anew), [1, 0, 0, 0, 1, 1]); // 0 and then 1 had to go.
  });
});

Deno.test("a handshake that outlives its identity is verified in full", () => {
  const identity = tls.derive(createTemplate(own));
  assertEquals(shake(identity, true, own).anew, 1);
  const pair = libc.socketpair(libc.AF.UNIX, libc.SOCK.STREAM | libc.SOCK.NONBLOCK) as readonly [number, number];
  const ours = identity.accept(pair[0]), peer = new OpenSslPeer(pair[1], { server: false, leaf: own });
  identity.free();
  const before = verified.doneCount;
  let step: number = HandshakeStep.WANTS_READ;
  for (let round = 0; round < 10; round++) {
    peer.step();
    if (step === HandshakeStep.WANTS_READ) step = ours.step();
  }
  assertEquals([step, verified.doneCount - before], [HandshakeStep.DONE, 1]);
  ours.free();
  peer.free();
  pair.forEach((fd) => libc.close(fd));
});

Deno.test("with revocation lists every chain is verified each time (ZT-088)", () => {
  assert(REVOKING.verified === null);
});
const REVOKING = new OpenSsl(arena, { revocation: true });
