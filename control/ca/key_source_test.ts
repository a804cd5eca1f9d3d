/** Which key the CA takes at its start. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { SECRETS } from "../../kube/resource_types.ts";
import { InMemoryKubeApi } from "../../kube/testing.ts";
import { ISTIOD_CONFIG } from "../config.ts";
import { openKeySource } from "./key_source.ts";
import { loadPluggedIn } from "./plugged_in.ts";
import { Folder, plugIn, revocationList } from "./testing.ts";

const EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
const lines: string[] = [];
const log = new Logger("ca", { sink: (line) => lines.push(line) });

function source(flags: string[], { api, mounted = "/nowhere" }: { api?: InMemoryKubeApi; mounted?: string } = {}) {
  const { config: settings } = ISTIOD_CONFIG.parse(["--self-signed-ca-key=ecdsa", ...flags], () => undefined);
  const options = { settings, api, systemNamespace: "istio-system", log, mountedFolder: mounted };
  return openKeySource(options, new AbortController().signal);
}

Deno.test("openKeySource() prefers an operator's files, else shares a Secret, else keeps a folder (CP-500, CP-501)", async () => {
  await using files = await Folder.create();
  await plugIn(files, EC);
  const root = await Deno.readTextFile(`${files.path}/root-cert.pem`), api = new InMemoryKubeApi();
  assertEquals((await source([], { api, mounted: files.path })).material.rootsPem, root);
  assertEquals((await source([`--ca-dir=${files.path}`], { api })).material.rootsPem, root);
  assertEquals((await source([`--ca-dir=${files.path}`])).material.rootsPem, root);
  assertEquals(api.objects(SECRETS), []);
  await using empty = await Folder.create(); // As Kubernetes mounts an optional Secret that is not there.
  const shared = await source([], { api, mounted: empty.path });
  assertEquals(api.objects(SECRETS).map(({ metadata }) => metadata.name), ["istio-ca-secret"]);
  assertEquals((await source([], { api })).material.rootsPem, shared.material.rootsPem);
  const kept = await source([`--state-dir=${empty.path}/state`]);
  assert(kept.material.selfSigned && kept.material.rootsPem !== shared.material.rootsPem);
  assertEquals((await assertRejects(() => source([]), MeshError)).code, "AMB0256");
});

Deno.test("openKeySource() never makes a root where an operator's files are incomplete (CP-500)", async () => {
  for (const name of ["ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem"]) {
    await using folder = await Folder.create();
    await plugIn(folder, EC);
    await Deno.remove(`${folder.path}/${name}`);
    const api = new InMemoryKubeApi();
    await assertRejects(() => source([], { api, mounted: folder.path }), MeshError, `${name} missing`);
    assertEquals(api.objects(SECRETS), []);
  }
  await using one = await Folder.create();
  await one.write("tls.key", "x");
  await assertRejects(() => source([], { api: new InMemoryKubeApi(), mounted: one.path }), MeshError, "missing");
  await using nobody = await Folder.create();
  await assertRejects(() => source([`--ca-dir=${nobody.path}`]), MeshError, "ca-cert.pem");
});

Deno.test("openKeySource() takes mounted files that an istiod generated for what they are: from the Secret, if that is asked for (CP-501)", async () => {
  await using folder = await Folder.create();
  await plugIn(folder, EC);
  await folder.write("istio-generated", "");
  const api = new InMemoryKubeApi();
  const plugged = await source([], { api, mounted: folder.path });
  assertEquals(plugged.material.selfSigned, false);
  const shared = await source(["--use-cacerts-for-self-signed-ca"], { api, mounted: folder.path });
  assertEquals([shared.material.selfSigned, api.objects(SECRETS)[0]?.metadata.name], [true, "cacerts"]);
});

Deno.test("loadPluggedIn() reads the layout of a TLS Secret, with the chain behind the signer (CP-500)", async () => {
  await using folder = await Folder.create();
  await plugIn(folder, EC);
  const take = async (from: string, to: string) => {
    await Deno.rename(`${folder.path}/${from}`, `${folder.path}/${to}`);
  };
  await take("ca-key.pem", "tls.key");
  await take("root-cert.pem", "ca.crt");
  await take("ca-cert.pem", "tls.crt");
  await Deno.remove(`${folder.path}/cert-chain.pem`);
  const material = await loadPluggedIn(folder.path, Date.now());
  assertEquals([material.intermediatesPem.length, material.roots.length], [1, 1]);
  // Two levels, as a certificate manager writes them: the signer, then its issuer.
  await using deep = await Folder.create();
  await plugIn(deep, EC);
  await deep.write("ext", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n");
  await deep.openssl("req", "-new", ...EC, "-nodes", "-keyout", "tls.key", "-out", "b.csr", "-subj", "/CN=Below");
  const sign =
    "x509 -req -in b.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -out below.pem -days 20 -extfile ext";
  await deep.openssl(...sign.split(" "));
  const [below, above, root] = await Promise.all(
    ["below.pem", "ca-cert.pem", "root-cert.pem"].map((name) => Deno.readTextFile(`${deep.path}/${name}`)),
  );
  await deep.write("tls.crt", below! + above!);
  await deep.write("ca.crt", root!);
  const chained = await loadPluggedIn(deep.path, Date.now());
  assertEquals([chained.signer.subject, chained.intermediatesPem.length], ["CN=Below", 2]);
});

Deno.test("openKeySource() finds revocation lists beside the files, and refuses what is none (CP-511)", async () => {
  await using folder = await Folder.create();
  await plugIn(folder, EC);
  const list = await revocationList("CN=Root", ["01"]), flag = `--ca-dir=${folder.path}`;
  await folder.write("ca-crl.pem", list);
  assertEquals((await source([flag])).revocationsPem, list);
  assertEquals((await source([flag, "--ca-crl=false"])).revocationsPem, "");
  for (const wrong of ["lists", "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"]) {
    await folder.write("ca-crl.pem", wrong);
    assertEquals((await assertRejects(() => source([flag]), MeshError)).code, "AMB0254");
  }
});
