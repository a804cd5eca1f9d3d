/** What our TLS listeners present: a certificate from files, or one that our own CA signs (CP-004 to CP-006). */
import type { Logger } from "../../base/log.ts";
import type { CertificateAuthority, ServerCertificate } from "./authority.ts";
import {
  type FiledCertificate,
  loadServerFiles,
  mountedServerFiles,
  type ServerFiles,
  watchServerFiles,
} from "./server_files.ts";

/** As a listener takes it: certificate, key, and the roots that clients' certificates must lead to. */
export interface PresentedTls extends ServerCertificate {
  readonly rootsPem: string;
}

export interface ServerIdentityOptions {
  readonly settings: {
    readonly tlsCertificateFile: string | undefined;
    readonly tlsKeyFile: string | undefined;
    readonly tlsRootsFile: string | undefined;
  };
  /** Whether files are looked for where charts mount them. */
  readonly inCluster: boolean;
  readonly authority: CertificateAuthority;
  /** Names and addresses that a certificate of our own is for; asked each time one is made. */
  readonly hosts: () => readonly string[];
  readonly log: Logger;
}

export class ServerIdentity {
  readonly #options: ServerIdentityOptions;
  readonly #files: ServerFiles | undefined;
  readonly #listeners = new Set<(now: PresentedTls) => void>();
  #filed: FiledCertificate | undefined;
  #now: PresentedTls;
  /** What a certificate of our own was made for and by. */
  #madeFor = "";
  /** Makes follow makes, so that the last one wins. */
  #making: Promise<void> = Promise.resolve();

  private constructor(options: ServerIdentityOptions, files: ServerFiles | undefined) {
    this.#options = options;
    this.#files = files;
    this.#now = { chainPem: "", keyPem: "", rootsPem: "" };
  }

  /** @throws MeshError AMB0255 if there are files and they cannot be used. */
  static async open(options: ServerIdentityOptions): Promise<ServerIdentity> {
    const { settings: { tlsCertificateFile, tlsKeyFile, tlsRootsFile }, inCluster } = options;
    const given = tlsCertificateFile === undefined ? undefined : {
      certificate: tlsCertificateFile,
      key: tlsKeyFile ?? tlsCertificateFile.replace(/[^/]*$/, "tls.key"),
      roots: tlsRootsFile,
    };
    const identity = new ServerIdentity(options, given ?? (inCluster ? await mountedServerFiles() : undefined));
    if (identity.#files !== undefined) {
      identity.#filed = await loadServerFiles(identity.#files);
      options.log.info("the server certificate is read from a file", { file: identity.#files.certificate });
    }
    await identity.reissue();
    return identity;
  }

  get now(): PresentedTls {
    return this.#now;
  }

  /** What clients need to believe us and each other: the file's own roots if it has some (CP-510). */
  get distributedRootsPem(): string {
    const ours = this.#options.authority.material.rootsPem, theirs = this.#filed?.rootsPem ?? "";
    if (theirs === "" || ours.includes(theirs.trim())) return ours;
    return `${theirs.trimEnd()}\n${ours}`;
  }

  subscribe(listener: (now: PresentedTls) => void): void {
    this.#listeners.add(listener);
  }

  /** Presents what is right now, if that differs: after a change of the CA's key, of our names, or of the files. @throws MeshError AMB0213 */
  reissue(): Promise<void> {
    const made = this.#making.then(() => this.#make());
    this.#making = made.catch(() => {}); // Whoever asked hears of it; who asks next is not to fail for it.
    return made;
  }

  /** Follows the files until the signal; `onChange` is told after each change. */
  async follow(onChange: () => Promise<void>, signal: AbortSignal): Promise<void> {
    if (this.#files === undefined || this.#filed === undefined) return;
    const take = async (next: FiledCertificate) => {
      this.#filed = next;
      await this.reissue();
      await onChange();
    };
    await watchServerFiles(this.#files, { current: this.#filed, onChange: take, log: this.#options.log }, signal);
  }

  async #make(): Promise<void> {
    const { authority, hosts } = this.#options, { rootsPem, signer } = authority.material;
    if (this.#filed !== undefined) return this.#present({ ...this.#filed, rootsPem });
    const names = hosts(), madeFor = JSON.stringify([names, rootsPem, signer.serialNumber]);
    if (madeFor === this.#madeFor) return;
    const certificate = await authority.issueServer(names);
    this.#madeFor = madeFor;
    this.#present({ ...certificate, rootsPem });
  }

  #present(now: PresentedTls): void {
    this.#now = now;
    for (const listener of this.#listeners) listener(now);
  }
}

/** The names that clients in a cluster use, and the one that the mesh tells its proxies (CP-004). */
export function ownHosts(
  { namespace, revision }: { namespace: string; revision: string },
  discoveryAddress: string,
): string[] {
  const names = ["istiod", "istiod-remote", "istio-pilot"];
  if (revision !== "" && revision !== "default") names.push(`istiod-${revision}`);
  const hosts = names.map((name) => `${name}.${namespace}.svc`);
  const told = /^(?:\[([^\]]+)\]|([^:]+))(?::\d+)?$/.exec(discoveryAddress);
  if (told !== null) hosts.push(told[1] ?? told[2]!);
  return hosts;
}
