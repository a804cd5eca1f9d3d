/** CA files that change while we run. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { type KeyMaterial, loadPluggedIn } from "./key_material.ts";
import { watchMaterial } from "./material_watch.ts";
import { Folder, plugIn } from "./testing.ts";

const EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

/** A folder under watch, and another to make files in. */
class Rig implements AsyncDisposable {
  readonly taken: KeyMaterial[] = [];
  readonly lines: string[] = [];
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;
  readonly folder: Folder;

  private constructor(folder: Folder, material: KeyMaterial) {
    this.folder = folder;
    const log = new Logger("ca", { sink: (line) => this.lines.push(line) });
    const onChange = (next: KeyMaterial) => Promise.resolve(void this.taken.push(next));
    this.#done = watchMaterial({ folder: folder.path, material, onChange, log, intervalMs: 5 }, this.#stop.signal);
  }

  static async start(): Promise<Rig> {
    const folder = await Folder.create();
    await plugIn(folder, EC);
    return new Rig(folder, await loadPluggedIn(folder.path, Date.now()));
  }

  /** Polls until the log has that line. */
  async said(text: string): Promise<void> {
    const deadlineMs = performance.now() + 10_000;
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
