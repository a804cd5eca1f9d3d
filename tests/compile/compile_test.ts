/** The compiled program: everything inside of one file, with the pinned runtime or, without a network, an older one (CNI-022). */
import { assert, assertEquals } from "@std/assert";
import { compile } from "../../tools/compile.ts";
import { type Compiler, compilerOf } from "./parts.ts";

const OWN_OPENSSL = new URL("../../dist/libossl.so", import.meta.url);
/** What the older runtime lacks, by role: said by the test, so that nobody takes it for tested. */
const LACKS: Readonly<Record<string, string>> = {
  istiod: "Uint8Array.toHex, node:http2 over TLS",
  ztunnel: "node:zlib's zstd",
  cni: "http.Server of node:http on streams of ours",
};
const ADD_MS_MAX = 150;

interface Compiled {
  readonly path: string;
  readonly pinned: boolean;
}

async function withProgram(entry: string | undefined, use: (compiled: Compiled) => Promise<void>): Promise<void> {
  const folder = Deno.makeTempDirSync({ prefix: "ambit-compiled-" });
  const { deno, denort, pinned }: Compiler = await compilerOf();
  try {
    const path = `${folder}/ambit`;
    await compile({ deno, denort, into: path, entry });
    await use({ path, pinned });
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

async function run(path: string, args: readonly string[], options: Deno.CommandOptions = {}) {
  const { code, stdout, stderr } = await new Deno.Command(path, { args: [...args], cwd: "/", ...options }).output();
  const text = new TextDecoder();
  return { code, out: text.decode(stdout), errors: text.decode(stderr) };
}

Deno.test("the compiled program has every role and command, its manifests and units, and needs nothing beside it", async () => {
  await withProgram(undefined, async ({ path, pinned }) => {
    const alone = { clearEnv: true, env: { PATH: "", HOME: "/nowhere" } };
    assert((await run(path, [], alone)).out.includes("Usage: ambit COMMAND"));
    assert((await run(path, ["cni", "render"], alone)).out.startsWith("add table inet istio-ambient-nat"));
    assert(
      (await run(path, ["install", "--dry-run"], alone)).out.includes("would apply daemonset/ztunnel in istio-system"),
    );
    const root = Deno.makeTempDirSync();
    try {
      const node = await run(path, ["install", "--node", "--root", root], alone);
      assertEquals(node.errors, "");
      assertEquals(Deno.statSync(`${root}/usr/local/bin/ambit`).size, Deno.statSync(path).size, "the program itself");
      assert(Deno.readTextFileSync(`${root}/etc/systemd/system/ambit-cni.service`).includes("ExecStart="));
    } finally {
      Deno.removeSync(root, { recursive: true });
    }
    for (const role of ["istiod", "ztunnel", "cni"]) {
      const { code, out } = await run(path, [role, "--help"], alone);
      if (pinned || role !== "istiod") assertEquals([code, out.includes("Usage: ambit")], [0, true], role);
      // deno-lint-ignore no-console -- what this run does not show
      if (!pinned) console.log(`    ${role} was compiled, not run: the runtime at hand lacks ${LACKS[role]}`);
    }
  });
});

Deno.test("workers, FFI, shared memory and the OpenSSL inside work in a compiled program; all threads have one library", async () => {
  await withProgram("tests/compile/probe.ts", async ({ path }) => {
    const { code, out, errors } = await run(path, [], { clearEnv: true });
    assertEquals(code, 0, out + errors);
    const found = JSON.parse(out.trim().split("\n").at(-1)!);
    assertEquals([found.turned, found.standalone], [2, true]);
    if (!hasOwnOpenSsl()) return; // `deno task openssl` was not run: the system's is used.
    assert(found.libssl.startsWith("/proc/self/fd/"), found.libssl);
    assertEquals(found.libraries, 1, "one OpenSSL for the process");
  });
});

Deno.test("as istio-cni the compiled program is the CNI plugin, and answers for a pod that is not its own within 150 ms (CNI-022)", async () => {
  await withProgram(undefined, async ({ path }) => {
    const plugin = path.replace(/[^/]*$/, "istio-cni");
    Deno.linkSync(path, plugin);
    assertEquals((await run(plugin, [], { clearEnv: true })).errors.startsWith("CNI plugin of ambit"), true);
    const runDir = path.replace(/[^/]*$/, "run");
    Deno.mkdirSync(runDir);
    await using _agent = Deno.serve({ path: `${runDir}/pluginevent.sock`, onListen: () => {} }, async (request) => {
      await request.text();
      return new Response("not-ambient");
    });
    const config = { ...CONFIG, ambient_enabled: true, cni_agent_run_dir: runDir };
    const tookMs: number[] = [];
    for (let turn = 0; turn < 9; turn++) {
      const startedMs = performance.now();
      const child = new Deno.Command(plugin, { ...CALL, stdin: "piped", stdout: "piped", stderr: "piped" }).spawn();
      const writer = child.stdin.getWriter();
      await writer.write(new TextEncoder().encode(JSON.stringify(config)));
      await writer.close();
      const { code, stdout } = await child.output();
      tookMs.push(performance.now() - startedMs);
      assertEquals([code, JSON.parse(new TextDecoder().decode(stdout)).cniVersion], [0, "1.0.0"]);
    }
    const median = tookMs.sort((one, other) => one - other)[4]!;
    // deno-lint-ignore no-console -- a figure that people want to see
    console.log(`    a call takes ${median.toFixed(0)} ms (${tookMs[0]!.toFixed(0)} to ${tookMs.at(-1)!.toFixed(0)})`);
    assert(median < ADD_MS_MAX, `${median} ms`);
  });
});

const CONFIG = { cniVersion: "1.0.0", name: "istio-cni", type: "istio-cni", prevResult: { cniVersion: "1.0.0" } };
const CALL = {
  clearEnv: true,
  env: {
    CNI_COMMAND: "ADD",
    CNI_CONTAINERID: "c",
    CNI_NETNS: "/var/run/netns/none",
    CNI_IFNAME: "eth0",
    CNI_PATH: "/opt/cni/bin",
    CNI_ARGS: "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=u",
  },
};

function hasOwnOpenSsl(): boolean {
  try {
    return Deno.statSync(OWN_OPENSSL).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
