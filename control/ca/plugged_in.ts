/** CA files that an operator put into a folder, in either of two layouts (CP-500). */
import { MeshError } from "../../base/errors.ts";
import {
  assembleMaterial,
  ISTIO_NAMES,
  type KeyMaterial,
  type MaterialOrigin,
  type MaterialTexts,
} from "./key_material.ts";

/** As in a Secret of type kubernetes.io/tls: `tls.crt` has the signer first, then what stands above it. */
const TLS_NAMES = Object.freeze({ cert: "tls.crt", key: "tls.key", roots: "ca.crt", chain: "tls.crt" });
/** Marks files that an istiod made itself and stored as Secret `cacerts` (CP-501). */
const GENERATED_MARK = "istio-generated";
export const CRL_FILE = "ca-crl.pem";
/** All that may be looked at. */
export const PLUGGED_IN_FILES: readonly string[] = [
  ...Object.values(ISTIO_NAMES),
  ...new Set(Object.values(TLS_NAMES)),
  CRL_FILE,
];
const REMEDY = `put ${Object.values(ISTIO_NAMES).join(", ")}, or tls.crt, tls.key and ca.crt, of one CA there; ` +
  "remove them all to have a root made";

/** What a folder holds. */
export type PluggedIn = "nothing" | "files" | "generated files";

/** Looks without reading. @throws MeshError AMB0212 if the folder cannot be read. */
export async function lookForPluggedIn(folder: string): Promise<PluggedIn> {
  const names = new Set<string>();
  try {
    for await (const { name } of Deno.readDir(folder)) names.add(name);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) return "nothing";
    throw unreadable(folder, "the folder", cause);
  }
  const parts = [...Object.values(ISTIO_NAMES), ...Object.values(TLS_NAMES)];
  if (!parts.some((name) => names.has(name))) return "nothing";
  return names.has(GENERATED_MARK) ? "generated files" : "files";
}

/** Reads a folder of plugged-in files. @throws MeshError AMB0212 if the set is incomplete or its parts do not belong together. */
export async function loadPluggedIn(folder: string, nowMs: number): Promise<KeyMaterial> {
  const tls = await readIfThere(folder, TLS_NAMES.cert) !== undefined;
  const origin = { where: `the CA files in ${folder}`, remedy: REMEDY, names: tls ? TLS_NAMES : ISTIO_NAMES };
  return await assembleMaterial(origin, await readTexts(folder, origin), { nowMs, selfSigned: false });
}

/** The revocation lists beside them, as stored; empty if there are none. @throws MeshError AMB0212 */
export async function readRevocations(folder: string): Promise<string> {
  return await readIfThere(folder, CRL_FILE) ?? "";
}

async function readTexts(folder: string, { names, where, remedy }: MaterialOrigin): Promise<MaterialTexts> {
  const parts = Object.entries(names).map(async ([part, name]) => [part, name, await readIfThere(folder, name)]);
  const read = await Promise.all(parts);
  const missing = read.filter(([, , text]) => text === undefined).map(([, name]) => name);
  if (missing.length > 0) {
    throw new MeshError("AMB0212", `${where} cannot be used: ${[...new Set(missing)].join(", ")} missing`, { remedy });
  }
  return Object.fromEntries(read.map(([part, , text]) => [part, text])) as unknown as MaterialTexts;
}

async function readIfThere(folder: string, name: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(`${folder}/${name}`);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) return undefined;
    throw unreadable(folder, name, cause);
  }
}

function unreadable(folder: string, name: string, cause: unknown): MeshError {
  return new MeshError("AMB0212", `the CA files in ${folder} cannot be used: ${name} cannot be read`, {
    remedy: "let istiod's user read the folder and what is in it",
    cause,
  });
}
