/** A server certificate that somebody else makes, in files that may change while we run (CP-005, CP-006). */
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import * as x509 from "@peculiar/x509";
import type { ServerCertificate } from "./authority.ts";
import { pause } from "../../base/waiting.ts";
import { importSigningKey, pemBlocks } from "./pem.ts";

/** Where the parts lie. */
export interface ServerFiles {
  readonly certificate: string;
  readonly key: string;
  /** The roots of the certificate, which clients need; undefined: those of our own CA. */
  readonly roots: string | undefined;
}

/** A certificate from files. */
export interface FiledCertificate extends ServerCertificate {
  /** The certificate's own roots; empty if none were given. */
  readonly rootsPem: string;
}

const MOUNTED = "./var/run/secrets/istiod";
const INTERVAL_MS = 1_000;

/** Files where Istio's charts mount them; undefined if there are none (CP-005, second). */
export async function mountedServerFiles(folder = MOUNTED): Promise<ServerFiles | undefined> {
  const certificate = `${folder}/tls/tls.crt`, key = `${folder}/tls/tls.key`;
  if (!(await exists(certificate)) || !(await exists(key))) return undefined;
  for (const roots of [`${folder}/ca/root-cert.pem`, `${folder}/tls/ca.crt`]) {
    if (await exists(roots)) return { certificate, key, roots };
  }
  return { certificate, key, roots: undefined };
}

/** Reads them. @throws MeshError AMB0255 if a part is missing or they do not fit together. */
export async function loadServerFiles({ certificate, key, roots }: ServerFiles): Promise<FiledCertificate> {
  const wrong = (what: string, cause?: unknown) =>
    new MeshError("AMB0255", `the server certificate in ${certificate} cannot be used: ${what}`, {
      remedy: "give the certificate, its key and its roots in PEM form, or none to have one signed by istiod's own CA",
      cause,
    });
  let chainPem: string, keyPem: string, rootsPem: string;
  try {
    chainPem = await Deno.readTextFile(certificate);
    keyPem = await Deno.readTextFile(key);
    rootsPem = roots === undefined ? "" : await Deno.readTextFile(roots);
  } catch (cause) {
    throw wrong("a file cannot be read", cause);
  }
  try {
    const leaf = pemBlocks(chainPem).find(({ label }) => label === "CERTIFICATE");
    if (leaf === undefined) throw wrong("it holds no certificate");
    const imported = await importSigningKey(keyPem), probe = new Uint8Array(32);
    const signature = await crypto.subtle.sign(imported.algorithm, imported.key, probe);
    const publicKey = await new x509.X509Certificate(leaf.text).publicKey.export(imported.algorithm, ["verify"]);
    if (!(await crypto.subtle.verify(imported.algorithm, publicKey, signature, probe))) {
      throw wrong(`${key} is not its key`);
    }
  } catch (cause) {
    if (cause instanceof MeshError) throw cause;
    throw wrong("it or its key cannot be read", cause);
  }
  return { chainPem, keyPem, rootsPem };
}

/** Looks at the files until the signal. What cannot be used is said once, and what is in use stays (CP-006). */
export async function watchServerFiles(
  files: ServerFiles,
  { current, onChange, log, intervalMs = INTERVAL_MS }: {
    current: FiledCertificate;
    onChange: (next: FiledCertificate) => Promise<void>;
    log: Logger;
    intervalMs?: number;
  },
  signal: AbortSignal,
): Promise<void> {
  let used = JSON.stringify(current), said = "";
  while (await pause(intervalMs, signal)) {
    try {
      const next = await loadServerFiles(files), text = JSON.stringify(next);
      if (text === used) continue;
      await onChange(next);
      [used, said] = [text, ""];
      log.info("server certificate reloaded", { file: files.certificate });
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      const text = chain(error);
      if (text !== said) log.error("server certificate not reloaded; the old one stays in use", { error: text });
      said = text;
    }
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
