/**
 * Packs Ambit as one OCI image that runs every role: dist/ambit.tar. The lower layer is the runtime that runs this, the
 * libraries it loads, OpenSSL, and the programs by which the node agent may be told to redirect; the upper one our modules
 * and packages, nothing else. There is no shell in it.
 */
import { parseArgs } from "@std/cli";
import { MeshError } from "../base/errors.ts";
import { VERSION } from "../base/version.ts";
import { ONE_FILE } from "../os/openssl_library.ts";
import { cachePackages, copy, librariesOf, output } from "./image_parts.ts";
import { packNetfilterPrograms } from "./netfilter_programs.ts";
import { writeOciArchive } from "./oci_archive.ts";
import { engineAndRuntimeFlags, isFile, PROGRAM_ENTRIES } from "./program_parts.ts";

const ROOT = new URL("..", import.meta.url).pathname;
const ARCHITECTURES = { x86_64: "amd64", aarch64: "arm64" } as const;
const SYSTEM_OPENSSL = ["libssl.so.3", "libcrypto.so.3"];
const NAME_SERVICES = ["libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2"]; // The C library loads them by name.
/**
 * What the runtime makes of our modules, by its name in its cache, and where it may write it: the root of a container is
 * read-only, and a start that cannot keep it takes twice the CPU, and sleeps 150 ms over tries to write.
 */
const KEPT_BETWEEN_STARTS = [
  ["gen", "/tmp"],
  ["v8_code_cache_v2", "/tmp/v8_code_cache_v2"],
  ["dep_analysis_cache_v2", "/tmp/dep_analysis_cache_v2"],
  ["node_analysis_cache_v2", "/tmp/node_analysis_cache_v2"],
] as const;
/** In the image. */
const PROGRAM = "/ambit", RUNTIME = "/usr/bin/deno", CACHE = "/var/cache/deno";

interface Module {
  readonly local?: string;
  readonly kind?: string;
}

/** The files of ours that the roles import, from the repository's root. */
async function modules(): Promise<string[]> {
  const found = new Set<string>();
  for (const entry of PROGRAM_ENTRIES) {
    const graph: { modules: readonly Module[] } = JSON.parse(await output(Deno.execPath(), ["info", "--json", entry]));
    for (const { local } of graph.modules) if (local?.startsWith(ROOT)) found.add(local.slice(ROOT.length));
  }
  return [...found].sort();
}

/** Where the loader finds a library of the system, if it does. */
async function findLibrary(name: string): Promise<string | undefined> {
  const line = (await output("/sbin/ldconfig", ["-p"])).split("\n").find((it) => it.trim().startsWith(`${name} (`));
  return line?.split("=> ")[1];
}

/** @returns Programs for redirection that this machine does not have. */
async function makeRuntimeLayer(folder: string): Promise<string[]> {
  await copy(Deno.execPath(), `${folder}${RUNTIME}`);
  await Deno.chmod(`${folder}${RUNTIME}`, 0o755);
  const wanted = new Set(await librariesOf(Deno.execPath()));
  for (const name of [...SYSTEM_OPENSSL, ...NAME_SERVICES]) {
    const path = await findLibrary(name);
    if (path !== undefined) { for (const it of [path, ...await librariesOf(path)]) wanted.add(it); }
    else if (SYSTEM_OPENSSL.includes(name)) {
      throw new MeshError("AMB9013", `there is no ${name} to pack`, { remedy: "install the package libssl3 first" });
    }
  }
  for (const path of wanted) await copy(path, `${folder}${path}`);
  await Deno.mkdir(`${folder}/etc`, { recursive: true });
  await Deno.writeTextFile(`${folder}/etc/passwd`, "root:x:0:0:root:/:/none\nambit:x:1337:1337:ambit:/:/none\n");
  await Deno.writeTextFile(`${folder}/etc/group`, "root:x:0:\nambit:x:1337:\n");
  await Deno.writeTextFile(`${folder}/etc/nsswitch.conf`, "hosts: files dns\n");
  for (const name of ["proc", "sys", "dev", "tmp", "var/run", "var/lib/ambit"]) {
    await Deno.mkdir(`${folder}/${name}`, { recursive: true });
  }
  await Deno.chmod(`${folder}/tmp`, 0o1777);
  return await packNetfilterPrograms(folder);
}

