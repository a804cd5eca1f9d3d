/** Pods asked of the API server itself, for what an informer may not know yet (CP-483): bounded, and one question for all who ask. */
import type { Plain } from "../../base/plain.ts";
import type { KubeApi, KubeObject } from "../../kube/api.ts";
import { PODS } from "../../kube/resource_types.ts";
import { Field, FieldRefusal } from "../decode/field.ts";
import { decodeObject, identify } from "../decode/kinds.ts";
import type { PodObject } from "../objects.ts";

const PAGE_PODS = 500;
const PODS_PER_NODE_MAX = 4_000; // kubelets take 110 pods unless told otherwise
const OPEN_MAX = 32;

/** Questions about the pods of one cluster. Its calls throw KubeError or KubeUnreachable, and give "busy" past their bound. */
export class LivePods {
  readonly #api: KubeApi;
  readonly #open = new Map<string, Promise<unknown>>();

  constructor(api: KubeApi) {
    this.#api = api;
  }

  named(namespace: string, name: string): Promise<PodObject | undefined | "busy"> {
    return this.#once(`pod/${namespace}/${name}`, async () => {
      const object = await this.#api.get(PODS, { namespace, name });
      return object === undefined ? undefined : podOf(object);
    });
  }

  /** The pods bound to a node. */
  onNode(node: string): Promise<readonly PodObject[] | "busy"> {
    return this.#once(`node/${node}`, async () => {
      const pods: PodObject[] = [];
      let continueToken = "";
      do {
        const page = await this.#api.list(PODS, { fieldSelector: `spec.nodeName=${node}` }, {
          limit: PAGE_PODS,
          ...(continueToken === "" ? {} : { continueToken }),
        });
        for (const object of page.items) {
          const pod = podOf(object);
          if (pod?.nodeName === node) pods.push(pod); // The selector said so; a certificate hangs on it.
        }
        continueToken = page.continueToken;
      } while (continueToken !== "" && pods.length < PODS_PER_NODE_MAX);
      return pods;
    });
  }

  #once<T>(key: string, ask: () => Promise<T>): Promise<T | "busy"> {
    const open = this.#open.get(key) as Promise<T> | undefined; // Each key stands for one kind of answer.
    if (open !== undefined) return open;
    if (this.#open.size >= OPEN_MAX) return Promise.resolve("busy");
    const asked = ask().finally(() => this.#open.delete(key));
    this.#open.set(key, asked);
    return asked;
  }
}

/** @returns undefined if it cannot be read: then it runs nothing. */
function podOf(object: KubeObject): PodObject | undefined {
  const root = new Field(object as unknown as Plain);
  try {
    const pod = decodeObject(root, identify(root, "Pod"));
    return pod.kind === "Pod" ? pod : undefined;
  } catch (error) {
    if (error instanceof FieldRefusal) return undefined;
    throw error;
  }
}
