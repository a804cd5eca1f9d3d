import { assert, assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { CNI_CONFIG } from "../config.ts";
import { Installer } from "./installer.ts";
import { loadedLibraries, startScript } from "./plugin_program.ts";

/** A node's folders, and the installer for them. */
class Node implements Disposable {
  readonly root = Deno.makeTempDirSync({ prefix: "ambit-install-" });
  readonly confDir = `${this.root}/net.d`;
  readonly binDir = `${this.root}/bin`;
  readonly runDir = `${this.root}/run`;
  readonly lines: string[] = [];

  constructor() {
    for (const folder of [this.confDir, this.binDir, this.runDir, `${this.root}/modules/cni`]) {
      Deno.mkdirSync(folder, { recursive: true });
    }
    Deno.writeTextFileSync(`${this.root}/modules/cni/plugin.ts`, "// the plugin\n");
    Deno.writeTextFileSync(`${this.root}/runtime`, "a runtime");
    Deno.writeTextFileSync(`${this.root}/ld-linux-x86-64.so.2`, "a loader");
  }

  installer(ownFile?: string, onPass: (result: string) => void = () => {}, standaloneFile?: string): Installer {
    const { confDir, binDir, runDir, root } = this;
    return new Installer({
      confDir,
      binDir,
      runDir,
      ownFile,
      standaloneFile,
      confMode: 0o600,
      settings: { name: "istio-cni", ambient_enabled: true },
    }, {
      program: {
        runtime: `${root}/runtime`,
        libraries: [`${root}/ld-linux-x86-64.so.2`],
        modules: { root: `${root}/modules`, files: ["cni/plugin.ts"], entry: "cni/plugin.ts" },
      },
      kubeconfig: () => "{}\n",
      onPass,
      log: new Logger("test", { sink: (line) => void this.lines.push(line) }),
    });
  }

  writeConf(name: string, plugins: readonly string[], mode = 0o640): void {
    const text = JSON.stringify({ name: "net", cniVersion: "1.0.0", plugins: plugins.map((type) => ({ type })) });
    Deno.writeTextFileSync(`${this.confDir}/${name}`, text);
    Deno.chmodSync(`${this.confDir}/${name}`, mode);
  }

  plugins(name: string): string[] {
    return JSON.parse(Deno.readTextFileSync(`${this.confDir}/${name}`)).plugins.map(({ type }: { type: string }) =>
      type
    );
  }

  /** Every file below the node's three folders. */
  files(): string[] {
    const walk = (folder: string): string[] =>
      [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) =>
        isDirectory ? walk(`${folder}/${name}`) : [`${folder}/${name}`]
      );
    return [this.confDir, this.binDir, this.runDir].flatMap(walk).map((path) => path.slice(this.root.length + 1))
      .sort();
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.root, { recursive: true });
  }
}

Deno.test("Installer chains the plugin to the primary one, and takes it out again without a trace (CNI-033, CNI-037, CNI-039, CNI-047)", () => {
  using node = new Node();
  node.writeConf("10-net.conflist", ["bridge"]);
  const before = node.files(), installer = node.installer();
  installer.look();
  assert(installer.ready);
  assertEquals(node.plugins("10-net.conflist"), ["bridge", "istio-cni"]);
  assertEquals(Deno.statSync(`${node.confDir}/10-net.conflist`).mode! & 0o777, 0o640);
  assertEquals(Deno.statSync(`${node.binDir}/istio-cni`).mode! & 0o777, 0o755);
  assertEquals(Deno.statSync(`${node.runDir}/istio-cni-kubeconfig`).mode! & 0o777, 0o600);
  installer.uninstall();
  installer.uninstall();
  assertEquals(node.plugins("10-net.conflist"), ["bridge"]);
  assertEquals(node.files(), ["bin/istio-cni", ...before], "what answers for pods of before (CNI-049)");
});

Deno.test("Installer writes a file of its own before the primary one, which it does not touch (CNI-040, CNI-054)", () => {
  using node = new Node();
  node.writeConf("10-net.conflist", ["bridge", "portmap"]);
  const installer = node.installer("02-istio-cni.conflist");
  installer.look();
  assert(installer.ready);
  assertEquals(node.plugins("02-istio-cni.conflist"), ["bridge", "portmap", "istio-cni"]);
  assertEquals(node.plugins("10-net.conflist"), ["bridge", "portmap"]);
  node.writeConf("10-net.conflist", ["calico"]); // The primary changes: ours follows (CNI-041).
  installer.look();
  assertEquals(node.plugins("02-istio-cni.conflist"), ["calico", "istio-cni"]);
  installer.uninstall();
  assertEquals(node.files(), ["bin/istio-cni", "net.d/10-net.conflist"]);
});

