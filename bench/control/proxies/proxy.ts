/** One simulated proxy: a delta ADS stream as a node's ztunnel opens it, which acknowledges all and notes what arrives when. */
import { Buffer } from "node:buffer";
import * as grpc from "@grpc/grpc-js";
import { connectChannel } from "../../../dataplane/agent/control_channel.ts";
import { AUTHORIZATION_TYPE_URL } from "../../../mesh/proto/authorization_codec.ts";
import { decodeDeltaDiscoveryResponse, encodeDeltaDiscoveryRequest } from "../../../mesh/proto/discovery_codec.ts";
import { ADDRESS_TYPE_URL } from "../../../mesh/proto/workload_codec.ts";
import { type Endpoint, nowMs } from "./messages.ts";

const METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const TYPES = [ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL];
const POD = /\/\/Pod\/[^/]+\/(pod-\d+)$/;
const AGAIN_MS = 250;
const raw = (bytes: Buffer): Buffer => bytes;

/** A channel to a control plane, one connection of its own. */
export function openChannel({ address, rootsPem }: Endpoint): Promise<grpc.Client> {
  return connectChannel({
    address: `https://${address}`,
    roots: { kind: "pem", pem: rootsPem },
    token: { kind: "none" },
    clusterId: "Kubernetes",
    alternativeHostname: "",
    tls12: false,
    headers: {},
  }, rootsPem);
}

export function callHeaders({ token }: Endpoint): grpc.Metadata {
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${token}`);
  metadata.set("clusterid", "Kubernetes");
  return metadata;
}

export class Proxy {
  /** When each pod was first told of, by name. */
  readonly arrivedAtMs = new Map<string, number>();
  resources = 0;
  bytes = 0;
  /** Why its last stream ended, if one did. It has come again then, as real ones do. */
  ended: string | undefined;
  readonly #waiting = new Set(TYPES);
  readonly #synced = Promise.withResolvers<number>();
  #call: grpc.ClientDuplexStream<Buffer, Buffer> | undefined;
  #again = async () => {};

  /** Connects. @returns When the whole mesh was here; from then on a stream that ends is followed by another. */
  async connect(endpoint: Endpoint, number: number): Promise<number> {
    await this.#open(endpoint, number);
    const atMs = await this.#synced.promise;
    this.#again = async () => {
      for (const typeUrl of TYPES) this.#waiting.add(typeUrl);
      await this.#open(endpoint, number);
    };
    return atMs;
  }

  async #open(endpoint: Endpoint, number: number): Promise<void> {
    const client = await openChannel(endpoint),
      call = client.makeBidiStreamRequest(METHOD, raw, raw, callHeaders(endpoint));
    this.#call = call;
    call.on("data", (bytes: Buffer) => this.#take(bytes));
    call.on("error", (error: Error) => this.#end(call, error.message));
    call.on("end", () => this.#end(call, "the stream was closed"));
    const pod = `ztunnel-${number}`;
    const node = {
      id: `ztunnel~10.0.0.${number % 250}~${pod}.istio-system~istio-system.svc.cluster.local`,
      metadata: {
        NAME: pod,
        NAMESPACE: "istio-system",
        SERVICE_ACCOUNT: "ztunnel",
        NODE_NAME: endpoint.node,
        CLUSTER_ID: "Kubernetes",
      },
    };
    for (const [at, typeUrl] of TYPES.entries()) this.#send(typeUrl, "", at === 0 ? node : undefined, ["*"]);
  }

  #send(
    typeUrl: string,
    responseNonce: string,
    node?: { id: string; metadata: Record<string, string> },
    resourceNamesSubscribe: readonly string[] = [],
  ): void {
    const bytes = encodeDeltaDiscoveryRequest({
      node,
      typeUrl,
      resourceNamesSubscribe,
      resourceNamesUnsubscribe: [],
      initialResourceVersions: new Map(),
      responseNonce,
    });
    this.#call?.write(Buffer.from(bytes));
  }

  #take(bytes: Buffer): void {
    const atMs = nowMs(), { resources, typeUrl, nonce } = decodeDeltaDiscoveryResponse(bytes);
    this.#send(typeUrl, nonce);
    this.resources += resources.length;
    this.bytes += bytes.length;
    if (this.#waiting.delete(typeUrl)) {
      if (this.#waiting.size === 0) this.#synced.resolve(atMs);
      return; // What was there before is no change.
    }
    for (const { name } of resources) {
      const pod = POD.exec(name)?.[1];
      if (pod !== undefined && !this.arrivedAtMs.has(pod)) this.arrivedAtMs.set(pod, atMs);
    }
  }

  #end(call: grpc.ClientDuplexStream<Buffer, Buffer>, why: string): void {
    if (call !== this.#call) return; // Told twice.
    this.#call = undefined;
    this.ended = why;
    this.#synced.reject(new Error(why));
    setTimeout(() => void this.#again().catch((error) => this.ended = String(error)), AGAIN_MS);
  }
}
