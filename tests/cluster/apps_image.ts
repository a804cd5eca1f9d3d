/**
 * The image that applications of the suite run from, packed from what this machine has: the runtime with our servers and
 * clients, redis-server, PostgreSQL, and a shell for PostgreSQL's initdb. Kept in the cache until something of it changes.
 */
import { MeshError } from "../../base/errors.ts";
import { cachePackages, copy, librariesOf, output } from "../../tools/image_parts.ts";
import { writeOciArchive } from "../../tools/oci_archive.ts";
import { cacheFolder, exists, KUBERNETES_VERSION } from "../kube/go_tools.ts";

export const APPS_IMAGE = "localhost/apps:1";
const ROOT = new URL("../../", import.meta.url).pathname;
const SOURCE = new URL("apps/", import.meta.url).pathname;
const ARCHITECTURES = { x86_64: "amd64", aarch64: "arm64" } as const;
const CACHE = "/var/cache/deno";
/** Who may run PostgreSQL, which refuses root. */
export const POSTGRES_USER = 999;
const PROGRAMS: Readonly<Record<string, string>> = {
  "/usr/bin/redis-server": "redis-server",
  "/usr/bin/redis-cli": "redis-tools",
  "/bin/sh": "dash",
};
const POSTGRES_PROGRAMS = ["postgres", "initdb"];

/** @returns The archive. @throws MeshError AMB7190 if a program is not installed. */
export async function appsImage(): Promise<string> {
  const postgres = await postgresVersion(), mark = await markOf(postgres);
  const archive = `${cacheFolder(`cluster-${KUBERNETES_VERSION}`)}/apps-${mark}.tar`;
  if (await exists(archive)) return archive;
  const work = await Deno.makeTempDir({ prefix: "ambit-apps-" });
  try {
    const root = `${work}/root`;
    await copyPrograms(root, postgres);
    await copyModules(root);
    await Deno.mkdir(`${work}/parts`);
    await writeOciArchive(`${archive}.new`, [root], `${work}/parts`, {
      name: APPS_IMAGE,
      architecture: ARCHITECTURES[Deno.build.arch as keyof typeof ARCHITECTURES],
      entrypoint: ["/usr/bin/deno", "run", "-A", "--quiet", "--cached-only", "--no-prompt"],
      environment: [`DENO_DIR=${CACHE}`, "DENO_NO_UPDATE_CHECK=1", `PATH=/usr/bin:/bin:${postgres}/bin`, "TZ=UTC"],
      labels: {},
      createdAt: 0,
    });
    await Deno.rename(`${archive}.new`, archive);
  } finally {
    await Deno.remove(work, { recursive: true });
  }
  return archive;
}

/** Where Debian puts the newest PostgreSQL that is installed. */
async function postgresVersion(): Promise<string> {
  const folder = "/usr/lib/postgresql";
  const versions = await exists(folder) ? [...Deno.readDirSync(folder)].map(({ name }) => Number(name)) : [];
  for (const version of versions.sort((one, other) => other - one)) {
    if (await exists(`${folder}/${version}/bin/initdb`)) return `${folder}/${version}`;
  }
  throw new MeshError("AMB7190", "a cluster's applications need PostgreSQL on this machine", {
    remedy: "apt-get install --no-install-recommends postgresql",
  });
}

/** Changes with the programs and with our modules. */
async function markOf(postgres: string): Promise<string> {
  const programs = [Deno.execPath(), ...Object.keys(PROGRAMS), `${postgres}/bin/postgres`];
  const facts = await Promise.all(programs.map(async (path) => {
    const { size, mtime } = await Deno.stat(path);
    return `${path} ${size} ${mtime?.getTime()}`;
  }));
  const own = [...Deno.readDirSync(SOURCE)].map(({ name }) => name).sort();
  for (const name of own) facts.push(await Deno.readTextFile(`${SOURCE}${name}`));
  facts.push(await Deno.readTextFile(new URL(import.meta.url)), await Deno.readTextFile(`${ROOT}deno.lock`));
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(facts.join("\0")));
  return new Uint8Array(digest).toHex().slice(0, 16);
}

async function copyPrograms(root: string, postgres: string): Promise<void> {
  const libraries = new Set<string>();
  const files = [...Object.keys(PROGRAMS), ...POSTGRES_PROGRAMS.map((name) => `${postgres}/bin/${name}`)];
  for (const [from, to] of [[Deno.execPath(), "/usr/bin/deno"], ...files.map((path) => [path, path])]) {
    await copy(from!, `${root}${to}`);
    await Deno.chmod(`${root}${to}`, 0o755);
    for (const library of await librariesOf(from!)) libraries.add(library);
  }
  const modules = `${postgres}/lib`;
  for (const name of ["dict_snowball.so", "plpgsql.so"]) await copy(`${modules}/${name}`, `${root}${modules}/${name}`);
  for (const path of libraries) await copy(path, `${root}${path}`);
  const share = `/usr/share/postgresql/${postgres.slice(postgres.lastIndexOf("/") + 1)}`;
  await Deno.mkdir(`${root}/usr/share/postgresql`, { recursive: true });
  await output("cp", ["--recursive", "--dereference", share, `${root}${share}`]);
  await Deno.mkdir(`${root}/etc`, { recursive: true });
  await Deno.mkdir(`${root}/tmp`);
  await Deno.chmod(`${root}/tmp`, 0o1777);
  const user = `postgres:x:${POSTGRES_USER}:${POSTGRES_USER}:postgres:/tmp:/bin/sh\n`;
  await Deno.writeTextFile(`${root}/etc/passwd`, `root:x:0:0:root:/:/bin/sh\n${user}`);
  await Deno.writeTextFile(`${root}/etc/nsswitch.conf`, "hosts: files dns\n");
}

async function copyModules(root: string): Promise<void> {
  const names = [...Deno.readDirSync(SOURCE)].map(({ name }) => name);
  for (const name of names) await copy(`${SOURCE}${name}`, `${root}/apps/${name}`);
  for (const name of ["deno.json", "deno.lock"]) await copy(`${ROOT}${name}`, `${root}/apps/${name}`);
  await cachePackages(`${root}${CACHE}`, names.map((name) => `${root}/apps/${name}`));
}
