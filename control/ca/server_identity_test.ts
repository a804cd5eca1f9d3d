/** What the TLS listeners present. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import * as x509 from "@peculiar/x509";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { CertificateAuthority } from "./authority.ts";
import { mountedServerFiles } from "./server_files.ts";
import { ownHosts, type PresentedTls, ServerIdentity } from "./server_identity.ts";
import { loadSelfSigned } from "./self_signed_folder.ts";
import { Folder } from "./testing.ts";

const NO_FILES = { tlsCertificateFile: undefined, tlsKeyFile: undefined, tlsRootsFile: undefined };
const lines: string[] = [];
const log = new Logger("ca", { sink: (line) => lines.push(line) });

async function selfSign(folder: Folder, name: string): Promise<void> {
  const request = `req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -subj /CN=${name}`;
  await folder.openssl(...request.split(" "), "-keyout", "tls.key", "-out", "tls.crt");
}

function subjectOf({ chainPem }: PresentedTls): string {
  return new x509.X509Certificate(chainPem).subject;
}

function namesIn({ chainPem }: PresentedTls): string[] {
  const names = new x509.X509Certificate(chainPem).getExtension(x509.SubjectAlternativeNameExtension)!;
  return names.names.items.map(({ value }) => value);
}

Deno.test("ownHosts() are the Services' names, the revision's, and the mesh's discovery address (CP-004)", () => {
  const own = ["istiod.ns.svc", "istiod-remote.ns.svc", "istio-pilot.ns.svc"];
  assertEquals(ownHosts({ namespace: "ns", revision: "" }, ""), own);
  assertEquals(ownHosts({ namespace: "ns", revision: "default" }, ""), own);
  assertEquals(ownHosts({ namespace: "ns", revision: "blue" }, "mesh.test:15012"), [
    ...own,
    "istiod-blue.ns.svc",
    "mesh.test",
  ]);
  assertEquals(ownHosts({ namespace: "ns", revision: "" }, "[fd00::1]:15012").at(-1), "fd00::1");
  assertEquals(ownHosts({ namespace: "ns", revision: "" }, "mesh.test").at(-1), "mesh.test");
});

Deno.test("ServerIdentity presents what our CA signs, anew when its key or our names change, and only then (CP-004, CP-005, CP-505)", async () => {
  await using folder = await Folder.create();
  for (const part of ["a", "b"]) await Deno.mkdir(`${folder.path}/${part}`);
  const first = await loadSelfSigned(`${folder.path}/a`, "td", Date.now());
  const second = await loadSelfSigned(`${folder.path}/b`, "td", Date.now());
  const authority = await CertificateAuthority.create(first), told: PresentedTls[] = [];
  let hosts = ["b.test", "a.test", "b.test"];
  const identity = await ServerIdentity.open({
    settings: NO_FILES,
    inCluster: false,
    authority,
    hosts: () => hosts,
    log,
  });
  assertEquals(namesIn(identity.now), ["a.test", "b.test"], "sorted and unique");
  identity.subscribe((now) => told.push(now));
  await identity.reissue();
  assertEquals(told, []);
  hosts = ["c.test"];
  await authority.replace(second);
  await Promise.all([identity.reissue(), identity.reissue()]);
  assertEquals(told.length, 1);
  assertEquals([namesIn(told[0]!), told[0]!.rootsPem], [["c.test"], second.rootsPem]);
  assert(await new x509.X509Certificate(told[0]!.chainPem).verify({ publicKey: second.signer, signatureOnly: true }));
  assertEquals(identity.distributedRootsPem, second.rootsPem);
});

Deno.test("ServerIdentity.reissue() fails for who asks while the CA cannot sign, and for nobody later (CP-505)", async () => {
  await using folder = await Folder.create();
  let nowMs = Date.now(), hosts = ["a.test"];
  const authority = await CertificateAuthority.create(await loadSelfSigned(folder.path, "td", nowMs), () => nowMs);
  const options = { settings: NO_FILES, inCluster: false, authority, hosts: () => hosts, log };
  const identity = await ServerIdentity.open(options);
  hosts = ["b.test"];
  nowMs += 20 * 365 * 86_400_000;
  assertEquals((await assertRejects(() => identity.reissue(), MeshError)).code, "AMB0213");
  nowMs = Date.now();
  await identity.reissue();
  assertEquals(namesIn(identity.now), ["b.test"]);
});

Deno.test("ServerIdentity presents a file's certificate, follows it, and tells clients of its roots (CP-005, CP-006)", async () => {
  await using folder = await Folder.create();
  const authority = await CertificateAuthority.create(await loadSelfSigned(folder.path, "td", Date.now()));
  await selfSign(folder, "one");
  const file = (name: string) => `${folder.path}/${name}`;
  const settings = { tlsCertificateFile: file("tls.crt"), tlsKeyFile: undefined, tlsRootsFile: file("tls.crt") };
  const options = { settings, inCluster: false, authority, hosts: () => ["x"], log };
  const identity = await ServerIdentity.open(options), stop = new AbortController();
  assertEquals([subjectOf(identity.now), identity.now.rootsPem], ["CN=one", authority.material.rootsPem]);
  const one = await Deno.readTextFile(file("tls.crt"));
  assertEquals(identity.distributedRootsPem, `${one}${authority.material.rootsPem}`);
  const { promise, resolve } = Promise.withResolvers<void>();
  const followed = identity.follow(() => Promise.resolve(resolve()), stop.signal);
  await selfSign(folder, "two");
  await promise;
  assertEquals(subjectOf(identity.now), "CN=two");
  stop.abort();
  await followed;
  await folder.write("tls.key", "x");
  const error = await assertRejects(() => ServerIdentity.open(options), MeshError, "cannot be read");
  assertEquals(error.code, "AMB0255");
  await folder.openssl("ecparam", "-genkey", "-name", "prime256v1", "-out", "tls.key");
  await assertRejects(() => ServerIdentity.open(options), MeshError, "is not its key");
  await Deno.remove(file("tls.key"));
  await assertRejects(() => ServerIdentity.open(options), MeshError, "a file cannot be read");
});

Deno.test("mountedServerFiles() finds what charts mount, with its roots beside it or apart (CP-005)", async () => {
  await using folder = await Folder.create();
  assertEquals(await mountedServerFiles(folder.path), undefined);
  for (const part of ["tls", "ca"]) await Deno.mkdir(`${folder.path}/${part}`);
  for (const name of ["tls/tls.crt", "tls/tls.key"]) await folder.write(name, "x");
  const found = { certificate: `${folder.path}/tls/tls.crt`, key: `${folder.path}/tls/tls.key` };
  assertEquals(await mountedServerFiles(folder.path), { ...found, roots: undefined });
  await folder.write("tls/ca.crt", "x");
  assertEquals((await mountedServerFiles(folder.path))?.roots, `${folder.path}/tls/ca.crt`);
  await folder.write("ca/root-cert.pem", "x");
  assertStringIncludes((await mountedServerFiles(folder.path))?.roots ?? "", "ca/root-cert.pem");
});
