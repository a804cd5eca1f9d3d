/** One run: a mesh drawn from a seed, its applications at work, faults among them, and what must hold all the time. */
import { Successions } from "./successions.ts";
import { ADDRESS_TYPE_URL, encodeServiceAddress, encodeWorkloadAddress } from "../../mesh/proto/workload_codec.ts";
import { ipv4, serviceOf, workloadOf } from "../../dataplane/tables/testing.ts";
import { Chance, hold, Trace } from "./chance.ts";
import { SimControl } from "./control.ts";
import type { LinkSabotage } from "./control_link.ts";
import { checkConverged } from "./convergence.ts";
import {
  End,
  Exchange,
  holdsMark,
  type Manners,
  PREAMBLE_BYTES,
  ServerApp,
  type SimPod,
  uidOf,
  uriOf,
} from "./exchange.ts";
import { Faults, over } from "./faults.ts";
import { Kernel, Port } from "./kernel.ts";
import { MEMORY_BYTES_MAX, SimNode } from "./node.ts";
import { isAllowed, type PolicyFact } from "./policies.ts";
import type { Sabotage } from "./sim_os.ts";
import { Remote } from "./remote.ts";
import { restartSerials, SimSocket } from "./stream.ts";

const APP_PORT = 8080, SERVICE_PORT = 80;
/** The node of pods that no proxy knows. */
export const OUTSIDE = 9;
const SERVICE_IP = ipv4(0x0a600001), NOBODY_IP = ipv4(0x0a090909);
const ROUNDS_MAX = 260, STILL_ROUNDS_MAX = 1_200, LEAVE_ROUNDS_MAX = 300, CONVERGE_ROUNDS_MAX = 300, IDLE_SECONDS = 340;
export const GOOD_ROOT = 1, OTHER_ROOT = 2;

/** Mistakes that a test of the simulation itself puts in, to see that they are noticed. */
export interface Mutation extends Sabotage {
  readonly onWire?: (socket: SimSocket, bytes: Uint8Array) => void;
  /** What the oracle believes instead. */
  readonly isAllowed?: (policies: readonly PolicyFact[], client: SimPod, server: SimPod) => boolean;
  /** Changes what goes between the control plane and a node. */
  readonly link?: () => LinkSabotage;
  /** Changes the workers before they start. */
  readonly prepare?: (world: World) => void;
}

/** What may end whatever it concerns. */
interface Hazard {
  readonly reason: string;
  readonly untilMs: number;
  readonly concerned: (exchange: Exchange) => boolean;
}

export interface Outcome {
  readonly hash: number;
  readonly exchanges: number;
  readonly excused: number;
  readonly bytes: number;
  readonly rounds: number;
  /** Exchanges that reached their server through a gateway. */
  readonly remote: number;
  /** Of all nodes' streams to the control plane. */
  readonly streams: number;
  readonly responses: number;
  readonly refused: number;
  readonly removed: number;
  readonly handedOver: number;
}

export class World {
  readonly chance: Chance;
  readonly kernel: Kernel;
  readonly control: SimControl;
  readonly trace: Trace;
  readonly nodes: SimNode[] = [];
  readonly pods: SimPod[] = [];
  readonly exchanges: Exchange[] = [];
  readonly servers = new Map<SimPod, ServerApp>();
  readonly faults: Faults;
  #remote: Remote | undefined = undefined;
  /** Every third seed has another network; the worlds of the others are as they were without. */
  readonly #gateway: boolean;
  readonly policies = new Map<string, PolicyFact>();
  readonly #endpoints: SimPod[] = [];
  readonly #mutation: Mutation | undefined;
  /** What the control plane has said, one after the other. */
  readonly policyVersions: (readonly PolicyFact[])[] = [[]];
  hostileUntilMs = 0;
  readonly #hazards: Hazard[] = [];
  /** Some streams are longer than windows and buffers together. */
  readonly #bulk: boolean;
  #rounds = 0;
  readonly successions: Successions;
  churned = new Set<SimPod>();
  readonly #byApplication = new Map<SimSocket, Exchange>();
  readonly live: Exchange[] = [];

