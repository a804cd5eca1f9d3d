/** Packs nft, both variants of iptables and ipset as this machine has them, for nodes where netlink alone does not do. */
import { copy, librariesOf } from "./image_parts.ts";
import { isFile } from "./program_parts.ts";

const FOLDER = "/usr/sbin";
const NAMES = ["iptables", "ip6tables"], ACTIONS = ["", "-save", "-restore"];
const ALONE = ["nft", "ipset"];
/** iptables loads what its rules name; those of ebtables and arptables are not asked for. */
const EXTENSION = /^lib(xt|ipt|ip6t)_.*\.so$/;

/** @returns Programs that this machine lacks, and that the image lacks therefore. */
export async function packNetfilterPrograms(root: string): Promise<string[]> {
  const lacking: string[] = [], packed: string[] = [];
  for (const name of ALONE) {
    if (!await isFile(`${FOLDER}/${name}`)) lacking.push(name);
    else packed.push(`${FOLDER}/${name}`);
  }
  for (const variant of ["nft", "legacy"]) {
    const program = `xtables-${variant}-multi`;
    if (!await isFile(`${FOLDER}/${program}`)) {
      lacking.push(`iptables-${variant}`);
      continue;
    }
    packed.push(`${FOLDER}/${program}`);
    await Deno.mkdir(`${root}${FOLDER}`, { recursive: true });
    for (const name of NAMES) {
      for (const action of ACTIONS) await Deno.symlink(program, `${root}${FOLDER}/${name}-${variant}${action}`);
    }
  }
  const libraries = new Set<string>();
  for (const path of packed) {
    await copy(path, `${root}${path}`);
    await Deno.chmod(`${root}${path}`, 0o755);
    for (const library of await librariesOf(path)) libraries.add(library);
  }
  const xtables = [...libraries].find((path) => path.includes("/libxtables.so"));
  if (xtables !== undefined) { for (const path of await copyExtensions(root, xtables)) libraries.add(path); }
  for (const path of libraries) await copy(path, `${root}${path}`);
  return lacking;
}

/** @returns Libraries that they load. */
async function copyExtensions(root: string, xtables: string): Promise<string[]> {
  const folder = `${(await Deno.realPath(xtables)).replace(/\/[^/]*$/, "")}/xtables`;
  const names = [...Deno.readDirSync(folder)].map(({ name }) => name).filter((name) => EXTENSION.test(name));
  for (const name of names) await copy(`${folder}/${name}`, `${root}${folder}/${name}`);
  return (await Promise.all(names.map((name) => librariesOf(`${folder}/${name}`)))).flat();
}
