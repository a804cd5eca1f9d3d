/** One node's stream to the control plane: real session and real client, and between them a network that delays and breaks. */
import { Buffer } from "node:buffer";
import { Logger } from "../../base/log.ts";
import { ResponseEncoder } from "../../control/xds/response.ts";
import { DeltaSession, type Outgoing } from "../../control/xds/session.ts";
import type { ResourceChange } from "../../control/xds/resources.ts";
import type { ControlEndpoint } from "../../dataplane/agent/control_channel.ts";
import { XdsClient, type XdsState } from "../../dataplane/agent/xds_client.ts";
import { AUTHORIZATION_TYPE_URL } from "../../mesh/proto/authorization_codec.ts";
import {
  decodeDeltaDiscoveryRequest,
  decodeDeltaDiscoveryResponse,
  type DeltaDiscoveryRequest,
} from "../../mesh/proto/discovery_codec.ts";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { hold } from "./chance.ts";
import type { SimControl } from "./control.ts";
import { ControlBooks } from "./control_books.ts";
import type { SimNode } from "./node.ts";

const POISON = 0xee;
/** Of no use here: the stream is handed in. */
const ENDPOINT: ControlEndpoint = {
  address: "https://istiod:15012",
  alternativeHostname: "",
  tls12: false,
  clusterId: "",
  roots: { kind: "system" },
  token: { kind: "none" },
  headers: {},
};

/** A stream while it stands. */
interface Stream {
  readonly session: DeltaSession;
  /** When the last message of each direction arrives: what is sent later arrives later. */
  toServerMs: number;
  toClientMs: number;
  /** Messages on their way. */
  flying: number;
  writing: boolean;
}

/** What a test of the simulation changes on the way. */
export interface LinkSabotage {
  readonly request?: (request: DeltaDiscoveryRequest) => DeltaDiscoveryRequest;
  readonly outgoing?: (outgoing: Outgoing) => Outgoing;
  readonly losesPush?: () => boolean;
  readonly state?: (state: XdsState, node: SimNode) => XdsState;
}

export class ControlLink {
  readonly node: SimNode;
  /** What came about, for the summary. */
  readonly counts = { streams: 0, responses: 0, refused: 0, removed: 0 };
  readonly books: ControlBooks;
  sabotage: LinkSabotage = {};
  readonly #control: SimControl;
  readonly #client: XdsClient;
  readonly #encoder = new ResponseEncoder("{}");
  #stream: Stream | undefined;
  /** Requests that the client has sent since it was last looked at. */
  readonly #sent: DeltaDiscoveryRequest[] = [];

