/** What images are packed of: programs with the libraries they load, and modules with the packages they import. */
import { MeshError } from "../base/errors.ts";

const ROOT = new URL("..", import.meta.url).pathname;

/** Runs a program to its end in the repository's root. @returns What it printed. @throws MeshError AMB9012. */
export async function output(
  program: string,
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(program, { args: [...args], cwd: ROOT, env }).output();
  if (success) return new TextDecoder().decode(stdout);
  throw new MeshError("AMB9012", `${program} ${args[0]} failed:\n${new TextDecoder().decode(stderr).trim()}`, {
    remedy: "see what it says above",
  });
}

/** Copies a file, or what a link leads to, and makes the folders above it. */
export async function copy(from: string, to: string): Promise<void> {
  await Deno.mkdir(to.replace(/\/[^/]*$/, ""), { recursive: true });
  await Deno.copyFile(await Deno.realPath(from), to);
}

/** The shared libraries of a program, and the loader that loads them, by absolute path. */
export async function librariesOf(file: string): Promise<string[]> {
  const text = await output("ldd", [file]);
  return [...text.matchAll(/(\/\S+) \(0x/g)].map(([, path]) => path!);
}

/** Puts the packages that modules under `folder` import into the runtime's cache there, and nothing else. */
export async function cachePackages(cache: string, modules: readonly string[]): Promise<void> {
  await output(Deno.execPath(), ["cache", "--quiet", ...modules], { DENO_DIR: cache });
  // What else the runtime keeps there names the folders of this machine.
  for await (const { name } of Deno.readDir(cache)) {
    if (name !== "npm") await Deno.remove(`${cache}/${name}`, { recursive: true });
  }
}
