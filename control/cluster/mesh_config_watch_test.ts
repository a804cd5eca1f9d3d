/** Where the mesh's settings come from, and what a bad edit does. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { CONFIG_MAPS } from "../../kube/resource_types.ts";
import { InMemoryKubeApi } from "../../kube/testing.ts";
import type { MeshConfigObject } from "../objects.ts";
import { configMapName, type MeshConfigOptions, MeshConfigWatch } from "./mesh_config_watch.ts";
import { putMeshConfig, until } from "./testing.ts";

class Rig implements AsyncDisposable {
  readonly api = new InMemoryKubeApi();
  readonly folder = Deno.makeTempDirSync({ prefix: "mesh-config-" });
  readonly told: MeshConfigObject[] = [];
  readonly lines: string[] = [];
  readonly watch: MeshConfigWatch;
  readonly #stop = new AbortController();

  constructor(options: Partial<MeshConfigOptions> = {}) {
    this.watch = new MeshConfigWatch({
      api: this.api,
      namespace: "istio-system",
      name: "istio",
      sharedName: "",
      file: `${this.folder}/mesh`,
      onChange: ({ object }) => this.told.push(object as MeshConfigObject),
      log: new Logger("cluster", { sink: (line) => this.lines.push(line) }),
      pollMs: 10,
      ...options,
    });
  }

  get domain(): string | undefined {
    return this.told.at(-1)?.trustDomain;
  }

  async start(): Promise<this> {
    await this.watch.start(this.#stop.signal);
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.watch.stopped;
    await Deno.remove(this.folder, { recursive: true });
  }
}

Deno.test("configMapName() is istio, with the revision behind it if there is one (CP-026)", () => {
  assertEquals(["", "default", "canary"].map(configMapName), ["istio", "istio", "istio-canary"]);
});

Deno.test("MeshConfigWatch follows the ConfigMap, and without one the settings are empty (CP-026)", async () => {
  await using rig = await new Rig().start();
  await rig.watch.settled;
  assertEquals(rig.told.map(({ trustDomain }) => trustDomain), [""]);
  putMeshConfig(rig.api, "trustDomain: one.example");
  await until("it is read", () => rig.domain === "one.example");
  putMeshConfig(rig.api, "trustDomain: other.example", "istio-other");
  putMeshConfig(rig.api, "trustDomain: two.example");
  await until("the edit is read", () => rig.domain === "two.example");
  rig.api.remove(CONFIG_MAPS, "istio-system", "istio");
  await until("nothing is written any more", () => rig.domain === "");
});

Deno.test("an edit that cannot be read keeps the last good value, and is said (CP-026)", async () => {
  await using rig = new Rig();
  putMeshConfig(rig.api, "trustDomain: good.example");
  await rig.start();
  await rig.watch.settled;
  putMeshConfig(rig.api, "trustDomain: [");
  await until("it is said", () => rig.lines.join().includes("mesh setting refused"));
  assertEquals(rig.domain, "good.example");
  putMeshConfig(rig.api, "trustDomain: 7\nrootNamespace: roots");
  await until("the good part is read", () => rig.told.at(-1)?.rootNamespace === "roots");
  assertEquals(rig.domain, "good.example");
  assertStringIncludes(rig.lines.join("\n"), 'field="trustDomain"');
});

Deno.test("settings that cannot be read at the start are not guessed (CP-011, CP-026)", async () => {
  await using rig = new Rig();
  putMeshConfig(rig.api, "rootNamespace: [");
  await rig.start();
  await until("it is said", () => rig.lines.join().includes("istiod does not get ready"));
  assertEquals([rig.told.length, rig.watch.known], [0, false]);
  putMeshConfig(rig.api, "rootNamespace: roots");
  await rig.watch.settled;
  assertEquals(rig.told.map(({ rootNamespace }) => rootNamespace), ["roots"]);
});

Deno.test("a shared ConfigMap holds where the mesh's own names nothing (CP-026)", async () => {
  await using rig = new Rig({ sharedName: "shared" });
  putMeshConfig(rig.api, "trustDomain: shared.example\nrootNamespace: shared", "shared");
  putMeshConfig(rig.api, "rootNamespace: own");
  await rig.start();
  await rig.watch.settled;
  assertEquals(rig.told.map((it) => [it.trustDomain, it.rootNamespace]), [["shared.example", "own"]]);
});

Deno.test("a file that is there at the start is read in place of the ConfigMap, and followed (CP-026)", async () => {
  await using rig = new Rig();
  putMeshConfig(rig.api, "trustDomain: map.example");
  Deno.writeTextFileSync(`${rig.folder}/mesh`, "trustDomain: file.example");
  await rig.start();
  await rig.watch.settled;
  assertEquals([rig.domain, rig.api.calls.length], ["file.example", 0]);
  Deno.writeTextFileSync(`${rig.folder}/mesh`, "trustDomain: edited.example");
  await until("the edit is read", () => rig.domain === "edited.example");
  Deno.removeSync(`${rig.folder}/mesh`);
  await until("it is said", () => rig.lines.join().includes("are gone"));
  assertEquals(rig.domain, "edited.example");
});

Deno.test("a file that is being written, or cannot be read, leaves the settings as they are (CP-026)", async () => {
  // A writer that is slow: from one look to the next there is a letter more.
  let letters = -1;
  const writing = "# ".padEnd(20, "x");
  const readFile = (path: string) =>
    letters < 0 || letters === writing.length ? Deno.readTextFile(path) : Promise.resolve(writing.slice(0, letters++));
  await using rig = new Rig({ readFile });
  const file = `${rig.folder}/mesh`;
  Deno.writeTextFileSync(file, "trustDomain: old.example");
  await rig.start();
  await rig.watch.settled;
  Deno.writeTextFileSync(file, "trustDomain: new.example");
  letters = 0;
  await until("it is read when it is whole", () => rig.domain === "new.example");
  assertEquals(rig.told.map(({ trustDomain }) => trustDomain), ["old.example", "new.example"]);
  Deno.removeSync(file);
  Deno.mkdirSync(file);
  await until("it is said", () => rig.lines.join().includes("are gone"));
  Deno.removeSync(file);
  Deno.writeTextFileSync(file, "trustDomain: newest.example");
  await until("it is read again", () => rig.domain === "newest.example");
});

Deno.test("a ConfigMap that is forbidden keeps istiod from getting ready, and is named (CP-102)", async () => {
  await using rig = new Rig();
  rig.api.deny(CONFIG_MAPS);
  await rig.start();
  await until("it is in trouble", () => rig.watch.trouble()?.status === 403);
  assert(!rig.watch.known);
});
