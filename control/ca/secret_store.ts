/** The CA's own root as a Secret of the system namespace, shared by all replicas and with other makes of istiod (CP-501). */
import { type KubeApi, KubeError, type KubeObject } from "../../kube/api.ts";
import { SECRETS } from "../../kube/resource_types.ts";
import { assembleMaterial, ISTIO_NAMES, type KeyMaterial, type MaterialTexts } from "./key_material.ts";

/** Names that Istio gives the Secret; the second only where it is asked for. */
export const CA_SECRET = "istio-ca-secret";
export const CACERTS_SECRET = "cacerts";
const TYPE = "istio.io/ca-root";
const GENERATED_MARK = "istio-generated";
/** Present, and empty: they were of Istio's Citadel. */
const UNUSED_PARTS = ["cert-chain.pem", "key.pem"];
const TEXT_BYTES_MAX = 1_048_576; // as the API server has it for the whole object

/** A Secret with a CA in it, and the CA. */
export interface StoredCa {
  readonly object: KubeObject;
  readonly material: KeyMaterial;
  /** The key's text, which a renewal stores again. Never logged. */
  readonly texts: MaterialTexts;
}

export class SecretStore {
  readonly #api: KubeApi;
  readonly #namespace: string;

  constructor(api: KubeApi, namespace: string) {
    this.#api = api;
    this.#namespace = namespace;
  }

  /** Where a Secret lies, for logs. */
  where(name: string): string {
    return `Secret ${this.#namespace}/${name}`;
  }

  /** @returns undefined if there is no such Secret. @throws MeshError AMB0212 if it cannot be used, KubeError, KubeUnreachable */
  async load(name: string, nowMs: number): Promise<StoredCa | undefined> {
    const object = await this.#api.get(SECRETS, { namespace: this.#namespace, name });
    if (object === undefined) return undefined;
    const texts = textsOf(object);
    const origin = {
      where: this.where(name),
      remedy:
        `restore it, or remove it and restart every istiod to have a new root made, which cuts off what has the old one`,
      names: ISTIO_NAMES,
    };
    return { object, texts, material: await assembleMaterial(origin, texts, { nowMs, selfSigned: true }) };
  }

  /** @returns False if another was quicker. @throws KubeError, KubeUnreachable */
  async create(name: string, texts: MaterialTexts): Promise<boolean> {
    const data: Record<string, string> = Object.fromEntries(UNUSED_PARTS.map((part) => [part, ""]));
    Object.assign(data, dataOf(texts));
    if (name === CACERTS_SECRET) data[GENERATED_MARK] = "";
    const secret = {
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name, namespace: this.#namespace },
      type: TYPE,
      data,
    };
    try {
      await this.#api.create(SECRETS, this.#namespace, secret);
      return true;
    } catch (error) {
      if (error instanceof KubeError && error.reason === "AlreadyExists") return false;
      throw error;
    }
  }

  /** Stores a new certificate for the same key. @returns False if the Secret has changed since it was loaded. @throws KubeError, KubeUnreachable */
  async renew(name: string, { object }: StoredCa, texts: MaterialTexts): Promise<boolean> {
    const data = { ...object.data as Record<string, string>, ...dataOf(texts) };
    try {
      await this.#api.replace(SECRETS, { namespace: this.#namespace, name }, { ...object, data });
      return true;
    } catch (error) {
      if (error instanceof KubeError && error.status === 409) return false;
      throw error;
    }
  }
}

/** Only a root of our own lies here, so its certificate is the bundle, whatever else the Secret calls one. */
function textsOf(object: KubeObject): MaterialTexts {
  const data = typeof object.data === "object" && object.data !== null ? object.data as Record<string, unknown> : {};
  const text = (name: string) => {
    const value = data[name];
    if (typeof value !== "string" || value.length > TEXT_BYTES_MAX) return "";
    try {
      return new TextDecoder().decode(Uint8Array.fromBase64(value));
    } catch (error) {
      if (error instanceof SyntaxError) return "";
      throw error;
    }
  };
  const cert = text(ISTIO_NAMES.cert);
  return { cert, key: text(ISTIO_NAMES.key), roots: cert, chain: "" };
}

function dataOf({ cert, key }: MaterialTexts): Record<string, string> {
  const base64 = (text: string) => new TextEncoder().encode(text).toBase64();
  return {
    [ISTIO_NAMES.cert]: base64(cert),
    [ISTIO_NAMES.key]: base64(key),
    [ISTIO_NAMES.roots]: base64(cert),
  };
}
