import { assert, assertEquals, assertMatch } from "@std/assert";

const ROOT = new URL("../../", import.meta.url).pathname;
const PROGRAMS_PATH = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" };

interface Descriptor {
  readonly digest: string;
  readonly size: number;
}

async function run(program: string, args: readonly string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(program, { args: [...args], cwd: ROOT }).output();
  const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  assert(success, `${program} ${args.join(" ")}: ${text}`);
  return text;
}

/** The image unpacked as a runtime would do it. */
class Image implements AsyncDisposable {
  readonly folder: string;
  readonly entrypoint: readonly string[];
  readonly environment: readonly string[];

  private constructor(folder: string, config: { Entrypoint: readonly string[]; Env: readonly string[] }) {
    this.folder = folder;
    this.entrypoint = config.Entrypoint;
    this.environment = config.Env;
  }

  static async build(): Promise<Image> {
    const folder = await Deno.makeTempDir({ prefix: "ambit-image-test-" });
    await run(Deno.execPath(), ["run", "-A", "--quiet", "tools/build_image.ts", "--output", `${folder}/image.tar`]);
    await Deno.mkdir(`${folder}/layout`);
    await Deno.mkdir(`${folder}/root`);
    await run("tar", ["-C", `${folder}/layout`, "-xf", `${folder}/image.tar`]);
    const blob = ({ digest }: Descriptor) => `${folder}/layout/blobs/sha256/${digest.replace("sha256:", "")}`;
    const json = async (path: string) => JSON.parse(await Deno.readTextFile(path));
    const manifest = await json(blob((await json(`${folder}/layout/index.json`)).manifests[0]));
    const { config } = await json(blob(manifest.config));
    for (const layer of manifest.layers as Descriptor[]) {
      assertEquals((await Deno.stat(blob(layer))).size, layer.size);
      assertMatch(await run("sha256sum", [blob(layer)]), new RegExp(`^${layer.digest.replace("sha256:", "")} `));
      await run("tar", ["-C", `${folder}/root`, "-xzf", blob(layer)]);
    }
    return new Image(folder, config);
  }

  /** A role in it, as a container would run it: mounts of its own, which end with it; only `/tmp` can be written. */
  command(args: readonly string[], { readOnly = false }: { readOnly?: boolean } = {}): Deno.Command {
    const root = `${this.folder}/root`;
    const sealed = `mount --bind "$0" "$0" && mount --bind "$0/tmp" "$0/tmp" && mount -o remount,bind,ro "$0" && `;
    const inside = `${readOnly ? sealed : ""}mount -t proc proc "$0/proc" && mount --bind /dev "$0/dev" && ` +
      `exec chroot "$0" "$@"`;
    return new Deno.Command("unshare", {
      args: ["--mount", "--propagation", "private", "sh", "-c", inside, root, ...this.entrypoint, ...args],
      clearEnv: true,
      env: Object.fromEntries(
        [...this.environment, "PATH=/usr/bin:/usr/sbin:/bin:/sbin"].map((it) => it.split(/=(.*)/s)),
      ),
      stdout: "piped",
      stderr: "piped",
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.folder, { recursive: true });
  }
}

Deno.test("deno task image packs every role into one image that needs nothing of the machine", async (test) => {
  await using image = await Image.build();
  for (const role of ["istiod", "ztunnel", "cni"]) {
    await test.step(`${role} --help`, async () => {
      const { success, stdout, stderr } = await image.command([role, "--help"]).output();
      assert(success, new TextDecoder().decode(stderr));
      assertMatch(new TextDecoder().decode(stdout), new RegExp(`Usage: ambit ${role}`));
      assertEquals(new TextDecoder().decode(stderr), "");
    });
  }
  await test.step("a second start finds what the first made of the modules, though the root is read-only", async () => {
    const { success, stderr } = await image.command(["ztunnel", "--help"], { readOnly: true }).output();
    assert(success, new TextDecoder().decode(stderr));
    assertEquals(new TextDecoder().decode(stderr), "");
    const scratch = `${image.folder}/root/tmp`;
    assert((await Deno.stat(`${scratch}/file/ambit/main.ts.js`)).isFile, "compiled to JavaScript once");
    assert((await Deno.stat(`${scratch}/v8_code_cache_v2`)).size > 0, "and to the engine's code");
  });
  await test.step("the programs by which it may be told to redirect run, with what their rules name (CNI-139)", async () => {
    const within = async (...command: string[]) => {
      const args = ["--net", "chroot", `${image.folder}/root`, ...command];
      const { code, stdout, stderr } = await new Deno.Command("unshare", { args, env: PROGRAMS_PATH, clearEnv: true })
        .output();
      return `${code} ${new TextDecoder().decode(stdout)}${new TextDecoder().decode(stderr)}`.trim();
    };
    assertMatch(await within("/usr/sbin/nft", "--version"), /^0 nftables v/);
    assertMatch(await within("/usr/sbin/ipset", "--version"), /^0 ipset v/);
    for (const program of ["iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"]) {
      assertMatch(
        await within(`/usr/sbin/${program}-save`, "--version"),
        /^0 ip6?tables\S* v[\d.]+ \((nf_tables|legacy)\)/,
      );
      assertMatch(
        await within(`/usr/sbin/${program}-restore`, "--version"),
        /^0 ip6?tables\S* v[\d.]+ \((nf_tables|legacy)\)/,
      );
      // Its extension is loaded by name.
      assertMatch(await within(`/usr/sbin/${program}`, "-j", "TPROXY", "--help"), /^0 [^]*TPROXY target options/);
    }
  });
  await test.step("ztunnel finds its OpenSSL and what else it needs", async () => {
    const { success, stdout } = await image.command(["doctor"]).output();
    assertMatch(new TextDecoder().decode(stdout), /ok +libssl/);
    assert(success);
  });
  await test.step("istiod serves a folder", async () => {
    await Deno.mkdir(`${image.folder}/root/config`);
    const flags = ["--config-dir", "/config", "--state-dir", "/state", "--secure-grpc-address", "127.0.0.1:0"];
    const addresses = ["--http-address", "127.0.0.1:0", "--monitoring-address", "127.0.0.1:0"];
    const istiod = image.command(["istiod", ...flags, ...addresses]).spawn();
    let said = "";
    const text = istiod.stdout.pipeThrough(new TextDecoderStream());
    for await (const part of text.values({ preventCancel: true })) if (/istiod is ready/.test(said += part)) break;
    istiod.kill("SIGTERM");
    await Promise.all([text.cancel(), istiod.stderr.cancel()]);
    assertEquals((await istiod.status).code, 0, said);
    assertMatch(said, /istiod is ready/);
  });
});