  constructor(seed: number, options: { trace?: Trace; mutation?: Mutation } = {}) {
    restartSerials();
    this.#gateway = seed % 3 === 2;
    this.successions = new Successions(seed);
    const chance = this.chance = new Chance(seed);
    this.trace = options.trace ?? new Trace();
    this.#mutation = options.mutation;
    this.kernel = new Kernel(chance, this.trace);
    this.control = new SimControl(this.kernel);
    this.faults = new Faults(this);
    this.kernel.contraryPercent = chance.pick([0, 1, 5, 20]);
    this.kernel.latencyMsMax = chance.pick([0, 2, 10, 40]);
    this.kernel.bufferSizes = chance.pick([[300, 2_000], [4_096, 65_536], [262_144], [1_048_576], [
      700,
      9_000,
      262_144,
    ]]);
    this.#bulk = chance.often(1.5);
    if (this.#bulk) this.kernel.bufferSizes = [400_000];
    this.kernel.onWire = (socket, bytes) => this.#onWire(socket, bytes);
    this.#build();
  }

  // ---- the mesh

  #build(): void {
    const { chance, kernel } = this, nodeCount = chance.between(1, 3);
    for (let index = 0; index < nodeCount; index++) {
      this.nodes.push(
        new SimNode(kernel, {
          index,
          workers: chance.between(1, 2),
          home: kernel.addNamespace(ipv4(0xc0a80001 + index), index, `node${index}`),
          streamsPerSessionMax: chance.pick([1, 2, 5, 100]),
          recordsPerKey: chance.pick([2, 7, 100, 1 << 20]),
          transparent: chance.often(70),
          connections: this.faults.dangers.smallTables ? chance.between(2, 6) : 200,
          memoryBytes: chance.often(30) ? 12 << 20 : MEMORY_BYTES_MAX,
          oneStage: chance.often(15),
          reportsOpened: chance.often(30),
        }),
      );
    }
    for (const node of this.nodes) {
      for (const worker of node.workers) {
        worker.os.onSend = (socket) => this.#checkPolicy(node, worker.settled, worker.generation, socket);
        worker.os.sabotage = this.#mutation ?? {};
      }
    }
    this.#mutation?.prepare?.(this);
    const podCount = chance.between(2, 6);
    for (let number = 0; number < podCount; number++) {
      const kind = number < 2 ? 0 : chance.below(6), node = kind === 5 ? OUTSIDE : chance.below(nodeCount);
      this.#addPod(number, node, kind < 4, kind < 5);
    }
    this.#endpoints.push(...this.pods.filter((pod) => pod.enrolled && chance.often(60)));
    const service = serviceOf("default", "shop.default.svc", {
      addresses: [{ network: "", ip: SERVICE_IP }],
      ports: [{ servicePort: SERVICE_PORT, targetPort: APP_PORT }],
    });
    this.control.put(ADDRESS_TYPE_URL, "default/shop.default.svc", encodeServiceAddress(service));
    for (const pod of this.pods) if (pod.known) this.putWorkload(pod);
    if (this.#endpoints.length > 0 && this.#gateway) this.#remote = new Remote(this, this.#endpoints);
    for (const node of this.nodes) {
      const link = this.control.serve(node);
      link.sabotage = this.#mutation?.link?.() ?? {};
      node.told = () => this.control.settledWith(link);
    }
    for (const pod of this.pods) {
      this.#start(pod, this.faults.dangers.lateCertificates && chance.often(50) ? chance.below(3_500) : 0);
    }
    for (let turns = 0; turns < 200 && !this.nodes.every((node) => node.settled); turns++) {
      kernel.pass(1);
      for (const node of this.nodes) {
        node.agentStep();
        for (let worker = 0; worker < node.workers.length; worker++) node.turn(worker);
      }
    }
    hold(this.nodes.every((node) => node.settled), "the mesh is published at the start");
    this.control.delayMsMax = chance.pick([0, 10, 100, 400]);
  }

  #addPod(number: number, node: number, enrolled: boolean, known: boolean): SimPod {
    const ip = ipv4(0x0a000001 + node * 256 + number), namespace = this.kernel.addNamespace(ip, node, `pod${number}`);
    namespace.enrolled = enrolled;
    const ns = this.chance.often(70) ? "default" : "other", name = `pod${number}`;
    const account = this.chance.often(20) ? "sa-shared" : `sa-${name}`;
    const pod = { name, account, ns, ip, node, namespace, enrolled, known, removed: false };
    this.pods.push(pod);
    return pod;
  }

