/** Where the CA's key comes from (CP-500): an operator's files, a Secret that all replicas share, or a state folder. */
import { MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { KubeApi } from "../../kube/api.ts";
import type { KeyMaterial } from "./key_material.ts";
import { watchMaterial } from "./material_watch.ts";
import { pause } from "../../base/waiting.ts";
import { loadPluggedIn, lookForPluggedIn, readRevocations } from "./plugged_in.ts";
import { checkRevocations } from "./revocations.ts";
import { rotateRoot } from "./root_rotation.ts";
import { SelfSignedCa } from "./self_signed_secret.ts";
import { loadSelfSigned } from "./self_signed_folder.ts";
import { openStateFolder } from "./state_files.ts";

/** Takes what changes into use. */
export interface KeyTaker {
  onMaterial(material: KeyMaterial): Promise<void>;
  onRevocations(pem: string): Promise<void>;
}

export interface KeySource {
  /** What it found at the start. */
  readonly material: KeyMaterial;
  /** Revocation lists to hand on; empty if there are none. */
  readonly revocationsPem: string;
  /** Follows what changes until the signal. */
  follow(taker: KeyTaker, signal: AbortSignal): Promise<void>;
}

/** The settings that it is chosen and read by. */
export interface KeySourceSettings {
  readonly caDir: string | undefined;
  readonly stateDir: string | undefined;
  readonly trustDomain: string;
  readonly multiRoot: boolean | undefined;
  readonly revocations: boolean;
  readonly selfSignedKey: "rsa" | "ecdsa";
  readonly selfSignedRsaBits: number;
  readonly selfSignedLifeMs: number;
  readonly cacertsForSelfSigned: boolean;
  readonly rootCheckMs: number;
  readonly rootCheckJitter: boolean;
  readonly rootGracePercent: number;
}

export interface KeySourceOptions {
  readonly settings: KeySourceSettings;
  /** Undefined: a state folder keeps the root. */
  readonly api: KubeApi | undefined;
  readonly systemNamespace: string;
  readonly log: Logger;
  /** For tests; where Istio's charts mount Secret `cacerts` otherwise. */
  readonly mountedFolder?: string;
}

const MOUNTED = "/etc/cacerts";

/** Finds the key or makes one. @throws MeshError AMB0210 to AMB0212, AMB0251, AMB0254, AMB0256 */
export async function openKeySource(options: KeySourceOptions, signal: AbortSignal): Promise<KeySource> {
  const { settings, api, log } = options;
  const folder = settings.caDir ?? (api === undefined ? undefined : options.mountedFolder ?? MOUNTED);
  const found = folder === undefined ? "nothing" : await lookForPluggedIn(folder);
  // What is there is used or the start fails: never a root of our own in its stead.
  const theirs = found === "files" || (found === "generated files" && !settings.cacertsForSelfSigned);
  if (folder !== undefined && (theirs || api === undefined)) return await openFiles(folder, options);
  if (api !== undefined) return await openSecret(api, options, signal);
  if (settings.stateDir === undefined) {
    throw new MeshError("AMB0256", "nothing says where the CA's key is to be kept", {
      remedy: "give --state-dir a folder, or --ca-dir one with CA files",
    });
  }
  await openStateFolder(settings.stateDir);
  const material = await loadSelfSigned(settings.stateDir, settings.trustDomain, Date.now());
  log.info("the CA signs with a root of its own", { folder: settings.stateDir });
  return { material, revocationsPem: "", follow: () => Promise.resolve() };
}

async function openFiles(folder: string, { settings, api, log }: KeySourceOptions): Promise<KeySource> {
  const material = await loadPluggedIn(folder, Date.now());
  const revocationsPem = settings.revocations ? await readRevocations(folder) : "";
  checkRevocations(revocationsPem, folder);
  log.info("the CA signs with plugged-in files", { folder, signer: material.signer.subject });
  const follow = (taker: KeyTaker, signal: AbortSignal) =>
    watchMaterial({
      folder,
      material,
      revocationsPem: settings.revocations ? revocationsPem : undefined,
      multiRoot: settings.multiRoot ?? api === undefined,
      onChange: (next) => taker.onMaterial(next),
      onRevocations: (pem) => taker.onRevocations(pem),
      log,
    }, signal);
  return { material, revocationsPem, follow };
}

async function openSecret(
  api: KubeApi,
  { settings, systemNamespace, log }: KeySourceOptions,
  signal: AbortSignal,
): Promise<KeySource> {
  const ca = new SelfSignedCa({
    api,
    namespace: systemNamespace,
    organisation: settings.trustDomain,
    key: settings.selfSignedKey,
    rsaBits: settings.selfSignedRsaBits,
    lifeMs: settings.selfSignedLifeMs,
    asCacerts: settings.cacertsForSelfSigned,
    graceShare: settings.rootGracePercent / 100,
    now: Date.now,
    log,
    pause,
  });
  const material = await ca.open(signal);
  const { rootCheckMs: intervalMs, rootCheckJitter: jitter } = settings;
  const follow = async ({ onMaterial: onChange }: KeyTaker, end: AbortSignal) => {
    if (intervalMs === 0) return;
    const check = (current: KeyMaterial) => ca.check(current);
    await rotateRoot({ check, material, onChange, intervalMs, jitter, random: Math.random, log, pause }, end);
  };
  return { material, revocationsPem: "", follow };
}