async function makeProgramLayer(folder: string): Promise<void> {
  const files = [...await modules(), "deno.json", "deno.lock"];
  for (const file of files) await copy(`${ROOT}${file}`, `${folder}${PROGRAM}/${file}`);
  const own = `${ROOT}dist/${ONE_FILE}`;
  if (await isFile(own)) await copy(own, `${folder}${PROGRAM}/dist/${ONE_FILE}`);
  const entries = PROGRAM_ENTRIES.map((entry) => `${folder}${PROGRAM}/${entry}`);
  await cachePackages(`${folder}${CACHE}`, entries);
  for (const [kept, where] of KEPT_BETWEEN_STARTS) await Deno.symlink(where, `${folder}${CACHE}/${kept}`);
}

async function build(name: string, into: string): Promise<string[]> {
  const architecture = ARCHITECTURES[Deno.build.arch as keyof typeof ARCHITECTURES];
  const createdAt = Number((await output("git", ["log", "-1", "--format=%ct"])).trim());
  const commit = (await output("git", ["rev-parse", "HEAD"])).trim();
  const work = await Deno.makeTempDir({ prefix: "ambit-image-" });
  try {
    for (const part of ["runtime", "program", "archive"]) await Deno.mkdir(`${work}/${part}`);
    const lacking = await makeRuntimeLayer(`${work}/runtime`);
    await makeProgramLayer(`${work}/program`);
    await Deno.mkdir(into.replace(/[^/]*$/, "") || ".", { recursive: true });
    const { engine, runtime } = await engineAndRuntimeFlags();
    await writeOciArchive(`${into}.new`, [`${work}/runtime`, `${work}/program`], `${work}/archive`, {
      name,
      architecture,
      entrypoint: [
        RUNTIME,
        "run",
        "--quiet",
        "--cached-only",
        "--no-prompt",
        ...runtime,
        `${PROGRAM}/main.ts`,
      ],
      // Not among the arguments, which could not be taken back: istiod's manifest has other words for the engine.
      environment: [
        `DENO_V8_FLAGS=${engine}`,
        `DENO_DIR=${CACHE}`,
        "DENO_NO_UPDATE_CHECK=1",
        "NO_COLOR=1",
        "PATH=/usr/bin:/usr/sbin",
      ],
      labels: { "org.opencontainers.image.version": VERSION, "org.opencontainers.image.revision": commit },
      createdAt,
    });
    await Deno.rename(`${into}.new`, into);
    return lacking;
  } finally {
    await Deno.remove(work, { recursive: true });
  }
}

const { name, output: into, help } = parseArgs(Deno.args, {
  string: ["name", "output"],
  boolean: ["help"],
  default: { name: `localhost/ambit:${VERSION}`, output: `${ROOT}dist/ambit.tar` },
});
if (help) {
  // deno-lint-ignore no-console -- a tool's output
  console.log("deno task image [--name localhost/ambit:VERSION] [--output dist/ambit.tar]");
} else {
  const startedAt = performance.now();
  const lacking = await build(name, into);
  const { size } = await Deno.stat(into);
  const seconds = ((performance.now() - startedAt) / 1_000).toFixed(0);
  // deno-lint-ignore no-console -- a tool's output
  console.log(`${name}: ${into}, ${(size / 2 ** 20).toFixed(0)} MiB, in ${seconds} s`);
  if (lacking.length > 0) {
    // deno-lint-ignore no-console -- a tool's output
    console.log(
      `without ${lacking.join(", ")}: the node agent redirects by netlink or eBPF then (install them, and pack again)`,
    );
  }
}
