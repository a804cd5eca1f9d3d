/** A full mutual handshake with both ends in one thread, and what taking over its records adds. */
import { Arena } from "../../os/arena.ts";
import { HandshakeStep, type TlsHandshake } from "../../os/api.ts";
import { TestAuthority } from "../../os/certificates_testing.ts";
import * as libc from "../../os/libc_cold.ts";
import { createTemplate, OpenSsl, opensslVersion } from "../../os/openssl.ts";
import { readRevocationLists } from "../../os/revocation_lists.ts";

const arena = new Arena(1 << 20, { hugePages: false });
const tls = new OpenSsl(arena), watchful = new OpenSsl(arena, { revocation: true });
const authority = await TestAuthority.create("mesh");
const leaf = await authority.issue(["spiffe://cluster.local/ns/shop/sa/cart"]);
const identity = tls.derive(createTemplate(leaf)), watched = watchful.derive(createTemplate(leaf));
// As long as @peculiar/x509 makes them.
const numbers = Array.from({ length: 2_000 }, (_, at) => (0x7a000000 + at).toString(16));
watchful.revocation!.use((await readRevocationLists([await authority.revoke(numbers)])).handle);

function handshake(takeRecords: boolean, of = identity): void {
  const pair = libc.socketpair(libc.AF.UNIX, libc.SOCK.STREAM | libc.SOCK.NONBLOCK) as readonly [number, number];
  const client: TlsHandshake = of.connect(pair[0]), server: TlsHandshake = of.accept(pair[1]);
  let clientStep: number = HandshakeStep.WANTS_READ, serverStep: number = HandshakeStep.WANTS_READ;
  while (clientStep !== HandshakeStep.DONE || serverStep !== HandshakeStep.DONE) {
    if (clientStep !== HandshakeStep.DONE) clientStep = client.step();
    if (serverStep !== HandshakeStep.DONE) serverStep = server.step();
  }
  if (takeRecords) {
    for (const side of [client, server]) {
      side.peerUris();
      const { sealer, opener } = side.takeRecords();
      sealer.free();
      opener.free();
    }
  }
  client.free();
  server.free();
  libc.close(pair[0]);
  libc.close(pair[1]);
}

const library = `OpenSSL ${opensslVersion()}`;
Deno.bench(`handshake, both sides, ${library}`, () => handshake(false));
Deno.bench(`handshake, both sides, with names and records, ${library}`, () => handshake(true));
Deno.bench(`the same, held against a revocation list, ${library}`, () => handshake(true, watched));
