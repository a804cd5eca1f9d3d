import { assert, assertEquals } from "@std/assert";
import { installNode, type NodeOptions, uninstallNode } from "./node.ts";

class Bench implements Disposable {
  readonly root = Deno.makeTempDirSync();
  readonly said: string[] = [];
  readonly asked: string[] = [];

  options(dryRun = false): NodeOptions {
    return {
      root: this.root,
      dryRun,
      say: (line) => this.said.push(line),
      systemctl: (args) => {
        this.asked.push(args.join(" "));
        return Promise.resolve(true);
      },
    };
  }

  /** Every file that is there. */
  files(folder = ""): string[] {
    return [...Deno.readDirSync(this.root + folder)].flatMap(({ name, isDirectory }) =>
      isDirectory ? this.files(`${folder}/${name}`) : [`${folder}/${name}`]
    ).sort();
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.root, { recursive: true });
  }
}

Deno.test("installNode() puts a program that runs, its units and settings on a node, and uninstallNode() leaves nothing", async () => {
  using bench = new Bench();
  await installNode("node", bench.options());
  const expected = [
    "/etc/ambit/cni.env",
    "/etc/ambit/ztunnel.env",
    "/etc/systemd/system/ambit-cni.service",
    "/etc/systemd/system/ambit-ztunnel.service",
    "/usr/local/bin/ambit",
    "/usr/local/share/doc/ambit/bare_nodes.md",
  ];
  assertEquals(bench.files(), expected);
  assertEquals(
    Deno.statSync(`${bench.root}/etc/ambit/ztunnel.env`).mode! & 0o777,
    0o600,
    "it may come to hold secrets",
  );
  const { success, stdout } = await new Deno.Command(`${bench.root}/usr/local/bin/ambit`, {
    args: ["cni", "render"],
    clearEnv: true, // As a unit has it: no HOME, so that the packages must be found without.
  })
    .output();
  assert(success && new TextDecoder().decode(stdout).startsWith("add table inet"), "the program runs");
  Deno.writeTextFileSync(`${bench.root}/etc/ambit/cni.env`, "AMBIT_NEVER_CAPTURE=10.0.0.1\n");
  await installNode("node", bench.options());
  assertEquals(Deno.readTextFileSync(`${bench.root}/etc/ambit/cni.env`), "AMBIT_NEVER_CAPTURE=10.0.0.1\n", "people's");
  await installNode("control", bench.options());
  for (
    const path of [
      "/etc/systemd/system/web.service.d/10-ambit.conf",
      "/run/ambit/cni/enrolled.json",
      "/var/lib/ambit/x",
    ]
  ) {
    Deno.mkdirSync((bench.root + path).replace(/\/[^/]*$/, ""), { recursive: true });
    Deno.writeTextFileSync(bench.root + path, "");
  }
  bench.asked.length = 0;
  await uninstallNode(bench.options(true));
  assert(bench.files().length > expected.length && bench.asked.length === 0, "a dry run changes nothing");
  await uninstallNode(bench.options());
  assertEquals(bench.files(), []);
  assertEquals([...Deno.readDirSync(`${bench.root}/etc/systemd/system`)], [], "nor an empty folder of drop-ins");
  assertEquals(bench.asked, [
    "disable --now ambit-ztunnel.service",
    "disable --now ambit-cni.service",
    "disable --now ambit-istiod.service",
    "daemon-reload",
  ]);
  await uninstallNode(bench.options()); // Nothing is there any more, and that is fine.
});

Deno.test("installNode() with a dry run says what it would do, and does nothing", async () => {
  using bench = new Bench();
  await installNode("control", bench.options(true));
  assertEquals(bench.files(), []);
  assert(bench.said.includes("would write unit /etc/systemd/system/ambit-istiod.service"));
});
