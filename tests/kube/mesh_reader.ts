/** What a control plane tells a node's proxy, kept up as a proxy keeps it: a delta ADS stream that acknowledges everything. */
import { Buffer } from "node:buffer";
import * as grpc from "@grpc/grpc-js";
import { describeResource } from "../../control/ambient/testing.ts";
import { connectChannel } from "../../dataplane/agent/control_channel.ts";
import { AUTHORIZATION_TYPE_URL } from "../../mesh/proto/authorization_codec.ts";
import {
  decodeDeltaDiscoveryResponse,
  type DiscoveryResource,
  encodeDeltaDiscoveryRequest,
} from "../../mesh/proto/discovery_codec.ts";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { until } from "./until.ts";

const METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const TYPES = [AUTHORIZATION_TYPE_URL, ADDRESS_TYPE_URL] as const;
const DEADLINE_MS = 120_000;
const QUIET_MS = 1_000; // More than a debounce of a change that comes alone.
const raw = (bytes: Buffer): Buffer => bytes;

export interface ReaderOptions {
  /** HOST:PORT. */
  readonly address: string;
  readonly rootsPem: string;
  readonly token: string;
  readonly clusterId?: string;
  /** A proxy's own unless they are said. */
  readonly pings?: { readonly intervalMs: number; readonly timeoutMs: number };
}

/** A connection of its own, with what every call on it says. @throws MeshError AMB0301 */
export async function openChannel({ address, rootsPem, token, clusterId = "Kubernetes", pings }: ReaderOptions) {
  const client = await connectChannel({
    address: `https://${address}`,
    roots: { kind: "pem", pem: rootsPem },
    token: { kind: "none" },
    clusterId,
    alternativeHostname: "",
    tls12: false,
    headers: {},
    pings,
  }, rootsPem);
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${token}`);
  metadata.set("clusterid", clusterId);
  return { client, metadata, [Symbol.dispose]: () => client.close() };
}

/** An open stream, and what it has brought. */
export class MeshReader implements Disposable {
  /** By type and name. */
  readonly held = new Map<string, DiscoveryResource>();
  /** Why the stream ended, if it has. */
  ended: string | undefined;
  /** How many messages have come. */
  messages = 0;
  readonly #client: grpc.Client;
  readonly #call: grpc.ClientDuplexStream<Buffer, Buffer>;
  readonly #waiting = new Set<string>(TYPES);

  private constructor(client: grpc.Client, metadata: grpc.Metadata, clusterId: string) {
    this.#client = client;
    this.#call = client.makeBidiStreamRequest(METHOD, raw, raw, metadata);
    this.#call.on("data", (bytes: Buffer) => this.#take(bytes));
    this.#call.on("error", (error: Error) => this.ended ??= error.message);
    this.#call.on("end", () => this.ended ??= "closed");
    const node = {
      id: "ztunnel~10.0.0.1~ztunnel-1.istio-system~istio-system.svc.cluster.local",
      metadata: { NAMESPACE: "istio-system", SERVICE_ACCOUNT: "ztunnel", CLUSTER_ID: clusterId, NODE_NAME: "node-1" },
    };
    for (const typeUrl of TYPES) this.#send(typeUrl, { resourceNamesSubscribe: ["*"], node });
  }

  /** Connects, and waits for the first state. @throws Error if it is refused. */
  static async open(options: ReaderOptions): Promise<MeshReader> {
    const { client, metadata } = await openChannel(options);
    const reader = new MeshReader(client, metadata, options.clusterId ?? "Kubernetes");
    await until(() => reader.#waiting.size === 0 || reader.ended !== undefined, "the first state", DEADLINE_MS);
    if (reader.ended === undefined) return reader;
    reader[Symbol.dispose]();
    throw new Error(`the stream was refused: ${reader.ended}`);
  }

  /** Names of what is held, in order. */
  names(typeUrl: string = ADDRESS_TYPE_URL): string[] {
    return [...this.held.keys()].flatMap((key) => key.startsWith(`${typeUrl} `) ? key.slice(typeUrl.length + 1) : [])
      .sort();
  }

  /** A held resource field by field; undefined if it is not held. */
  get(name: string, typeUrl: string = ADDRESS_TYPE_URL): ReturnType<typeof describeResource> | undefined {
    const resource = this.held.get(`${typeUrl} ${name}`);
    return resource && describeResource(typeUrl, resource);
  }

  /** Everything as text, or what is `wanted` by name: a block for each resource, a line for each field. */
  print(wanted: (name: string) => boolean = () => true): string {
    const lines: string[] = [];
    for (const typeUrl of TYPES) {
      for (const name of this.names(typeUrl).filter(wanted)) {
        const { aliases } = this.held.get(`${typeUrl} ${name}`)!;
        lines.push(`${typeUrl.split(".").at(-1)} ${name}`);
        if (aliases.length > 0) lines.push(`  aliases: ${aliases.toSorted().join(" ")}`);
        for (const [field, value] of Object.entries(this.get(name, typeUrl)!)) {
          lines.push(`  ${field}: ${typeof value === "string" ? value : JSON.stringify(value)}`);
        }
      }
    }
    return `${lines.join("\n")}\n`;
  }

  /** Waits until nothing has come for a while. */
  async settled(): Promise<void> {
    for (let seen = -1; seen !== this.messages;) {
      seen = this.messages;
      await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
    }
  }

  /** Waits until it holds. @throws Error with what is held instead. */
  async until(condition: () => boolean, what: string, ms = DEADLINE_MS): Promise<void> {
    try {
      await until(condition, what, ms);
    } catch (cause) {
      throw new Error(`${this.ended ?? "the stream stands"}; held:\n${this.print()}`, { cause });
    }
  }

  #send(
    typeUrl: string,
    more: {
      node?: Parameters<typeof encodeDeltaDiscoveryRequest>[0]["node"];
      resourceNamesSubscribe?: string[];
      responseNonce?: string;
    },
  ): void {
    const empty = { resourceNamesSubscribe: [], resourceNamesUnsubscribe: [], responseNonce: "" };
    const request = { typeUrl, initialResourceVersions: new Map<string, string>(), ...empty, ...more };
    this.#call.write(Buffer.from(encodeDeltaDiscoveryRequest(request)));
  }

  #take(bytes: Buffer): void {
    const { typeUrl, nonce, resources, removedResources } = decodeDeltaDiscoveryResponse(bytes);
    for (const resource of resources) {
      this.held.set(`${typeUrl} ${resource.name}`, { ...resource, bytes: resource.bytes.slice() });
    }
    for (const name of removedResources) this.held.delete(`${typeUrl} ${name}`);
    this.messages++;
    this.#waiting.delete(typeUrl);
    this.#send(typeUrl, { responseNonce: nonce });
  }

  [Symbol.dispose](): void {
    this.#call.cancel();
    this.#client.close();
  }
}
