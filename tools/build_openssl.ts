/** Builds a current OpenSSL from source as one file for Ambit to load: dist/libossl.so. */
import { MeshError } from "../base/errors.ts";
import { ONE_FILE } from "../os/openssl_library.ts";

/** OpenSSL 4.0.3, as published among Rust's packages; its client checks what it fetches against their index. */
const PACKAGE = "openssl-src", PACKAGE_VERSION = "=400.0.2";
const ROOT = new URL("..", import.meta.url).pathname;
const WORK = `${ROOT}.cache/openssl`, DIST = `${ROOT}dist`;
const TARGETS: Readonly<Record<string, string>> = { x86_64: "linux-x86_64", aarch64: "linux-aarch64" };
/**
 * One static library of each, which no other file changes: no modules, no engines, no configuration of the machine.
 * What the mesh never speaks is left out: each algorithm that is there is passed by in every search for another.
 */
const OPTIONS =
  "no-shared no-module no-tests no-apps no-docs no-comp no-zlib no-zlib-dynamic no-legacy no-autoload-config " +
  "no-dsa no-dh no-sm2 no-sm3 no-sm4 no-aria no-camellia no-idea no-seed no-bf no-cast no-des no-rc2 no-rc4 no-md4 " +
  "no-rmd160 no-whirlpool no-siphash no-blake2 no-ml-dsa no-slh-dsa no-lms no-ec2m no-quic no-srp no-srtp no-ct " +
  "no-cmp no-cms no-ts no-ocb no-siv -fPIC --libdir=lib";
const NEEDED = ["cargo", "cc", "make", "perl", "strip"];

async function run(program: string, args: readonly string[], cwd: string): Promise<string> {
  const command = new Deno.Command(program, { args: [...args], cwd, stdin: "null" });
  const { success, stdout, stderr } = await command.output();
  const text = new TextDecoder();
  if (success) return text.decode(stdout);
  const said = (text.decode(stdout) + text.decode(stderr)).trim().split("\n").slice(-12).join("\n");
  throw new MeshError("AMB9001", `${program} ${args[0]} failed:\n${said}`, { remedy: "see what it says above" });
}

async function missingPrograms(): Promise<string[]> {
  const tried = await Promise.all(NEEDED.map(async (program) => {
    try {
      await run(program, ["--version"], ".");
      return undefined;
    } catch (error) {
      return error instanceof Deno.errors.NotFound ? program : undefined;
    }
  }));
  return tried.filter((it) => it !== undefined);
}

/** Fetches the package through its own client. @returns The folder with OpenSSL's source. */
async function fetchSource(): Promise<string> {
  await Deno.mkdir(`${WORK}/fetch/src`, { recursive: true });
  await Deno.writeTextFile(`${WORK}/fetch/src/lib.rs`, "");
  await Deno.writeTextFile(
    `${WORK}/fetch/Cargo.toml`,
    `[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n[dependencies]\n` +
      `${PACKAGE} = "${PACKAGE_VERSION}"\n`,
  );
  await run("cargo", ["fetch"], `${WORK}/fetch`);
  const metadata: { packages: readonly { name: string; manifest_path: string }[] } = JSON.parse(
    await run("cargo", ["metadata", "--format-version", "1", "--offline"], `${WORK}/fetch`),
  );
  const manifest = metadata.packages.find(({ name }) => name === PACKAGE)!.manifest_path;
  return manifest.replace(/[^/]*$/, "openssl");
}

async function build(source: string): Promise<void> {
  const target = TARGETS[Deno.build.arch];
  if (target === undefined || Deno.build.os !== "linux") {
    throw new MeshError("AMB9002", `not for ${Deno.build.os} on ${Deno.build.arch}`, {
      remedy: "build it on 64-bit Linux, x86-64 or arm64",
    });
  }
  const folder = `${WORK}/source`;
  await run("rm", ["-rf", folder], WORK);
  await run("cp", ["-r", source, folder], WORK);
  await run("perl", ["Configure", target, ...OPTIONS.split(" ")], folder);
  await run("make", [`-j${navigator.hardwareConcurrency}`, "build_libs"], folder);
  // -Bsymbolic: it calls itself, whatever else the process has loaded. nodelete: it stays until the process has ended,
  // since threads that end after its last user call back into it.
  const link = "-Wl,-Bsymbolic -Wl,-z,nodelete -Wl,--whole-archive libssl.a libcrypto.a -Wl,--no-whole-archive";
  await run("cc", ["-shared", "-o", ONE_FILE, ...link.split(" "), "-lpthread", "-ldl"], folder);
  await run("strip", [ONE_FILE], folder);
  await Deno.mkdir(DIST, { recursive: true });
  await run("cp", [`${folder}/${ONE_FILE}`, `${DIST}/${ONE_FILE}.new`], WORK);
  await Deno.rename(`${DIST}/${ONE_FILE}.new`, `${DIST}/${ONE_FILE}`); // Whoever has the old one loaded keeps it.
  await run("rm", ["-rf", folder], WORK);
}

async function main(): Promise<number> {
  const say = (text: string) => Deno.stdout.writeSync(new TextEncoder().encode(text + "\n"));
  const missing = await missingPrograms();
  if (missing.length > 0) {
    say(`missing: ${missing.join(", ")}\nfix: install them (Debian, Ubuntu: apt install cargo gcc make perl binutils)`);
    return 1;
  }
  try {
    say(`fetching ${PACKAGE} ${PACKAGE_VERSION.slice(1)}`);
    const source = await fetchSource();
    say("building OpenSSL, a minute or two");
    await build(source);
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    say(`error: ${error.message}\nfix: ${error.remedy}`);
    return 1;
  }
  say(`${DIST}/${ONE_FILE} is what Ambit takes from now on, unless the system's is newer`);
  return 0;
}

if (import.meta.main) Deno.exit(await main());
