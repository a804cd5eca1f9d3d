/** Puts the program and its units on a bare node, and takes both away again without leaving anything. */
import { MeshError } from "../../base/errors.ts";
import { VERSION } from "../../base/version.ts";

const UNITS_FOLDER = new URL("../../deploy/systemd/", import.meta.url), DOCS = new URL("../../docs/", import.meta.url);
const MAIN = new URL("../../main.ts", import.meta.url);
export const UNITS = ["ambit-istiod.service", "ambit-cni.service", "ambit-ztunnel.service"] as const;
const SETTINGS = ["istiod.env", "cni.env", "ztunnel.env"] as const;
const PLACES = {
  program: "/usr/local/bin/ambit",
  units: "/etc/systemd/system",
  settings: "/etc/ambit",
  documents: "/usr/local/share/doc/ambit",
} as const;
/** What roles make as they run; an uninstallation takes it, too. */
/** Where units of a hardened service see nothing. */
const HOMES = /^\/(root|home)\//;
const STATE = ["/run/ambit", "/run/ztunnel", "/var/lib/ambit", "/var/lib/private/ambit"];

export interface NodeOptions {
  /** Before every path: another root, for images and tests. */
  readonly root: string;
  readonly dryRun: boolean;
  readonly say: (line: string) => void;
  /** `systemctl` with these arguments. @returns Whether it did it; undefined where there is none. */
  readonly systemctl: (args: readonly string[]) => Promise<boolean | undefined>;
}

/** The units that one asks for: a node has cni and ztunnel, the control plane's host istiod. */
export type NodePart = "node" | "control";
export const unitsOf = (part: NodePart) =>
  UNITS.filter((unit) => (unit === "ambit-istiod.service") === (part === "control"));

/** Throws AMB7175 for what cannot be written. What is there already is replaced, but for the settings, which are people's. */
export async function installNode(part: NodePart, options: NodeOptions): Promise<void> {
  const { root, say } = options, wanted = unitsOf(part);
  write(
    options,
    "folder",
    `${PLACES.settings}/enrol.d`,
    (path) => Deno.mkdirSync(path, { recursive: true, mode: 0o755 }),
  );
  if (part === "control") {
    write(
      options,
      "folder",
      `${PLACES.settings}/config`,
      (path) => Deno.mkdirSync(path, { recursive: true, mode: 0o755 }),
    );
  }
  write(options, "program", PLACES.program, writeProgram);
  for (const unit of wanted) {
    write(options, "unit", `${PLACES.units}/${unit}`, (path) => writeUnit(unit, path));
  }
  for (const file of SETTINGS.filter((it) => wanted.includes(`ambit-${it.replace(".env", "")}.service` as never))) {
    const path = `${PLACES.settings}/${file}`;
    if (isThere(root + path)) say(`kept    ${path}`);
    else write(options, "settings", path, (at) => copyText(UNITS_FOLDER, file, at, 0o600));
  }
  write(
    options,
    "document",
    `${PLACES.documents}/bare_nodes.md`,
    (path) => copyText(DOCS, "bare_nodes.md", path, 0o644),
  );
  if (options.dryRun) return;
  if (await options.systemctl(["daemon-reload"]) === undefined) {
    say("note: there is no systemd here: start the roles yourself");
  }
  say(
    part === "node"
      ? `next: fill in ${PLACES.settings}/ztunnel.env, put token and root-cert.pem beside it, then systemctl enable --now ${
        wanted.join(" ")
      }`
      : `next: put the mesh's objects into ${PLACES.settings}/config, fill in ${PLACES.settings}/istiod.env, then systemctl enable --now ${
        wanted.join(" ")
      }`,
  );
}

/** Whether a node agent may have run here as a unit. */
export const isInstalled = (root = ""): boolean => isThere(`${root}${PLACES.units}/ambit-cni.service`);

