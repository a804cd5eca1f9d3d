/** An ADS client of ours, and a stream driven by hand, for tests against the control plane. */
import { Buffer } from "node:buffer";
import * as grpc from "@grpc/grpc-js";
import { Logger } from "../../base/log.ts";
import type { Resource } from "../../control/xds/resources.ts";
import {
  type ReceivedResource,
  type TerminationReason,
  XdsClient,
  type XdsClientOptions,
  type XdsState,
} from "../../dataplane/agent/xds_client.ts";
import {
  decodeDeltaDiscoveryResponse,
  type DeltaDiscoveryRequest,
  type DeltaDiscoveryResponse,
  encodeDeltaDiscoveryRequest,
} from "../../mesh/proto/discovery_codec.ts";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { ADS_METHOD, type ControlRig, raw, until } from "./control_rig.ts";

export const NODE = { id: "ztunnel~10.0.0.1~ztunnel-1.istio-system~istio-system.svc.cluster.local", metadata: {} };

/** A gRPC channel that failed keeps a back-off timer for a while after it was closed. */
export const FAILING = { sanitizeOps: false, sanitizeResources: false };

export function resource(name: string, version: string, size = 20, aliases: string[] = []): Resource {
  return { name, version, aliases, bytes: new Uint8Array(size).fill(version.charCodeAt(0)) };
}

/** Keeps what it is given; refuses resources whose body is `bad`. */
export class RecordingState implements XdsState {
  readonly held = new Map<string, Uint8Array>();
  readonly log: string[] = [];
  refuse = new Set<string>();

  apply(typeUrl: string, resources: readonly ReceivedResource[], removed: readonly string[]) {
    const type = typeUrl === ADDRESS_TYPE_URL ? "address" : "policy";
    const rejected = [];
    for (const { name, bytes } of resources) {
      if (this.refuse.has(name)) rejected.push({ name, reason: "made to fail" });
      else this.held.set(`${type}/${name}`, bytes.slice());
    }
    for (const name of removed) this.held.delete(`${type}/${name}`);
    const names = resources.map(({ name, version }) => `${name}@${version}`);
    this.log.push(`${type} [${names.length > 9 ? names.length : names.join(" ")}] -[${removed.join(" ")}]`);
    return { rejected };
  }
}

export class ClientRig implements AsyncDisposable {
  readonly state = new RecordingState();
  readonly terminations: TerminationReason[] = [];
  readonly lines: string[] = [];
  readonly client: XdsClient;
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;

  constructor(rig: ControlRig, token: string, onDemand = false, limits: Partial<XdsClientOptions> = {}) {
    this.client = new XdsClient({
      endpoint: rig.endpoint(token),
      node: NODE,
      state: this.state,
      onDemand,
      log: new Logger("client", { sink: (line) => this.lines.push(line) }),
      onTermination: (reason) => this.terminations.push(reason),
      ...limits,
    });
    this.#done = this.client.run({ signal: this.#stop.signal });
  }

  /** Waits for the first state. @throws Error with the client's log at the deadline. */
  async ready(): Promise<void> {
    let reached = false;
    this.client.ready.then(() => reached = true);
    try {
      await until(() => reached, "the first state");
    } catch (cause) {
      throw new Error(this.lines.join("\n"), { cause });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }
}

/** A stream driven by hand. */
export class Stream implements Disposable {
  readonly responses: DeltaDiscoveryResponse[] = [];
  readonly client: grpc.Client;
  readonly call: grpc.ClientDuplexStream<Buffer, Buffer>;
  ended: grpc.StatusObject | undefined;

  constructor(client: grpc.Client, metadata: grpc.Metadata, { reading = true } = {}) {
    this.client = client;
    this.call = client.makeBidiStreamRequest(ADS_METHOD, raw, raw, metadata);
    if (reading) this.read();
    this.call.on("error", () => {}); // Told again as the status.
    this.call.on("status", (status) => this.ended = status);
  }

  read(): void {
    this.call.on("data", (bytes: Buffer) => {
      const response = decodeDeltaDiscoveryResponse(bytes);
      this.responses.push(response);
      this.send({ typeUrl: response.typeUrl, responseNonce: response.nonce });
    });
  }

  send(part: Partial<DeltaDiscoveryRequest>): void {
    const bytes = encodeDeltaDiscoveryRequest({
      typeUrl: ADDRESS_TYPE_URL,
      resourceNamesSubscribe: [],
      resourceNamesUnsubscribe: [],
      initialResourceVersions: new Map(),
      responseNonce: "",
      ...part,
    });
    this.call.write(Buffer.from(bytes));
  }

  [Symbol.dispose](): void {
    this.call.cancel();
    this.client.close();
  }
}