Deno.test("Installer repairs what others take away, and is not ready meanwhile (CNI-041, CNI-043)", () => {
  using node = new Node();
  node.writeConf("10-net.conflist", ["bridge"]);
  const installer = node.installer();
  installer.look();
  node.writeConf("10-net.conflist", ["bridge", "other"]);
  Deno.removeSync(`${node.binDir}/istio-cni`);
  installer.look();
  assertEquals(node.plugins("10-net.conflist"), ["bridge", "other", "istio-cni"]);
  assert(Deno.statSync(`${node.binDir}/istio-cni`).isFile && installer.ready);
});

Deno.test("Installer counts what it did, and writes nothing where nothing differs (CNI-035, CNI-290)", () => {
  using node = new Node();
  const results: string[] = [], installer = node.installer("02-istio-cni.conflist", (result) => results.push(result));
  assertThrows(() => installer.look(), MeshError);
  node.writeConf("10-net.conflist", ["bridge"]);
  installer.look();
  const written = Deno.statSync(`${node.confDir}/02-istio-cni.conflist`);
  installer.look();
  const again = Deno.statSync(`${node.confDir}/02-istio-cni.conflist`);
  assertEquals([again.ino, again.mtime?.getTime()], [written.ino, written.mtime?.getTime()]);
  Deno.removeSync(node.binDir, { recursive: true });
  Deno.writeTextFileSync(node.binDir, "no folder");
  assertThrows(() => installer.look());
  assertEquals(results, ["CREATE_CNI_CONFIG_FAILURE", "SUCCESS", "COPY_BINARIES_FAILURE"]);
});

Deno.test("Installer lets the plugin stand alone where it is told so, beside whatever there is (CNI-006, CNI-042, CNI-047)", () => {
  using node = new Node();
  node.writeConf("00-multus.conflist", ["multus"]);
  const before = node.files(), installer = node.installer(undefined, () => {}, "YYY-istio-cni.conf");
  installer.look();
  installer.look();
  assert(installer.ready);
  const file = JSON.parse(Deno.readTextFileSync(`${node.confDir}/YYY-istio-cni.conf`));
  assertEquals([file.type, file.name, file.cniVersion, file.ipam, file.dns], [
    "istio-cni",
    "istio-cni",
    "0.3.1",
    {},
    {},
  ]);
  assertEquals(node.plugins("00-multus.conflist"), ["multus"]);
  Deno.removeSync(`${node.confDir}/YYY-istio-cni.conf`);
  installer.look();
  assert(Deno.statSync(`${node.confDir}/YYY-istio-cni.conf`).isFile);
  installer.uninstall();
  assertEquals(node.files(), ["bin/istio-cni", ...before]);
});

Deno.test("Installer waits for a primary plugin, and says so (CNI-039)", () => {
  using node = new Node();
  const installer = node.installer();
  assertEquals(assertThrows(() => installer.look(), MeshError).code, "AMB7131");
  assert(!installer.ready);
  node.writeConf("10-net.conflist", ["bridge"]);
  installer.look();
  assert(installer.ready);
});

Deno.test("Installer outlives whatever else is in the node's folders, and goes on when it can (CNI-036, CNI-044)", async () => {
  using node = new Node();
  node.writeConf("10-net.conflist", ["bridge"]);
  Deno.symlinkSync(node.binDir, `${node.confDir}/00-folder.conflist`);
  Deno.symlinkSync("nowhere", `${node.confDir}/01-dangling.conf`);
  const installer = node.installer("02-istio-cni.conflist");
  installer.look();
  assert(installer.ready);
  // What the runtime may be able to read and we are not is no reason to be chained to another network.
  Deno.symlinkSync("03-loop.conflist", `${node.confDir}/03-loop.conflist`);
  assertEquals(assertThrows(() => installer.look(), MeshError).code, "AMB7271");
  Deno.removeSync(`${node.confDir}/03-loop.conflist`);
  for (const folder of [node.confDir, node.binDir]) {
    const stop = new AbortController();
    Deno.renameSync(folder, `${folder}.away`);
    Deno.writeTextFileSync(folder, "no folder");
    const running = installer.run(stop.signal); // One pass is made before it waits.
    assert(!installer.ready);
    stop.abort();
    await running;
    Deno.removeSync(folder);
    Deno.renameSync(`${folder}.away`, folder);
  }
  installer.look();
  assert(installer.ready);
});

