/** A token, or a certificate with its key, in files that somebody rotates: read again every few seconds, and after a 401. */
import { MeshError } from "../base/errors.ts";
import type { Credential, Credentials } from "./access.ts";
import { keyPairProblem } from "./pem_files.ts";

/** A pod's token is renewed when a fifth of its life is left, so seconds do not matter; a read each request would. */
const READ_EVERY_MS = 10_000;
const FILE_BYTES_MAX = 1 << 20;

/** A file's text. @throws Error as Deno's, or one that says it is too large. */
export async function readTextBounded(path: string): Promise<string> {
  const { size } = await Deno.stat(path);
  if (size > FILE_BYTES_MAX) throw new Error(`larger than ${FILE_BYTES_MAX} bytes`);
  return await Deno.readTextFile(path);
}

abstract class FileCredentials implements Credentials {
  readonly #now: () => number;
  #read: { readonly credential: Credential; readonly atMs: number } | undefined;
  #stale = false;

  constructor(now: () => number) {
    this.#now = now;
  }

  protected abstract read(): Promise<Credential>;

  async current(): Promise<Credential> {
    const held = this.#read, atMs = this.#now();
    if (held !== undefined && !this.#stale && atMs - held.atMs < READ_EVERY_MS) return held.credential;
    this.#stale = false;
    try {
      const credential = await this.read();
      // The same for as long as the files say the same: connections are made anew for another.
      this.#read = {
        credential: held !== undefined && same(held.credential, credential) ? held.credential : credential,
        atMs,
      };
    } catch (error) {
      // Caught in the middle of a rotation: what was good a moment ago most likely still is.
      if (held === undefined) throw error;
      this.#read = { credential: held.credential, atMs };
    }
    return this.#read.credential;
  }

  refused(credential: Credential): void {
    if (this.#read?.credential === credential) this.#stale = true;
  }
}

function same(one: Credential, other: Credential): boolean {
  return one.token === other.token && one.keyPair?.certificate === other.keyPair?.certificate &&
    one.keyPair?.key === other.keyPair?.key;
}

/** A bearer token in a file. */
export class TokenFile extends FileCredentials {
  readonly #path: string;

  constructor(path: string, now: () => number = () => performance.now()) {
    super(now);
    this.#path = path;
  }

  protected override async read(): Promise<Credential> {
    const remedy = "check that the file is mounted, readable and not empty";
    let token: string;
    try {
      token = (await readTextBounded(this.#path)).trim();
    } catch (error) {
      throw new MeshError("AMB0807", `reading the token for Kubernetes from ${this.#path}`, { remedy, cause: error });
    }
    if (!isToken(token)) {
      throw new MeshError("AMB0807", `reading the token for Kubernetes from ${this.#path}: it holds none`, { remedy });
    }
    return { token };
  }
}

/** Whether a text can be a bearer token: one that a header can hold. */
export function isToken(text: string): boolean {
  return /^[\x21-\x7e]+$/.test(text);
}

/** A client certificate and its key in files. */
export class KeyPairFiles extends FileCredentials {
  readonly #certificatePath: string;
  readonly #keyPath: string;

  constructor(certificatePath: string, keyPath: string, now: () => number = () => performance.now()) {
    super(now);
    this.#certificatePath = certificatePath;
    this.#keyPath = keyPath;
  }

  protected override async read(): Promise<Credential> {
    const remedy = "check that both files are readable PEM and belong together";
    const doing = `reading the client certificate ${this.#certificatePath} and its key ${this.#keyPath}`;
    let keyPair;
    try {
      const certificate = await readTextBounded(this.#certificatePath), key = await readTextBounded(this.#keyPath);
      keyPair = { certificate, key };
    } catch (error) {
      throw new MeshError("AMB0806", `${doing}`, { remedy, cause: error });
    }
    const problem = keyPairProblem(keyPair);
    if (problem !== undefined) throw new MeshError("AMB0806", `${doing}: ${problem}`, { remedy });
    return { keyPair };
  }
}
