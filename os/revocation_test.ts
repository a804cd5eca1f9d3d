/** Who is let in when some are revoked: both sides, whole chains, and what a list must be to count (ZT-088, ZT-089). */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { MeshError } from "../base/errors.ts";
import { Arena } from "./arena.ts";
import { HandshakeStep, type PeerPath, type PeerPathState } from "./api.ts";
import {
  Extension,
  type LeafPem,
  SIGNS_CERTIFICATES,
  SIGNS_CERTIFICATES_AND_LISTS,
  TestAuthority,
} from "./certificates_testing.ts";
import * as libc from "./libc_cold.ts";
import { createTemplate, OpenSsl } from "./openssl.ts";
import { OpenSslPeer, PeerState } from "./openssl_peer_testing.ts";
import { readRevocationLists, releaseLists, retainLists } from "./revocation_lists.ts";

const CART = "spiffe://cluster.local/ns/shop/sa/cart", CERTIFICATE_REVOKED = 44;
const tls = new OpenSsl(new Arena(1 << 20, { hugePages: false }), { revocation: true });
const revocation = tls.revocation!;
const root = await TestAuthority.create("mesh");
const upper = await TestAuthority.create("upper", { parent: root, usages: SIGNS_CERTIFICATES_AND_LISTS });
const lower = await TestAuthority.create("lower", { parent: upper, usages: SIGNS_CERTIFICATES_AND_LISTS });
const identity = tls.derive(createTemplate(await root.issue([CART])));

/** Puts lists in force, in DER; whatever was before is let go. */
async function force(...ders: Uint8Array<ArrayBuffer>[]): Promise<void> {
  const lists = await readRevocationLists(ders);
  retainLists(lists);
  revocation.use(lists.handle);
  await releaseLists(lists);
}

/** Runs a handshake with a peer that has this leaf. @returns "" for one that is let in, or why not, and the peer's alert. */
function shake(server: boolean, leaf: LeafPem, keep?: (path: PeerPath | null) => void): [why: string, alert: number] {
  const [fd, peerFd] = libc.socketpair(libc.AF.UNIX, libc.SOCK.STREAM | libc.SOCK.NONBLOCK) as readonly [
    number,
    number,
  ];
  const ours = server ? identity.accept(fd) : identity.connect(fd);
  const peer = new OpenSslPeer(peerFd, {
    server: !server,
    leaf,
    roots: root.rootPem,
    alpn: server ? "\x02h2" : undefined,
  });
  let step: number = HandshakeStep.WANTS_READ, peerStep: number = PeerState.AGAIN;
  for (let round = 0; round < 10; round++) {
    if (peerStep === PeerState.AGAIN) peerStep = peer.step();
    if (step === HandshakeStep.WANTS_READ) step = ours.step();
  }
  if (step === HandshakeStep.FAILED && server) peer.read(); // A TLS 1.3 client may think that it is through.
  const done = step === HandshakeStep.DONE;
  if (done) {
    const path = ours.takePath();
    if (keep !== undefined) keep(path);
    else path?.free();
    const { sealer, opener } = ours.takeRecords();
    sealer.free();
    opener.free();
  }
  if (!done) assert(ours.failure() !== "", "a failed handshake says why");
  const why = done ? "" : ours.peerRevoked ? "revoked" : ours.failure(), alert = peer.alert;
  ours.free();
  peer.free();
  libc.close(fd);
  libc.close(peerFd);
  return [why, alert];
}

const IN = ["", -1], OUT = ["revoked", CERTIFICATE_REVOKED];

function bothSides(leaf: LeafPem, expected: readonly unknown[], what: string): void {
  for (const server of [true, false]) {
    assertEquals(shake(server, leaf), expected, `${what}, ours the server: ${server}`);
  }
  assertEquals(revocation.issuerCount, 0, "nobody is left of sessions that are gone");
}

Deno.test("with no list in force everybody of the mesh is let in (ZT-087)", async () => {
  bothSides(await lower.issue([CART]), IN, "before any list");
  await force();
  bothSides(await lower.issue([CART]), IN, "an empty set");
});