Deno.test("what Installer writes is on the disk before it takes the place of another's, and is nobody else's meanwhile (CNI-033, CNI-034)", () => {
  using node = new Node();
  node.writeConf("10-net.conflist", ["bridge"]);
  const elsewhere = `${node.root}/elsewhere`, kubeconfig = `${node.runDir}/istio-cni-kubeconfig`;
  Deno.writeTextFileSync(elsewhere, "others'", { mode: 0o644 });
  Deno.symlinkSync(elsewhere, `${kubeconfig}.tmp.ambit`); // Left behind, or put there.
  const synced: number[] = [], replaced: string[] = [];
  const { renameSync } = Deno, { syncSync } = Deno.FsFile.prototype;
  Deno.FsFile.prototype.syncSync = function () {
    synced.push(this.statSync().ino!);
    syncSync.call(this);
  };
  Deno.renameSync = (from, to) => {
    if (!synced.includes(Deno.statSync(from).ino!)) replaced.push(String(to));
    renameSync(from, to);
  };
  try {
    node.installer().look();
  } finally {
    Deno.renameSync = renameSync;
    Deno.FsFile.prototype.syncSync = syncSync;
  }
  assertEquals(replaced, [], "after a power cut it would be empty, and the node without a network");
  assertEquals([Deno.readTextFileSync(elsewhere), Deno.readTextFileSync(kubeconfig)], ["others'", "{}\n"]);
});

Deno.test("Installer tells of another program that undoes its work (CNI-044)", () => {
  using node = new Node();
  const installer = node.installer();
  for (let pass = 0; pass < 6; pass++) {
    node.writeConf("05-cilium.conflist", ["cilium-cni"]);
    installer.look();
  }
  assertEquals(node.lines.filter((line) => line.includes("cni.exclusive=false")).length, 1);
});

Deno.test("the plugin's start script finds its runtime beside itself, wherever the node has it (CNI-033)", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const script = `${folder}/a b/istio-cni`;
    await Deno.mkdir(`${folder}/a b/.ambit/lib`, { recursive: true });
    await Deno.writeTextFile(script, startScript("ld.so", "cni/plugin.ts"), { mode: 0o755 });
    await Deno.writeTextFile(`${folder}/a b/.ambit/lib/ld.so`, `#!/bin/sh\nprintf '%s\\n' "$DENO_DIR" "$@"\n`, {
      mode: 0o755,
    });
    const { stdout } = await new Deno.Command(script).output();
    const lines = new TextDecoder().decode(stdout).trim().split("\n"), own = `${folder}/a b/.ambit`;
    assertEquals(lines.slice(0, 5), [`${own}/cache`, "--library-path", `${own}/lib`, `${own}/deno`, "run"]);
    assertEquals(lines.at(-1), `${own}/program/cni/plugin.ts`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("loadedLibraries() finds libraries and the loader in a process's maps", () => {
  const maps = `7f00-7f01 r--p 00000000 00:00 1  /usr/lib/x86_64-linux-gnu/libc.so.6
7f00-7f01 r-xp 00000000 00:00 1  /usr/lib/x86_64-linux-gnu/libc.so.6
7f02-7f03 r--p 00000000 00:00 2  /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2
7f04-7f05 r--p 00000000 00:00 3  /usr/bin/deno
7f06-7f07 rw-p 00000000 00:00 0  [heap]
7f08-7f09 rw-p 00000000 00:00 0
`;
  assertEquals(loadedLibraries(maps), [
    "/usr/lib/x86_64-linux-gnu/libc.so.6",
    "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
  ]);
  assert(loadedLibraries(Deno.readTextFileSync("/proc/self/maps")).some((path) => path.includes("/ld-linux")));
});

Deno.test("the name of our own configuration is read from either of the two variables that Istio has for it (CNI-040)", () => {
  const named = (env: Record<string, string>) => CNI_CONFIG.parse([], (name) => env[name]).config.ownedConfName;
  assertEquals(named({}), "02-istio-cni.conflist");
  assertEquals(named({ ISTIO_OWNED_CNI_CONF_FILENAME: "01-a.conflist" }), "01-a.conflist", "as the chart sets it");
  const both = { ISTIO_OWNED_CNI_CONFIG_FILENAME: "01-b.conflist", ISTIO_OWNED_CNI_CONF_FILENAME: "01-a.conflist" };
  assertEquals(named(both), "01-b.conflist", "as Istio's agent reads it");
});