  /** Its application, and if it is enrolled its proxy, whose certificate may come late. */
  #start(pod: SimPod, lateMs: number): void {
    this.servers.set(pod, new ServerApp(pod, APP_PORT));
    if (!pod.enrolled) return;
    const node = this.nodes[pod.node]!, uri = uriOf(pod);
    node.addPod(pod, uri);
    if (lateMs > 500 && this.chance.often(30)) {
      this.later(this.chance.below(lateMs), () => node.giveUpOn(uri));
      this.hazard("nobody signs for a while", lateMs + 5_000, (it) => {
        return [it.client, ...it.targets].some((other) => uriOf(other) === uri);
      });
    }
    this.later(lateMs, () => node.certify(uri, GOOD_ROOT));
  }

  /** One more pod, on a node that may have lost another. */
  enrol(): void {
    const serving = this.nodes.filter((node) => !node.stopped && node.podCount < 8);
    if (serving.length === 0 || this.pods.length > 40) return;
    const pod = this.#addPod(this.pods.length, this.chance.pick(serving).options.index, true, true);
    this.say(`${pod.name} joins node${pod.node}`);
    this.churned.add(pod);
    this.#start(pod, this.chance.below(200));
    this.putWorkload(pod);
  }

  putWorkload(pod: SimPod, change: { readonly capacity?: number } = {}): void {
    const inService = this.#endpoints.includes(pod);
    const workload = workloadOf(uidOf(pod), {
      name: pod.name,
      namespace: pod.ns,
      addresses: [pod.ip],
      tunnelProtocol: pod.enrolled ? 1 : 0,
      serviceAccount: pod.account,
      canonicalName: pod.name,
      node: `node${pod.node}`,
      services: inService
        ? new Map([["default/shop.default.svc", [{ servicePort: SERVICE_PORT, targetPort: APP_PORT }]]])
        : new Map(),
      ...change,
    });
    this.control.put(ADDRESS_TYPE_URL, workload.uid, encodeWorkloadAddress(workload));
  }

  // ---- what applications do

  #openExchange(): void {
    const { chance, kernel } = this, there = this.pods.filter((pod) => !pod.removed);
    const client = chance.pick(there);
    const toService = this.#endpoints.length > 0 && client.enrolled &&
      chance.often(this.#remote === undefined ? 25 : 60);
    const others = there.filter((pod) => pod !== client);
    if (others.length === 0) return;
    const targets = toService ? this.#endpoints : [chance.pick(others)];
    const remote = toService && this.#remote !== undefined && chance.often(75) ? this.#remote : undefined;
    const exchange = new Exchange(this.exchanges.length, client, targets, {
      client: this.#drawManners(),
      server: this.#drawManners(),
    });
    this.exchanges.push(exchange);
    this.live.push(exchange);
    const socket = new SimSocket(kernel, client.namespace, false);
    exchange.clientEnd = new End(exchange, socket, exchange.manners.client, true, 0);
    if (targets.some((pod) => this.churned.has(pod))) this.unsettle(exchange);
    if (this.churned.has(client)) this.unsettle(exchange);
    if (this.faults.dangers.smallTables) exchange.excuse("connections run short");
    if (this.#bulk && this.nodes.some((node) => node.options.memoryBytes < MEMORY_BYTES_MAX)) {
      exchange.excuse("memory runs short");
    }
    if (!this.isAllowedEverywhere(exchange)) exchange.excuse("policy may refuse it");
    for (const { reason, untilMs, concerned } of this.#hazards) {
      if (kernel.nowMs <= untilMs && concerned(exchange)) exchange.excuse(reason);
    }
    remote?.take(exchange);
    const nowhere = chance.often(2);
    if (nowhere) exchange.excuse("nobody is there");
    const to = nowhere
      ? { ip: NOBODY_IP, port: APP_PORT }
      : toService
      ? remote?.address ?? { ip: SERVICE_IP, port: SERVICE_PORT }
      : { ip: targets[0]!.ip, port: APP_PORT };
    this.trace.tell(`${kernel.nowMs} ${exchange.name} opens${remote ? " by gateway" : toService ? " by service" : ""}`);
    const outcome = kernel.connect(socket, to, undefined);
    if (outcome !== -115) {
      exchange.excuse("unreachable");
      socket.fail(-outcome);
    }
  }

  #drawManners(): Manners {
    const { chance } = this, sizes = [0, 1, 700, 5_000, 20_000, 60_000, chance.often(4) ? 800_000 : 100];
    const bulk = this.#bulk && chance.often(15), readsLate = chance.often(bulk ? 70 : 4);
    const sends = PREAMBLE_BYTES + (bulk ? 7_000_000 : chance.below(chance.pick(sizes) + 1));
    return {
      sends,
      pace: bulk ? 65_536 : chance.pick([300, 5_000, 65_536]),
      resetsAfter: chance.often(6) ? chance.below(sends + 1) : -1,
      leaves: chance.often(2),
      readsLate,
    };
  }

  unsettle(exchange: Exchange): void {
    exchange.routeUncertain = true;
    exchange.excuse("the mesh changes under it");
  }

  /** Whether no policy that is in force anywhere, or on its way, may refuse it. */
  isAllowedEverywhere(exchange: Exchange): boolean {
    const applied = Math.min(...this.nodes.map((node) => node.stopped ? Infinity : node.policyVersion));
    const versions = [
      ...this.policyVersions.slice(Math.min(applied, this.policyVersions.length - 1)),
      ...this.nodes.flatMap((node) => [...node.policiesAt.values()]),
    ];
    return versions.every((policies) =>
      exchange.targets.every((server) => !server.enrolled || isAllowed(policies, exchange.client, server))
    );
  }

  excuse(reason: string, concerned: (exchange: Exchange) => boolean): void {
    for (const exchange of this.live) if (concerned(exchange)) exchange.excuse(reason);
  }

  /** As {@link #excuse}, also for what opens until then. */
  hazard(reason: string, forMs: number, concerned: (exchange: Exchange) => boolean): void {
    this.excuse(reason, concerned);
    this.#hazards.push({ reason, untilMs: this.kernel.nowMs + forMs, concerned });
  }

  say(what: string): void {
    this.trace.tell(`${this.kernel.nowMs} ${what}`);
  }

  later(ms: number, run: () => void): void {
    this.kernel.after(ms, run);
  }

  // ---- what must hold

  #onWire(socket: SimSocket, bytes: Uint8Array): void {
    this.#mutation?.onWire?.(socket, bytes);
    const peer = socket.peer!;
    if (!socket.proxy && !peer.proxy) return; // Neither end is ours.
    if (socket.namespace === peer.namespace) return;
    if (socket.servicePort === Port.HBONE) {
      hold(!holdsMark(bytes), "no application's plaintext is seen on an HBONE connection");
      if (
        this.kernel.nowMs < this.hostileUntilMs && this.chance.often(20) &&
        socket.namespace.node !== peer.namespace.node
      ) {
        bytes[this.chance.below(bytes.length)]! ^= 1 << this.chance.below(8);
        // A changed length may keep the session waiting for long.
        this.hazard("its bytes were changed", Infinity, over(socket));
      }
      return;
    }
    const client = this.pods.find((pod) => pod.namespace === socket.namespace);
    const server = this.pods.find((pod) => pod.namespace === peer.namespace);
    if (client === undefined || server === undefined || this.churned.has(client) || this.churned.has(server)) return;
    if (client.removed || server.removed) return;
    hold(!(client.enrolled && server.enrolled), `${client.name} and ${server.name} speak HBONE, and nothing else`);
  }

  /** Before a proxy writes to its application: is the client still let in? */
  #checkPolicy(node: SimNode, settled: number, generation: number, socket: SimSocket): void {
    const peer = socket.peer;
    if (peer === undefined || peer.proxy || peer.namespace !== socket.namespace) return;
    const exchange = this.#byApplication.get(peer);
    if (exchange === undefined || exchange.routeUncertain || exchange.serverEnd === undefined) return;
    const before = node.policiesAt.get(settled), now = node.policiesAt.get(generation);
    if (before === undefined || now === undefined) return;
    const server = exchange.servers[0]!, judge = this.#mutation?.isAllowed ?? isAllowed;
    const refused = !judge(before, exchange.client, server) && !judge(now, exchange.client, server);
    hold(!refused, `${exchange.name}: no byte is delivered once the policy against it is in force`);
  }

  // ---- the run

  run(): Outcome {
    const { chance } = this, rounds = chance.between(60, ROUNDS_MAX), opens = chance.between(3, 30);
    for (this.#rounds = 0; this.#rounds < rounds; this.#rounds++) {
      if (chance.often(100 * opens / rounds)) this.#openExchange();
      this.faults.endanger();
      this.round(chance.pick([0, 0.25, 1, 4, 20, chance.often(5) ? 800 : 3]), false);
    }
    this.#calm();
    this.say("calm");
    let before = -1, still = 0;
    for (let rounds = 0; this.live.length > 0; rounds++) {
      const moved = this.#moved;
      still = moved === before ? still + 1 : 0;
      before = moved;
      hold(still < STILL_ROUNDS_MAX, `all come to an end in calm: ${this.live.map((it) => it.describe()).join(", ")}`);
      this.round(rounds < 100 ? 2 : 50, true);
    }
    for (const exchange of this.exchanges) exchange.check();
    this.#converge();
    if (chance.often(4)) this.#idle();
    this.#leave();
    return {
      hash: this.trace.hash,
      exchanges: this.exchanges.length,
      excused: this.exchanges.filter((it) => it.excused !== "").length,
      bytes: this.exchanges.reduce((sum, it) => sum + it.clientEnd.received + (it.serverEnd?.received ?? 0), 0),
      rounds: this.#rounds,
      remote: this.#remote?.delivered ?? 0,
      handedOver: this.successions.handedOver,
      ...this.#controlCounts(),
    };
  }

  #controlCounts(): Pick<Outcome, "streams" | "responses" | "refused" | "removed"> {
    const total = { streams: 0, responses: 0, refused: 0, removed: 0 };
    for (const { counts } of this.control.links) {
      for (const key of ["streams", "responses", "refused", "removed"] as const) total[key] += counts[key];
    }
    return total;
  }

  /** Grows with everything that an application gets done. */
  get #moved(): number {
    return this.exchanges.reduce((sum, { clientEnd, serverEnd }) => {
      const server = serverEnd === undefined ? 0 : serverEnd.received + serverEnd.sent + (serverEnd.done ? 1 : 0);
      return sum + clientEnd.received + clientEnd.sent + (clientEnd.done ? 1 : 0) + server;
    }, 0);
  }

  round(ms: number, calm: boolean): void {
    const { chance, kernel } = this;
    kernel.pass(ms);
    const turns = this.nodes.flatMap((node) => node.workers.map((_, worker) => ({ node, worker })));
    for (const { node, worker } of chance.shuffle(turns)) if (calm || chance.often(85)) node.turn(worker);
    for (const node of this.nodes) if (calm || chance.often(50)) node.agentStep();
    const arrived = (exchange: Exchange) => {
      if (!this.live.includes(exchange)) this.live.push(exchange); // Its client had left already.
      this.#byApplication.set(exchange.serverEnd!.socket, exchange);
    };
    this.#remote?.step();
    for (const [pod, app] of this.servers) if (!pod.removed) app.step(this.exchanges, chance, arrived);
    for (let at = this.live.length - 1; at >= 0; at--) {
      const exchange = this.live[at]!, server = exchange.serverEnd;
      if (chance.often(70)) exchange.clientEnd.step(chance, calm);
      if (chance.often(70)) server?.step(chance, calm);
      if (exchange.done && (server !== undefined || this.#cannotArrive(exchange, calm))) this.live.splice(at, 1);
    }
  }

  /** The client has ended and no server end will come for it, or it does not matter. */
  #cannotArrive(exchange: Exchange, calm: boolean): boolean {
    return exchange.excused !== "" || calm;
  }

  /** From here on nothing goes wrong any more. */
  #calm(): void {
    const { kernel } = this;
    kernel.heal();
    kernel.contraryPercent = 0;
    kernel.bufferBytesMin = 65_536;
    this.hostileUntilMs = 0;
    this.faults.end();
    for (const node of this.nodes) {
      node.process.exhausted = false;
      for (const uri of node.identityUris) node.certify(uri, GOOD_ROOT);
    }
  }

  /** In calm every worker comes to see what the control plane says. */
  #converge(): void {
    for (let left = CONVERGE_ROUNDS_MAX; !this.nodes.every((node) => node.settled); left--) {
      hold(left > 0, "every node hears all that the control plane says");
      this.round(50, true);
    }
    for (const { node, books } of this.control.links) if (!node.stopped) checkConverged(this.control, node, books);
  }

  /** Nobody does anything for longer than sessions are kept. */
  #idle(): void {
    for (let seconds = 0; seconds < IDLE_SECONDS; seconds++) this.round(1_000, true);
    for (const node of this.nodes) hold(node.stopped || node.sessionCount === 0, "unused sessions are closed");
  }

  /** Pods go one by one; afterwards nothing may be left of any connection. */
  #leave(): void {
    for (const pod of this.pods) if (pod.enrolled && !pod.removed) this.nodes[pod.node]!.removePod(pod);
    this.#remote?.leave();
    let left = LEAVE_ROUNDS_MAX;
    while (!this.nodes.every((node) => node.stopped || (!node.draining && node.podCount === 0 && node.settled))) {
      hold(--left > 0, "pods leave, and nodes that drain come to their end");
      this.round(left > LEAVE_ROUNDS_MAX - 100 ? 5 : 50, true);
    }
    for (let turns = 0; turns < 40; turns++) this.round(50, true);
    for (const node of this.nodes) node.checkEmpty();
    this.#checkAmounts();
  }

  /** Where nothing was disturbed, the counters say what the applications say. */
  #checkAmounts(): void {
    if (this.#remote?.used === true || this.faults.estranged || this.exchanges.some((it) => it.excused !== "")) return;
    const sum = (list: readonly Exchange[], up: boolean) => list.reduce((total, it) => total + it.bytesTo(!up), 0);
    const outbound = this.exchanges.filter((it) => it.client.enrolled);
    const inbound = this.exchanges.filter((it) => it.servers[0]!.enrolled);
    for (const [direction, list] of [outbound, inbound].entries()) {
      const received = this.nodes.reduce((total, node) => total + node.ledger.totals.received[direction]!, 0);
      const sent = this.nodes.reduce((total, node) => total + node.ledger.totals.sent[direction]!, 0);
      hold(
        received === sum(list, true),
        `received bytes are counted, direction ${direction}: ${received} of ${sum(list, true)}`,
      );
      hold(sent === sum(list, false), `sent bytes are counted, direction ${direction}: ${sent} of ${sum(list, false)}`);
    }
  }
}
