/** A new root for the mesh, step by step, while certificates live a minute and connections go on. */
import { loadSelfSigned } from "../../../control/ca/self_signed_folder.ts";
import type { Stage } from "../stage.ts";

// Until every certificate has been renewed: half of its minute, the second in which istiod looks, and a while without istiod.
const STEP_MS = 55_000;

const FILES = ["ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem"] as const;

/** Files that the CA signs with. */
type Files = Record<(typeof FILES)[number], string>;

/** Makes a root below `folder`. */
async function makeRoot(folder: string): Promise<Files> {
  Deno.mkdirSync(folder, { recursive: true });
  await loadSelfSigned(folder, "cluster.local", Date.now());
  return Object.fromEntries(
    FILES.map((name) => [name, Deno.readTextFileSync(`${folder}/ca/${name}`)]),
  ) as unknown as Files;
}

/** What istiod is told to read: a link, so that all files change at once. */
export function currentOf(caFolder: string): string {
  return `${caFolder}/current`;
}

/** Makes the first root in `caFolder`, before istiod is started on {@link currentOf}. */
export async function plugIn(caFolder: string): Promise<void> {
  write(caFolder, "first", await makeRoot(`${caFolder}/root-0`));
}

function write(caFolder: string, step: string, files: Files): void {
  const folder = `${caFolder}/${step}`, link = `${caFolder}/next`;
  Deno.mkdirSync(folder);
  for (const name of FILES) Deno.writeTextFileSync(`${folder}/${name}`, files[name]);
  Deno.symlinkSync(folder, link);
  Deno.renameSync(link, currentOf(caFolder));
}

/** Adds a root to the bundle, signs with it, takes the old one away; then the next. */
export async function rootRotation(stage: Stage): Promise<void> {
  const { caFolder } = stage;
  let old = await makeRoot(`${caFolder}/root-0`);
  for (let number = 1; await stage.calm(10_000, 20_000); number++) {
    const next = await makeRoot(`${caFolder}/root-${number}`);
    const both = old["root-cert.pem"] + next["root-cert.pem"];
    write(caFolder, `${number}-both`, { ...old, "root-cert.pem": both });
    if (!await stage.calm(STEP_MS, STEP_MS)) return;
    write(caFolder, `${number}-signs`, { ...next, "root-cert.pem": both });
    if (!await stage.calm(STEP_MS, STEP_MS)) return;
    write(caFolder, `${number}-alone`, next);
    stage.did("roots replaced");
    if (!await stage.calm(STEP_MS, STEP_MS)) return;
    old = next;
  }
}