  constructor(control: SimControl, node: SimNode) {
    this.#control = control;
    this.node = node;
    this.books = new ControlBooks(node.state);
    this.#client = new XdsClient({
      endpoint: ENDPOINT,
      node: { id: `node${node.options.index}`, metadata: {} },
      state: {
        apply: (...message) => (this.sabotage.state?.(applierOf(node), node) ?? applierOf(node)).apply(...message),
      },
      onDemand: false,
      log: new Logger("xds", { sink: () => {} }),
    });
  }

  /** Nothing is on its way, and nothing waits to be. */
  get idle(): boolean {
    const stream = this.#stream;
    return stream !== undefined && stream.flying === 0 && !stream.writing &&
      stream.session.status().every((watch) => watch.waiting === 0) && !stream.session.someUnsettled(() => true);
  }

  waitingOf(typeUrl: string): number {
    return this.#stream?.session.status().find((watch) => watch.typeUrl === typeUrl)?.waiting ?? 0;
  }

  /** Opens a stream, or tries again later. */
  connect(): void {
    const { kernel } = this.#control;
    if (this.node.stopped || this.#stream !== undefined) return;
    if (this.#control.down) return kernel.after(kernel.chance.between(10, 200), () => this.connect());
    const stream: Stream = this.#stream = {
      session: new DeltaSession({
        view: this.#control.served,
        nextNonce: () => this.#control.nextNonce(),
        node: `node${this.node.options.index}`,
        enforces: true,
        gathering: () => this.#control.gathering(AUTHORIZATION_TYPE_URL),
        responseBytesMax: this.#control.responseBytesMax,
      }),
      toServerMs: 0,
      toClientMs: 0,
      flying: 0,
      writing: false,
    };
    this.counts.streams++;
    this.#client.begin({ write: (bytes) => this.#upstream(stream, bytes) });
    this.books.checkOpening(this.#sent.splice(0));
  }

  /** The stream breaks, with all that is on its way; the client notices, and comes again. */
  lose(): void {
    if (this.#stream === undefined) return;
    this.#stream = undefined;
    this.#client.end();
    const { kernel } = this.#control;
    kernel.after(kernel.chance.between(0, 300), () => this.connect());
  }

  push(changes: readonly ResourceChange[]): void {
    const stream = this.#stream;
    if (stream === undefined) return;
    for (const change of changes) if (!this.sabotage.losesPush?.()) stream.session.push(change);
    this.#pump(stream);
  }

  #upstream(stream: Stream, bytes: Uint8Array): void {
    const sent = decodeDeltaDiscoveryRequest(bytes), request = this.sabotage.request?.(sent) ?? sent;
    this.#sent.push(request);
    stream.toServerMs = this.#fly(stream, stream.toServerMs, () => {
      stream.session.receive(request);
      this.#pump(stream);
    });
  }

  /** As the service does it: one write at a time, and what is next the session knows. */
  #pump(stream: Stream): void {
    if (stream.writing || stream !== this.#stream) return;
    const next = stream.session.next();
    if (next === undefined) return;
    const outgoing = this.sabotage.outgoing?.(next) ?? next;
    const said = next.typeUrl === AUTHORIZATION_TYPE_URL ? this.#control.saidBy(this, next.answers) : undefined;
    const bytes = Buffer.concat(this.#encoder.encode(outgoing, "").parts);
    stream.writing = true;
    const { kernel } = this.#control;
    kernel.after(kernel.chance.below(2), () => {
      stream.writing = false;
      this.#pump(stream);
    });
    stream.toClientMs = this.#fly(stream, stream.toClientMs, () => this.#downstream(bytes, said));
  }

  #downstream(bytes: Uint8Array, said: number | undefined): void {
    if (this.node.stopped) return;
    const response = decodeDeltaDiscoveryResponse(bytes), lent = Buffer.from(bytes);
    const expected = this.books.expect(response, this.#control);
    this.counts.responses++;
    this.counts.refused += expected.length;
    this.counts.removed += response.removedResources.length;
    this.#client.receive(lent);
    lent.fill(POISON); // What came was lent for the call.
    this.books.check(this.#sent.splice(0), response, expected);
    if (response.typeUrl === AUTHORIZATION_TYPE_URL) this.node.policies = this.books.facts();
    if (said !== undefined) this.node.policyVersion = Math.max(this.node.policyVersion, said);
  }

  /** Brings something to the other end, in order. @returns When. */
  #fly(stream: Stream, notBeforeMs: number, arrive: () => void): number {
    const { kernel } = this.#control;
    const atMs = Math.max(notBeforeMs, kernel.nowMs + kernel.chance.below(this.#control.delayMsMax + 1));
    stream.flying++;
    kernel.at(atMs, () => {
      stream.flying--;
      if (stream === this.#stream) arrive();
    });
    return atMs;
  }
}

/** As the agent of ztunnel applies what comes. */
function applierOf(node: SimNode): XdsState {
  return {
    apply(typeUrl, resources, removed) {
      hold(typeUrl === ADDRESS_TYPE_URL || typeUrl === AUTHORIZATION_TYPE_URL, "only types that were asked for come");
      if (typeUrl === AUTHORIZATION_TYPE_URL) return { rejected: node.state.applyPolicies(resources, removed) };
      return { rejected: node.state.applyAddresses(resources, removed).rejections };
    },
  };
}
