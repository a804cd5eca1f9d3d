/**
 * The plugin as a program that the node can run: the runtime that runs us, the libraries it has loaded and the plugin's
 * modules in one folder, with a start script under the plugin's name. It needs nothing of the node but a shell.
 */
import { copyNodeFile, makeNodeFolder, removeNodeFile, writeNodeFile } from "./node_files.ts";
import { PLUGIN_TYPE } from "./conflist.ts";
import { tombstoneScript } from "./tombstone.ts";

/** Beside the script, in the folder of plugins. */
const FOLDER = ".ambit";
const LOADER = /\/ld-linux[^/]*\.so[^/]*$/;
const LIBRARY = /\/[^/]+\.so(\.[0-9.]+)?$/;

/** What the plugin is made of. */
export interface PluginProgram {
  /** The runtime's executable. */
  readonly runtime: string;
  /** The shared libraries that it needs, its loader among them. */
  readonly libraries: readonly string[];
  /** Folder with the modules, and the one of them that is the plugin. */
  readonly modules: { readonly root: string; readonly files: readonly string[]; readonly entry: string };
}

/** Libraries of this process, and its loader: what the runtime needs to run. */
export function loadedLibraries(maps: string): string[] {
  const paths = maps.split("\n").map((line) => line.slice(line.indexOf("/"))).filter((path) => path.startsWith("/"));
  return [...new Set(paths)].filter((path) => LIBRARY.test(path) || LOADER.test(path));
}

/** The script, which knows its own folder only when it runs: the node sees it elsewhere than we do. */
export function startScript(loader: string, entry: string): string {
  const own = `"\${0%/*}/${FOLDER}"`;
  const flags = "run --quiet --no-config --no-lock --cached-only --no-prompt --allow-all";
  return `#!/bin/sh
# Starts the CNI plugin with the runtime and libraries beside it.
export DENO_DIR=${own}/cache DENO_NO_UPDATE_CHECK=1 NO_COLOR=1
exec ${own}/lib/${loader} --library-path ${own}/lib ${own}/deno ${flags} ${own}/program/${entry}
`;
}

/** Puts the program into a folder of plugins; the script comes last, so that it never starts half of it. */
export function installProgram(binDir: string, program: PluginProgram): void {
  const folder = `${binDir}/${FOLDER}`, { root, files, entry } = program.modules;
  for (const part of ["lib", "cache", ...new Set(files.map((file) => `program/${file}`.replace(/\/[^/]*$/, "")))]) {
    makeNodeFolder(`${folder}/${part}`);
  }
  for (const path of program.libraries) copyNodeFile(path, `${folder}/lib/${path.replace(/.*\//, "")}`, 0o755);
  copyNodeFile(program.runtime, `${folder}/deno`, 0o755);
  for (const file of files) copyNodeFile(`${root}/${file}`, `${folder}/program/${file}`, 0o644);
  const loader = program.libraries.find((path) => LOADER.test(path));
  if (loader === undefined) throw new Error("the runtime has been loaded by no loader");
  writeNodeFile(`${binDir}/${PLUGIN_TYPE}`, startScript(loader.replace(/.*\//, ""), entry), 0o755);
}

/** Takes it away again, and leaves something that answers for it in its place (CNI-049). */
export function uninstallProgram(binDir: string): void {
  writeNodeFile(`${binDir}/${PLUGIN_TYPE}`, tombstoneScript(), 0o755);
  removeNodeFile(`${binDir}/${FOLDER}`);
}
