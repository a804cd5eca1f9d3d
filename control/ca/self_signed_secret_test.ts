/** The root that replicas share in a Secret: made once, read by all, renewed in time. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { KubeError, KubeUnreachable } from "../../kube/api.ts";
import { SECRETS } from "../../kube/resource_types.ts";
import { InMemoryKubeApi } from "../../kube/testing.ts";
import { CertificateAuthority } from "./authority.ts";
import { type KeyMaterial, renewRoot } from "./key_material.ts";
import { rotateRoot } from "./root_rotation.ts";
import { SelfSignedCa, type SelfSignedOptions } from "./self_signed_secret.ts";
import { Folder } from "./testing.ts";

const YEAR_MS = 365 * 86_400_000;
const NAMESPACE = "istio-system";

class Rig {
  readonly api = new InMemoryKubeApi();
  readonly lines: string[] = [];
  readonly waits: number[] = [];
  /** Called at each wait. */
  onWait: () => void = () => {};
  nowMs = Date.UTC(2026, 0, 1);

  replica(part: Partial<SelfSignedOptions> = {}): SelfSignedCa {
    return new SelfSignedCa({
      api: this.api,
      namespace: NAMESPACE,
      organisation: "mesh.test",
      key: "ecdsa",
      rsaBits: 2048,
      lifeMs: 10 * YEAR_MS,
      asCacerts: false,
      graceShare: 0.2,
      now: () => this.nowMs,
      log: new Logger("ca", { sink: (line) => this.lines.push(line) }),
      pause: (ms) => {
        this.waits.push(ms);
        this.nowMs += ms;
        this.onWait();
        return Promise.resolve(true);
      },
      ...part,
    });
  }

  data(name = "istio-ca-secret"): Record<string, string> {
    const data = this.api.object(SECRETS, NAMESPACE, name)?.data as Record<string, string> ?? {};
    return Object.fromEntries(Object.entries(data).map(([key, value]) => [key, atob(value)]));
  }
}

const open = (ca: SelfSignedCa) => ca.open(new AbortController().signal);

Deno.test("SelfSignedCa makes a root as Istio stores it, RSA 2048 and ten years, and openssl takes what it signs (CP-501)", async () => {
  const rig = new Rig();
  rig.nowMs = Date.now();
  const material = await open(rig.replica({ key: "rsa" }));
  const secret = rig.api.object(SECRETS, NAMESPACE, "istio-ca-secret")!;
  assertEquals(secret.type, "istio.io/ca-root");
  const data = rig.data();
  assertEquals(Object.keys(data).sort(), ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "key.pem", "root-cert.pem"]);
  assertEquals([data["cert-chain.pem"], data["key.pem"]], ["", ""]);
  assertEquals([data["ca-cert.pem"], data["root-cert.pem"]], [material.rootsPem, material.rootsPem]);
  assertStringIncludes(data["ca-key.pem"]!, "-----BEGIN RSA PRIVATE KEY-----\n");
  await using folder = await Folder.create();
  await folder.write("ca.pem", data["ca-cert.pem"]!);
  await folder.write("key.pem", data["ca-key.pem"]!);
  const text = await folder.openssl("x509", "-in", "ca.pem", "-noout", "-text");
  for (const expected of ["Subject: O = mesh.test\n", "RSA Public-Key: (2048 bit)", "CA:TRUE", "Certificate Sign"]) {
    assert(text.replace("Public-Key: (2048", "RSA Public-Key: (2048").includes(expected), expected);
  }
  assertStringIncludes(await folder.openssl("rsa", "-in", "key.pem", "-check", "-noout"), "RSA key ok");
  const life = material.signer.notAfter.getTime() - material.signer.notBefore.getTime();
  assertEquals(Math.round((life - 120_000) / YEAR_MS), 10);
  const server = await (await CertificateAuthority.create(material)).issueServer(["istiod"]);
  await folder.write("leaf.pem", server.chainPem);
  assertStringIncludes(await folder.openssl("verify", "-x509_strict", "-CAfile", "ca.pem", "leaf.pem"), "OK");
  assert(!rig.lines.join().includes("PRIVATE"), "no key in the log");
});