Deno.test("a revoked leaf is refused with alert 44, both ways; others of its issuer are let in (ZT-088)", async () => {
  const bad = await root.issue([CART]), good = await root.issue([CART]);
  await force(await root.revoke([bad.serial!, "7f000001"]));
  bothSides(bad, OUT, "revoked");
  bothSides(good, IN, "another");
  await force(await root.revoke(["7f000001"]));
  bothSides(bad, IN, "revoked no longer");
});

Deno.test("a revoked intermediate takes everyone below it along, at any depth (ZT-088, ZT-089)", async () => {
  const deep = await lower.issue([CART]), middle = await upper.issue([CART]), high = await root.issue([CART]);
  await force(await root.revoke([upper.serial]));
  bothSides(deep, OUT, "two below");
  bothSides(middle, OUT, "one below");
  bothSides(high, IN, "beside");
  await force(await upper.revoke([lower.serial]));
  bothSides(deep, OUT, "one below");
  bothSides(middle, IN, "beside");
});

Deno.test("unknown status is allowed, and a list that is past its day still counts (ZT-088)", async () => {
  const bad = await upper.issue([CART]), unknown = await lower.issue([CART]);
  await force(await upper.revoke([bad.serial!], { days: -1 }));
  bothSides(bad, OUT, "an old list");
  bothSides(unknown, IN, "no list of its issuer");
});

Deno.test("a number counts for its issuer alone, who must have signed the list (ZT-088, ZT-089)", async () => {
  const leaf = await upper.issue([CART], { serial: "0a0b0c" });
  // Same name, another key: in the original such a list fails every handshake under that name; here it counts for nothing.
  const namesake = await TestAuthority.create("upper", { parent: root, usages: SIGNS_CERTIFICATES_AND_LISTS });
  await force(await root.revoke(["0a0b0c"]), await lower.revoke(["0a0b0c"]), await namesake.revoke(["0a0b0c"]));
  bothSides(leaf, IN, "others' lists");
  assert(revocation.forgedCount > 0, "a list that its issuer did not sign is told of");
  await force(await namesake.revoke(["0a0b0c"]), await upper.revoke(["0a0b0c"]));
  bothSides(leaf, OUT, "its issuer's, behind a namesake's");
  bothSides(await namesake.issue([CART], { serial: "0a0b0c" }), OUT, "the namesake's own");
  await force(await namesake.revoke(["0a0b0c"]));
  bothSides(leaf, IN, "only the namesake's subtree (equal names, other keys)");
});

Deno.test("an intermediate must be allowed to sign lists; of a root only name and key count (ZT-088)", async () => {
  const mute = await TestAuthority.create("mute", { parent: root, usages: SIGNS_CERTIFICATES });
  const leaf = await mute.issue([CART]);
  await force(await mute.revoke([leaf.serial!]));
  bothSides(leaf, IN, "no cRLSign");
  const under = await root.issue([CART]); // This root's own certificate says keyCertSign alone.
  await force(await root.revoke([under.serial!]));
  bothSides(under, OUT, "a root");
});

Deno.test("the verified path decides, not what the peer presents beside it (ZT-089)", async () => {
  const leaf = await lower.issue([CART]), other = await TestAuthority.create("other", { parent: root });
  const stranger = await TestAuthority.create("stranger");
  const junk = { ...leaf, chain: leaf.chain + other.pem + stranger.pem };
  await force(
    await root.revoke([other.serial]),
    await stranger.revoke([...new Set([leaf.serial!, lower.serial, upper.serial])]),
  );
  bothSides(junk, IN, "junk that is revoked");
  const shuffled = leaf.chain.split(/(?<=-----END CERTIFICATE-----\n)/);
  const turned = { ...leaf, chain: shuffled[0]! + stranger.pem + shuffled[2]! + other.pem + shuffled[1]! };
  bothSides(turned, IN, "out of order");
  await force(await root.revoke([upper.serial]));
  bothSides(turned, OUT, "out of order, its own intermediate revoked");
});

