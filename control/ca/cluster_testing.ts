/** For tests of callers: an API server's answers about tokens and pods, said by the test, with every question counted. */
import { Buffer } from "node:buffer";
import type { KubeApi, KubeObject, ListPage, ObjectPlace, ResourceType, Scope } from "../../kube/api.ts";
import { NO_META } from "../decode/no_meta.ts";
import type { PodObject } from "../objects.ts";
import type { Credentials } from "./caller.ts";

/** A text of a JWT's form whose claims are these; its signature is worth nothing. */
export function jwt(claims: object): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "RS256" })}.${part(claims)}.c2ln`;
}

export function bearer(token: string, part: Partial<Credentials> = {}): Credentials {
  return {
    certificateUris: undefined,
    certificateChain: [],
    authorization: [`Bearer ${token}`],
    clusterId: [],
    forwardedCertificate: [],
    peerAddress: "10.0.0.9",
    ...part,
  };
}

/** What an API server says of a good token of a pod. */
export function goodReview(
  { namespace = "istio-system", account = "ztunnel", pod = "ztunnel-1", uid = "uid-ztunnel-1" } = {},
): Record<string, unknown> {
  return {
    authenticated: true,
    audiences: ["istio-ca"],
    user: {
      username: `system:serviceaccount:${namespace}:${account}`,
      groups: ["system:serviceaccounts", `system:serviceaccounts:${namespace}`, "system:authenticated"],
      extra: {
        "authentication.kubernetes.io/pod-name": [pod],
        "authentication.kubernetes.io/pod-uid": [uid],
      },
    },
  };
}

/** A pod as the decoder would give it. */
export function podOn(node: string, namespace: string, account: string, part: { name?: string; uid?: string } = {}) {
  const name = part.name ?? `${account}-1`;
  return podObjectOf(manifestOf({ node, namespace, account, name, uid: part.uid ?? `uid-${name}` }));
}

function manifestOf(
  { node, namespace, account, name, uid }: Record<"node" | "namespace" | "account" | "name" | "uid", string>,
): KubeObject {
  return {
    metadata: { namespace, name, uid },
    spec: { serviceAccountName: account, nodeName: node, containers: [] },
    status: { phase: "Running" },
  };
}

function podObjectOf({ metadata, spec }: KubeObject): PodObject {
  const { serviceAccountName, nodeName } = spec as { serviceAccountName: string; nodeName: string };
  return {
    kind: "Pod",
    meta: { ...NO_META, name: metadata.name, namespace: metadata.namespace!, uid: metadata.uid! },
    serviceAccountName,
    nodeName,
    hostNetwork: false,
    containerPorts: [],
    phase: "Running",
    podIps: [],
    ready: "true",
  };
}

export class QuestionedApi implements KubeApi {
  /** TokenReview's status by token; another token is refused. May be a function that throws, or waits. */
  readonly reviews = new Map<string, unknown>();
  /** What each call for a review carried. */
  readonly asked: { token: string; audiences: readonly string[] }[] = [];
  /** Names of the calls for pods. */
  readonly podCalls: string[] = [];
  pods: KubeObject[] = [];
  /** Thrown by calls for pods while it is set. */
  failure: Error | undefined;
  /** Awaited by every call. */
  gate: Promise<void> = Promise.resolve();

  addPod(node: string, namespace: string, account: string, { name = `${account}-1` } = {}): void {
    this.pods.push(manifestOf({ node, namespace, account, name, uid: `uid-${name}` }));
  }

  async create(_type: ResourceType, _namespace: string, object: object): Promise<KubeObject> {
    const { spec } = object as { spec: { token: string; audiences: readonly string[] } };
    this.asked.push(spec);
    await this.gate;
    const said = this.reviews.get(spec.token);
    const status = typeof said === "function" ? await said() : said ?? { error: "invalid bearer token" };
    return { kind: "TokenReview", metadata: { name: "" }, status };
  }

  async get(_type: ResourceType, { namespace, name }: ObjectPlace): Promise<KubeObject | undefined> {
    this.podCalls.push(`get ${namespace}/${name}`);
    await this.gate;
    if (this.failure !== undefined) throw this.failure;
    return this.pods.find(({ metadata }) => metadata.namespace === namespace && metadata.name === name);
  }

  async list(_type: ResourceType, { fieldSelector }: Scope): Promise<ListPage> {
    this.podCalls.push(`list ${fieldSelector}`);
    await this.gate;
    if (this.failure !== undefined) throw this.failure;
    return { items: this.pods, resourceVersion: "1", continueToken: "" }; // More than was asked for: it is not believed.
  }

  watch(): never {
    throw new Error("not asked of here");
  }
  replace = this.watch;
  apply = this.watch;
  patch = this.watch;
  delete = this.watch;
}
