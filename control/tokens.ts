/** Service account tokens for nodes without a Kubernetes API: minted and verified with a key in the state folder (CP-476). */
import * as jose from "jose";
import { MeshError } from "../base/errors.ts";
import { toPem } from "./ca/pem.ts";
import { openStateFolder, readOrCreateFile } from "./ca/state_files.ts";

/** Whom a token speaks for. */
export interface TokenSubject {
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly pod: string;
  /** Empty if the pod's uid is not known to whoever minted the token. */
  readonly podUid: string;
  /** Empty if the token does not say, or whoever vouches for it does not: then the pod's own object does. */
  readonly node: string;
}

export const TOKEN_AUDIENCE = "istio-ca"; // TOKEN_AUDIENCES' default (CP-476)
const TOKEN_ISSUER = "ambit.local";
const TOKEN_BYTES_MAX = 8_192;
const KEY_FILE = "token-key.pem";
/** RFC 1123 labels, as Kubernetes names namespaces; names of accounts, pods and nodes may hold dots. */
const NAMESPACE_NAME = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;
const OBJECT_NAME = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/;

/** Whether Kubernetes would take it as a namespace's name. */
export function isNamespaceName(text: string): boolean {
  return NAMESPACE_NAME.test(text);
}

/** Whether Kubernetes would take it as an account's, a pod's or a node's name. */
export function isObjectName(text: string): boolean {
  return OBJECT_NAME.test(text);
}

export class TokenIssuer {
  readonly #privateKey: CryptoKey;
  readonly #publicKey: CryptoKey;
  readonly #keyId: string;

  private constructor(privateKey: CryptoKey, publicKey: CryptoKey, keyId: string) {
    this.#privateKey = privateKey;
    this.#publicKey = publicKey;
    this.#keyId = keyId;
  }

  /** Opens the issuer of a state folder, making its key if there is none. @throws MeshError AMB0210, AMB0211, AMB0214 */
  static async open(stateFolder: string): Promise<TokenIssuer> {
    await openStateFolder(stateFolder);
    const path = `${stateFolder}/${KEY_FILE}`;
    const pem = await readOrCreateFile(path, async () => {
      const { privateKey } = await jose.generateKeyPair("ES256", { extractable: true });
      return toPem("PRIVATE KEY", await crypto.subtle.exportKey("pkcs8", privateKey));
    });
    try {
      const privateKey = await jose.importPKCS8(pem, "ES256", { extractable: true });
      const { d: _, ...publicJwk } = await jose.exportJWK(privateKey);
      const publicKey = await jose.importJWK(publicJwk, "ES256") as CryptoKey;
      return new TokenIssuer(privateKey, publicKey, await jose.calculateJwkThumbprint(publicJwk));
    } catch (cause) {
      throw new MeshError("AMB0214", `${path} is no ECDSA P-256 private key`, {
        remedy: "remove the file to have a new key made; tokens minted before are then worth nothing",
        cause,
      });
    }
  }

  /** Opens the issuer of a state folder that istiod has made. @throws MeshError AMB0290 if there is none, else as {@link open}. */
  static async openExisting(stateFolder: string): Promise<TokenIssuer> {
    try {
      await Deno.stat(`${stateFolder}/${KEY_FILE}`);
    } catch (cause) {
      throw new MeshError("AMB0290", `${stateFolder} is no state folder of an istiod: it holds no ${KEY_FILE}`, {
        remedy: "start istiod with this --state-dir first; a token of another key would be refused",
        cause,
      });
    }
    return await TokenIssuer.open(stateFolder);
  }

  /** Mints a token. @throws MeshError AMB0215 if a name is not one that Kubernetes would take. */
  async mint(
    subject: TokenSubject,
    { ttlMs, nowMs, audience = TOKEN_AUDIENCE }: { ttlMs: number; nowMs: number; audience?: string },
  ): Promise<string> {
    checkName("namespace", subject.namespace, NAMESPACE_NAME);
    checkName("service account", subject.serviceAccount, OBJECT_NAME);
    checkName("pod", subject.pod, OBJECT_NAME);
    checkName("node", subject.node, OBJECT_NAME);
    const issuedAt = Math.floor(nowMs / 1_000);
    const bound = {
      namespace: subject.namespace,
      serviceaccount: { name: subject.serviceAccount },
      pod: { name: subject.pod, uid: subject.podUid },
      node: { name: subject.node },
    };
    return await new jose.SignJWT({ "kubernetes.io": bound })
      .setProtectedHeader({ alg: "ES256", kid: this.#keyId })
      .setIssuer(TOKEN_ISSUER)
      .setSubject(`system:serviceaccount:${subject.namespace}:${subject.serviceAccount}`)
      .setAudience(audience)
      .setIssuedAt(issuedAt)
      .setNotBefore(issuedAt)
      .setExpirationTime(issuedAt + Math.floor(ttlMs / 1_000))
      .setJti(crypto.randomUUID())
      .sign(this.#privateKey);
  }

  /** Verifies signature, issuer, audience, times and shape. @returns The subject, or why not as `{ refused }`. Never throws. */
  async verify(token: string, nowMs: number): Promise<TokenSubject | { refused: string }> {
    if (token.length > TOKEN_BYTES_MAX) return { refused: `the token is longer than ${TOKEN_BYTES_MAX} bytes` };
    try {
      const { payload } = await jose.jwtVerify(token, this.#publicKey, {
        algorithms: ["ES256"],
        issuer: TOKEN_ISSUER,
        audience: TOKEN_AUDIENCE,
        currentDate: new Date(nowMs),
        requiredClaims: ["exp", "sub"],
      });
      return subjectOf(payload) ?? { refused: "the token's claims are not those of a bound service account token" };
    } catch (error) {
      // jose throws for whatever is wrong with a token; hostile input is an ordinary outcome here.
      return { refused: `the token is refused: ${error instanceof Error ? error.message : String(error)}` };
    }
  }
}

function subjectOf(payload: jose.JWTPayload): TokenSubject | undefined {
  const bound = member(payload, "kubernetes.io");
  const namespace = member(bound, "namespace"), serviceAccount = member(member(bound, "serviceaccount"), "name");
  const pod = member(member(bound, "pod"), "name"), podUid = member(member(bound, "pod"), "uid");
  const node = member(member(bound, "node"), "name");
  if (typeof namespace !== "string" || typeof serviceAccount !== "string" || typeof node !== "string") return undefined;
  if (typeof pod !== "string" || typeof podUid !== "string") return undefined;
  if (payload.sub !== `system:serviceaccount:${namespace}:${serviceAccount}`) return undefined;
  return { namespace, serviceAccount, pod, podUid, node };
}

function member(value: unknown, key: string): unknown {
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return undefined;
  return (value as Record<string, unknown>)[key];
}

function checkName(what: string, value: string, form: RegExp): void {
  if (form.test(value)) return;
  throw new MeshError("AMB0215", `${JSON.stringify(value)} is no name of a ${what}`, {
    remedy: "use lower-case letters, digits and hyphens, as Kubernetes does",
  });
}