Deno.test("numbers are compared as they are: long, short, with the top bit set (ZT-089)", async () => {
  const serials = ["01", "7f", "0080", "00ff00ff", "00" + "fe".repeat(19), "01".repeat(20)];
  for (const serial of serials) {
    const leaf = await root.issue([CART], { serial });
    await force(await root.revoke(serials.filter((it) => it !== serial)));
    bothSides(leaf, IN, serial);
    await force(await root.revoke([serial]));
    bothSides(leaf, OUT, serial);
  }
});

Deno.test("a kept path is judged by each new list, and holds its issuers until it is freed (ZT-089)", async () => {
  const leaf = await lower.issue([CART]), sibling = await lower.issue([CART]);
  await force();
  const paths: PeerPath[] = [];
  for (const it of [leaf, sibling]) assertEquals(shake(true, it, (path) => paths.push(path!)), IN as [string, number]);
  const revoked = () => paths.map((path) => path.revoked);
  assertEquals(revocation.issuerCount, 3, "equal issuers are one: lower, upper, root");
  assertEquals(revoked(), [false, false]);
  await force(await lower.revoke([leaf.serial!]));
  assertEquals(revoked(), [true, false], "the leaf");
  await force(await root.revoke(["7f7f"]));
  assertEquals(revoked(), [false, false], "an unrelated list");
  await force(await root.revoke([upper.serial]));
  assertEquals(revoked(), [true, true], "the subtree");
  paths[0]!.free();
  assertEquals(revocation.issuerCount, 3);
  assertEquals(paths[1]!.revoked, true);
  paths[1]!.free();
  assertEquals(revocation.issuerCount, 0);
});

Deno.test("a path that another process had is judged as it would have been there; what is none is not taken (ZT-089)", async () => {
  const leaf = await lower.issue([CART], { serial: "00fe" });
  await force();
  const states: PeerPathState[] = [];
  shake(true, leaf, (path) => {
    states.push(path!.exportPath());
    path!.free();
  });
  assertEquals(revocation.issuerCount, 0);
  const state = states[0]!;
  assertEquals(state.issuers.length, 3);
  const path = revocation.resumePath(state)!;
  for (const list of [await lower.revoke(["00fe"]), await root.revoke([upper.serial])]) {
    await force(list);
    assertEquals([path.revoked, path.exportPath()], [true, state]);
    await force(await root.revoke(["7f01"]));
    assertEquals(path.revoked, false);
  }
  path.free();
  for (const [at, der] of state.issuers.entries()) {
    const issuers = state.issuers.with(at, der.subarray(0, der.length - 1));
    assertEquals(revocation.resumePath({ ...state, issuers }), null);
    assertEquals(revocation.issuerCount, 0);
  }
});

Deno.test("what cannot be kept is let in, and says so by having no path (ZT-089)", async () => {
  await force();
  const paths: (PeerPath | null)[] = [];
  shake(true, await root.issue([CART], { serial: "01".repeat(300) }), (path) => paths.push(path));
  assertEquals(paths, [null]);
});

Deno.test("readRevocationLists() refuses what is no list, more than one, and lists that mean something else (ZT-087)", async () => {
  const list = await root.revoke(["05"]);
  const critical = new Extension("1.2.3.4", true, Uint8Array.of(5, 0)),
    harmless = new Extension("1.2.3.4", false, Uint8Array.of(5, 0));
  const delta = new Extension("2.5.29.27", true, Uint8Array.of(2, 1, 1));
  const cases: [Uint8Array<ArrayBuffer>, RegExp][] = [
    [new TextEncoder().encode("not a list"), /list 2 cannot be used: it is no list in DER/],
    [new Uint8Array(0), /no list in DER/],
    [list.slice(0, -1), /no list in DER/],
    [Uint8Array.of(...list, 0), /something follows it/],
    [await root.revoke([], { extensions: [critical] }), /critical extension/],
    [await root.revoke([], { extensions: [delta] }), /delta list/],
  ];
  for (const [der, why] of cases) {
    const error = await assertRejects(() => readRevocationLists([list, der]), MeshError);
    assertMatch(error.message, why);
  }
  const several = await readRevocationLists([list, await upper.revoke(["06", "07"], { extensions: [harmless] })]);
  assertEquals(several.revokedCount, 3);
  await releaseLists(several);
});
