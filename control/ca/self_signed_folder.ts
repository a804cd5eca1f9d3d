/** A root of our own in the state folder, made once and kept, where no Kubernetes keeps it (CP-501, CP-502). */
import { MeshError } from "../../base/errors.ts";
import { assembleMaterial, ISTIO_NAMES, type KeyMaterial, makeRoot, type MaterialTexts } from "./key_material.ts";
import { createFolderOnce, readSecret } from "./state_files.ts";

const LIFE_MS = 10 * 365 * 86_400_000; // ten years, as CP-501 has it
const PARTS = Object.entries(ISTIO_NAMES) as [keyof MaterialTexts, string][];

/** Reads our own root from `<stateFolder>/ca`, making it first if there is none: ECDSA P-256, ten years, organisation = trust domain. */
export async function loadSelfSigned(stateFolder: string, trustDomain: string, nowMs: number): Promise<KeyMaterial> {
  const folder = `${stateFolder}/ca`;
  await createFolderOnce(folder, async () => {
    const root = { organisation: trustDomain, nowMs, lifeMs: LIFE_MS, key: "ecdsa", rsaBits: 0 } as const;
    const texts = await makeRoot(root);
    return Object.fromEntries(PARTS.map(([part, name]) => [name, texts[part]]));
  });
  const where = `the CA in ${folder}`, remedy = "restore its files, or remove the folder to have a new root made";
  const texts: Partial<Record<keyof MaterialTexts, string>> = {};
  for (const [part, name] of PARTS) {
    texts[part] = await readSecret(`${folder}/${name}`);
    if (texts[part] === undefined) {
      throw new MeshError("AMB0212", `${where} cannot be used: ${name} missing`, { remedy });
    }
  }
  return await assembleMaterial({ where, remedy, names: ISTIO_NAMES }, texts as MaterialTexts, {
    nowMs,
    selfSigned: true,
  });
}