Deno.test("SelfSignedCa reads what another istiod has stored, in whatever form its key is (CP-501)", async () => {
  await using folder = await Folder.create();
  const keys = [["-newkey", "rsa:2048"], ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"]];
  for (const [at, key] of keys.entries()) {
    const rig = new Rig();
    rig.nowMs = Date.now();
    const ca = ["-addext", "keyUsage=critical,keyCertSign", "-subj", "/O=cluster.local", "-days", "3650"];
    await folder.openssl("req", "-x509", "-nodes", ...key, "-keyout", "k", "-out", "c", ...ca);
    if (at === 0) await folder.openssl("rsa", "-in", "k", "-traditional", "-out", "k");
    const [cert, text] = await Promise.all(["c", "k"].map((name) => Deno.readTextFile(`${folder.path}/${name}`)));
    const data = { "ca-cert.pem": btoa(cert!), "ca-key.pem": btoa(text!), "cert-chain.pem": "", "key.pem": "" };
    rig.api.put(SECRETS, {
      metadata: { name: "istio-ca-secret", namespace: NAMESPACE },
      type: "istio.io/ca-root",
      data,
    });
    const material = await open(rig.replica());
    assertEquals([material.rootsPem, material.intermediatesPem, material.selfSigned], [cert, [], true]);
  }
});

Deno.test("SelfSignedCa: of replicas that start at once one makes the root, and all use it (CP-502)", async () => {
  const rig = new Rig();
  const all = await Promise.all(Array.from({ length: 8 }, () => open(rig.replica())));
  assertEquals(new Set(all.map(({ rootsPem }) => rootsPem)).size, 1);
  assertEquals(rig.api.objects(SECRETS).length, 1);
  assertEquals(rig.lines.filter((line) => line.includes("a root was made")).length, 1);
  assertEquals((await open(rig.replica({ key: "rsa" }))).rootsPem, all[0]!.rootsPem, "a restart keeps it");
});

Deno.test("SelfSignedCa keeps trying while the API server does not let it, for 20 minutes (CP-502)", async () => {
  const rig = new Rig();
  rig.api.unreachable = true;
  rig.onWait = () => rig.api.unreachable = rig.waits.length < 3;
  await open(rig.replica());
  assertEquals(rig.waits, [500, 1_000, 2_000]);
  const shut = new Rig(), startMs = shut.nowMs;
  shut.api.deny(SECRETS, "create");
  const error = await assertRejects(() => open(shut.replica()), MeshError, "can neither be read");
  assertEquals(error.code, "AMB0251");
  assert(shut.nowMs - startMs > 18 * 60_000 && shut.nowMs - startMs <= 20 * 60_000);
});

Deno.test("SelfSignedCa is stored as cacerts where that is asked for, unless istio-ca-secret is there (CP-501)", async () => {
  const rig = new Rig();
  const first = await open(rig.replica({ asCacerts: true }));
  assertEquals([rig.data("cacerts")["istio-generated"], rig.data("cacerts")["ca-cert.pem"]], ["", first.rootsPem]);
  assertEquals((await open(rig.replica({ asCacerts: true }))).rootsPem, first.rootsPem);
  const other = await open(rig.replica());
  assert(other.rootsPem !== first.rootsPem, "without the setting cacerts is an operator's");
  assertEquals((await open(rig.replica({ asCacerts: true }))).rootsPem, other.rootsPem, "istio-ca-secret goes first");
});

Deno.test("SelfSignedCa refuses a Secret that is no CA rather than make another root (CP-500)", async () => {
  for (const data of [{}, { "ca-cert.pem": "!" }, { "ca-cert.pem": btoa("x"), "ca-key.pem": btoa("y") }, "text"]) {
    const rig = new Rig();
    rig.api.put(SECRETS, { metadata: { name: "istio-ca-secret", namespace: NAMESPACE }, data });
    const error = await assertRejects(() => open(rig.replica()), MeshError);
    assertEquals(error.code, "AMB0212");
    assertEquals(rig.api.objects(SECRETS).length, 1);
  }
});

Deno.test("check() renews a root in the last fifth of its life with its own key, once among all replicas (CP-503)", async () => {
  const rig = new Rig(), one = rig.replica(), two = rig.replica();
  const [first, second] = [await open(one), await open(two)], before = rig.data();
  rig.nowMs += 7.9 * YEAR_MS;
  assertEquals([await one.check(first), await two.check(second)], [undefined, undefined]);
  rig.nowMs += 0.2 * YEAR_MS;
  const both = await Promise.all([one.check(first), two.check(second)]);
  assertEquals(new Set(both.map((it) => it?.rootsPem)).size, 1);
  const renewed = both[0]!, after = rig.data();
  assert(renewed.rootsPem !== first.rootsPem);
  assertEquals(after, { ...before, "ca-cert.pem": renewed.rootsPem, "root-cert.pem": renewed.rootsPem });
  assertEquals(renewed.signer.subject, "O=mesh.test");
  assertEquals(new Uint8Array(renewed.signer.publicKey.rawData), new Uint8Array(first.signer.publicKey.rawData));
  assertEquals(Math.round((renewed.signer.notAfter.getTime() - rig.nowMs) / YEAR_MS), 10);
  assertEquals(await one.check(renewed), undefined, "and then there is peace");
  // What the old root signed is believed by whoever has but the new one, and the other way round.
  await using folder = await Folder.create();
  for (const [signer, believed] of [[first, renewed], [renewed, first]] as const) {
    const authority = await CertificateAuthority.create(signer, () => rig.nowMs);
    await folder.write("leaf.pem", (await authority.issueServer(["x"])).chainPem);
    await folder.write("root.pem", believed.rootsPem);
    const at = String(Math.floor(rig.nowMs / 1_000));
    assertStringIncludes(await folder.openssl("verify", "-attime", at, "-CAfile", "root.pem", "leaf.pem"), "OK");
  }
});

Deno.test("check() that cannot store changes nothing, and says so; an expired root is renewed at the start (CP-503)", async () => {
  const rig = new Rig(), ca = rig.replica(), first = await open(ca), before = rig.data();
  rig.nowMs += 9 * YEAR_MS;
  const allow = rig.api.deny(SECRETS, "replace");
  await assertRejects(() => ca.check(first), KubeError, "forbidden");
  assertEquals(rig.data(), before);
  assertEquals((await open(rig.replica())).rootsPem, first.rootsPem, "one that is due does not hold up a start");
  allow();
  rig.nowMs += 2 * YEAR_MS;
  const renewed = await open(rig.replica());
  assert(renewed.signer.notAfter.getTime() > rig.nowMs);
  rig.api.remove(SECRETS, NAMESPACE, "istio-ca-secret");
  const error = await assertRejects(() => ca.check(renewed), MeshError, "is gone");
  assertEquals(error.code, "AMB0252");
});

Deno.test("rotateRoot() looks first after a random part of the interval, goes on after a failure, and tells of another key (CP-503)", async () => {
  const rig = new Rig(), ca = rig.replica(), first = await open(ca);
  const renewed = { ...first, rootsPem: await renewRoot(first, { nowMs: rig.nowMs, lifeMs: YEAR_MS }) };
  const answers: (KeyMaterial | Error | undefined)[] = [
    undefined,
    new KubeUnreachable("no route"),
    renewed,
    await open(new Rig().replica()),
  ];
  const waits: number[] = [], used: KeyMaterial[] = [], asked: KeyMaterial[] = [];
  await rotateRoot({
    check: (current) => {
      asked.push(current);
      const next = answers.shift();
      return next instanceof Error ? Promise.reject(next) : Promise.resolve(next);
    },
    material: first,
    onChange: (material) => Promise.resolve(void used.push(material)),
    intervalMs: 1_000,
    jitter: true,
    random: () => 0.25,
    log: new Logger("ca", { sink: (line) => rig.lines.push(line) }),
    pause: (ms) => Promise.resolve(waits.push(ms) <= 4),
  }, new AbortController().signal);
  assertEquals(waits, [250, 1_000, 1_000, 1_000, 1_000]);
  assertEquals(asked.map((it) => it === first), [true, true, true, false]);
  assertEquals(used[0], renewed);
  const log = rig.lines.join("\n");
  for (const text of ["could not be looked after", "replaced by a newer one", "replaced by one of another key"]) {
    assertStringIncludes(log, text);
  }
});
