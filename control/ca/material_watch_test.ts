/** CA files that change while we run. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import type { KeyMaterial } from "./key_material.ts";
import { watchMaterial } from "./material_watch.ts";
import { loadPluggedIn } from "./plugged_in.ts";
import { Folder, plugIn, revocationList } from "./testing.ts";

const EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

/** A folder under watch, and another to make files in. */
class Rig implements AsyncDisposable {
  readonly taken: KeyMaterial[] = [];
  readonly revocations: string[] = [];
  readonly lines: string[] = [];
  /** Whether what changes cannot be taken into use. */
  failing = false;
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;
  readonly folder: Folder;

  private constructor(folder: Folder, material: KeyMaterial, multiRoot: boolean) {
    this.folder = folder;
    const log = new Logger("ca", { sink: (line) => this.lines.push(line) });
    const onChange = (next: KeyMaterial) => {
      if (this.failing) {
        return Promise.reject(new MeshError("AMB0210", "cannot create a file", { remedy: "make room" }));
      }
      this.taken.push(next);
      return Promise.resolve();
    };
    const onRevocations = (pem: string) => Promise.resolve(void this.revocations.push(pem));
    this.#done = watchMaterial({
      folder: folder.path,
      material,
      revocationsPem: "",
      multiRoot,
      onChange,
      onRevocations,
      log,
      intervalMs: 5,
    }, this.#stop.signal);
  }

  static async start({ multiRoot = true } = {}): Promise<Rig> {
    const folder = await Folder.create();
    await plugIn(folder, EC);
    return new Rig(folder, await loadPluggedIn(folder.path, Date.now()), multiRoot);
  }

  /** Polls until the log has that line. */
  async said(text: string): Promise<void> {
    const deadlineMs = performance.now() + 60_000;
    while (!this.lines.some((line) => line.includes(text))) {
      if (performance.now() > deadlineMs) throw new Error(`not said: ${text}\n${this.lines.join("\n")}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#done;
    await this.folder[Symbol.asyncDispose]();
  }
}

Deno.test("watchMaterial() takes a new intermediate of the same root, and says nothing while nothing changes (CP-504)", async () => {
  await using rig = await Rig.start();
  const before = (await loadPluggedIn(rig.folder.path, Date.now())).signer;
  await plugIn(rig.folder, EC, { keepRoot: true });
  await rig.said("CA files reloaded");
  const newest = rig.taken.at(-1)!;
  assert(!newest.signer.equal(before));
  assertEquals(newest.rootsPem, await Deno.readTextFile(`${rig.folder.path}/root-cert.pem`));
});

Deno.test("watchMaterial() takes an operator over to a new root in steps, and refuses to jump (CP-504)", async () => {
  await using rig = await Rig.start();
  await using next = await Folder.create();
  await plugIn(next, EC);
  const read = (folder: Folder, name: string) => Deno.readTextFile(`${folder.path}/${name}`);
  const oldRoot = await read(rig.folder, "root-cert.pem"), newRoot = await read(next, "root-cert.pem");
  const copy = async () => {
    for (const name of ["ca-key.pem", "ca-cert.pem", "cert-chain.pem"]) {
      await rig.folder.write(name, await read(next, name));
    }
  };
  const keep = await Promise.all(["ca-key.pem", "ca-cert.pem", "cert-chain.pem"].map((name) => read(rig.folder, name)));
  await rig.folder.write("root-cert.pem", newRoot);
  await copy();
  await rig.said("has no root in common");
  assertEquals(rig.taken, []);
  for (const [at, name] of ["ca-key.pem", "ca-cert.pem", "cert-chain.pem"].entries()) {
    await rig.folder.write(name, keep[at]!);
  }
  await rig.folder.write("root-cert.pem", oldRoot + newRoot);
  await rig.said("roots=2");
  await copy();
  await rig.folder.write("root-cert.pem", newRoot);
  await rig.said("roots=1");
  assertEquals(rig.taken.at(-1)!.rootsPem, newRoot);
});

Deno.test("watchMaterial() keeps what is in use when files are unusable, and says so once (CP-504)", async () => {
  await using rig = await Rig.start();
  await rig.folder.write("ca-key.pem", "nonsense");
  await rig.said("CA files not reloaded; the old ones stay in use");
  await Deno.remove(`${rig.folder.path}/cert-chain.pem`);
  await rig.said("cert-chain.pem missing");
  assertEquals([rig.taken, rig.lines.length], [[], 2]);
  assertStringIncludes(rig.lines[0]!, "no usable private key");
});

Deno.test("watchMaterial() lets the bundle alone in a mesh of one root, and still takes a new intermediate (CP-504)", async () => {
  await using rig = await Rig.start({ multiRoot: false });
  const root = await Deno.readTextFile(`${rig.folder.path}/root-cert.pem`);
  await using other = await Folder.create();
  await plugIn(other, EC);
  await rig.folder.write("root-cert.pem", root + await Deno.readTextFile(`${other.path}/root-cert.pem`));
  await rig.said("this mesh has but one root");
  assertEquals(rig.taken, []);
  await rig.folder.write("root-cert.pem", root);
  await plugIn(rig.folder, EC, { keepRoot: true });
  await rig.said("CA files reloaded");
});

Deno.test("watchMaterial() hands on revocation lists that come, change and go, and nothing that is none (CP-511)", async () => {
  await using rig = await Rig.start();
  const list = await revocationList("CN=Root", ["01"]);
  await rig.folder.write("ca-crl.pem", list);
  await rig.said(`CRL file reloaded\tfolder="${rig.folder.path}" bytes=${list.length}`);
  await rig.folder.write("ca-crl.pem", await Deno.readTextFile(`${rig.folder.path}/root-cert.pem`));
  await rig.said("holds a block of type CERTIFICATE");
  await rig.folder.write("ca-crl.pem", list + list);
  await rig.said(`bytes=${2 * list.length}`);
  await Deno.remove(`${rig.folder.path}/ca-crl.pem`);
  await rig.said("bytes=0");
  assertEquals(rig.revocations, [list, list + list, ""]);
});

Deno.test("watchMaterial() tries again what could not be taken into use, and says so once (CP-504)", async () => {
  await using rig = await Rig.start();
  rig.failing = true;
  await plugIn(rig.folder, EC, { keepRoot: true });
  await rig.said("cannot create a file");
  for (let look = 0; look < 5; look++) await new Promise((resolve) => setTimeout(resolve, 5)); // As often as it looks.
  rig.failing = false;
  await rig.said("CA files reloaded");
  assertEquals(rig.lines.filter((line) => line.includes("cannot create a file")).length, 1);
});

Deno.test("watchMaterial() bears that there is no such folder any more, and that it comes back (CP-504)", async () => {
  await using rig = await Rig.start();
  await Deno.rename(rig.folder.path, `${rig.folder.path}.away`);
  await Deno.writeTextFile(rig.folder.path, "in its place");
  await rig.said("CA files not reloaded");
  await Deno.remove(rig.folder.path);
  await Deno.rename(`${rig.folder.path}.away`, rig.folder.path);
  await plugIn(rig.folder, EC, { keepRoot: true });
  await rig.said("CA files reloaded");
});