/** Stops the units, then removes all of it, state and settings too. Whoever calls has taken the workloads out of the mesh. */
export async function uninstallNode(options: NodeOptions): Promise<void> {
  const { root, dryRun, say, systemctl } = options;
  const there = UNITS.filter((unit) => isThere(`${root}${PLACES.units}/${unit}`));
  // ztunnel first: what is not captured any more needs none, and cni tells it of nothing new.
  for (const unit of [...there].reverse()) {
    say(`${dryRun ? "would stop" : "stopped"} ${unit}`);
    if (!dryRun) await systemctl(["disable", "--now", unit]);
  }
  const paths = [
    ...there.map((unit) => `${PLACES.units}/${unit}`),
    ...dropIns(`${root}${PLACES.units}`).map((path) => path.slice(root.length)),
    PLACES.program,
    PLACES.documents,
    PLACES.settings,
    ...STATE,
  ];
  for (const path of paths) {
    if (!isThere(root + path)) continue;
    if (!dryRun) {
      remove(root + path);
      if (path.endsWith(".service.d/10-ambit.conf")) removeIfEmpty((root + path).replace(/\/[^/]*$/, ""));
    }
    say(`${dryRun ? "would remove" : "removed"} ${path}`);
  }
  if (!dryRun) await systemctl(["daemon-reload"]);
}

/** Of units that enrol themselves: without us they would never start again. */
function dropIns(folder: string): string[] {
  if (!isThere(folder)) return [];
  return [...Deno.readDirSync(folder)].filter(({ name }) => name.endsWith(".service.d"))
    .map(({ name }) => `${folder}/${name}/10-ambit.conf`).filter(isThere);
}

function write({ root, dryRun, say }: NodeOptions, what: string, path: string, make: (path: string) => void): void {
  if (dryRun) return say(`would write ${what} ${path}`);
  try {
    Deno.mkdirSync((root + path).replace(/\/[^/]*$/, ""), { recursive: true });
    make(root + path);
  } catch (cause) {
    throw new MeshError("AMB7175", `cannot write ${path}`, {
      remedy: "Run it as root, on a file system that can be written to.",
      cause,
    });
  }
  say(`wrote   ${path}`);
}

/** The compiled program itself; else a script that starts this clone by the runtime that runs us. */
function writeProgram(path: string): void {
  const draft = `${path}.new`;
  if (Deno.build.standalone) Deno.copyFileSync(Deno.execPath(), draft);
  else Deno.writeTextFileSync(draft, startScript());
  Deno.chmodSync(draft, 0o755);
  Deno.renameSync(draft, path); // One that runs goes on with the file that it was started from.
}

/** A clone in somebody's home is seen by its owner alone: the units must be let see it, and run as root. */
function writeUnit(unit: string, path: string): void {
  const text = Deno.readTextFileSync(new URL(unit, UNITS_FOLDER));
  const atHome = !Deno.build.standalone && [Deno.execPath(), MAIN.pathname, packages()].some((it) => HOMES.test(it));
  const fitted = atHome
    ? text.replace("ProtectHome=yes", "ProtectHome=read-only").replace("DynamicUser=yes", "DynamicUser=no")
    : text;
  Deno.writeTextFileSync(path, fitted, { mode: 0o644 });
}

/** Where the runtime keeps our packages. */
const packages = () => Deno.env.get("DENO_DIR") ?? `${Deno.env.get("HOME") ?? ""}/.cache/deno`;

function startScript(): string {
  const { tasks } = JSON.parse(Deno.readTextFileSync(new URL("../../deno.json", import.meta.url)));
  const flags = `${tasks.ambit.command}`.split(" ").slice(2, -1).join(" "); // "deno run … main.ts"
  return `#!/bin/sh
# Ambit ${VERSION}, from the clone that it was installed from.
export DENO_DIR="\${DENO_DIR:-${packages()}}" DENO_NO_UPDATE_CHECK=1
exec "${Deno.execPath()}" run --quiet --cached-only --unstable-worker-options ${flags} "${MAIN.pathname}" "$@"
`;
}

function copyText(folder: URL, file: string, path: string, mode: number): void {
  Deno.writeTextFileSync(path, Deno.readTextFileSync(new URL(file, folder)), { mode });
}

function isThere(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return false;
    throw error;
  }
}

/** The folder of a unit's drop-ins may have others' in it. */
function removeIfEmpty(folder: string): void {
  if ([...Deno.readDirSync(folder)].length === 0) remove(folder);
}

function remove(path: string): void {
  try {
    Deno.removeSync(path, { recursive: true });
  } catch (cause) {
    throw new MeshError("AMB7175", `cannot remove ${path}`, { remedy: "Run it as root.", cause });
  }
}
