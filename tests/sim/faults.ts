/** What goes wrong in a run: drawn once, then put in round by round. Each fault says which exchanges it may end. */
import { AUTHORIZATION_TYPE_URL, encodeAuthorization } from "../../mesh/proto/authorization_codec.ts";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { Command } from "../../dataplane/tables/layout.ts";
import type { Chance } from "./chance.ts";
import { type Exchange, type SimPod, uidOf, uriOf } from "./exchange.ts";
import { type Kernel, Port } from "./kernel.ts";
import type { SimNode } from "./node.ts";
import { drawPolicy, policyFrom } from "./policies.ts";
import { Errno, SimSocket } from "./stream.ts";
import { GOOD_ROOT, OTHER_ROOT, OUTSIDE, type World } from "./world.ts";

/** What may go wrong in this run, in percent a round. */
interface Dangers {
  readonly policies: number;
  readonly churn: number;
  readonly rotation: number;
  readonly cuts: number;
  readonly resets: number;
  readonly refusals: number;
  readonly exhaustion: number;
  readonly hostility: number;
  readonly removals: number;
  readonly drain: number;
  readonly lateCertificates: boolean;
  readonly wrongRoots: number;
  readonly silence: number;
  readonly closeRequests: number;
  readonly strangers: number;
  readonly arrivals: number;
  readonly smallTables: boolean;
  readonly lostStreams: number;
  readonly restarts: number;
  readonly badResources: number;
}

/** Whether an exchange may go over this connection between two pods. */
export function over(socket: SimSocket): (exchange: Exchange) => boolean {
  const ends = [socket.namespace, socket.peer!.namespace];
  return (it) => ends.includes(it.client.namespace) && it.targets.some((pod) => ends.includes(pod.namespace));
}

export class Faults {
  readonly dangers: Dangers;
  readonly chance: Chance;
  readonly kernel: Kernel;
  readonly world: World;
  #nextPolicy = 0;
  readonly #strangers: SimSocket[] = [];
  /** Bytes that no exchange sent have been about. */
  estranged = false;

  constructor(world: World) {
    const { chance, kernel } = world;
    this.world = world;
    this.chance = chance;
    this.kernel = kernel;
    const rare = (percent: number, often: number) => chance.often(percent) ? often : 0;
    const peaceful = chance.often(25);
    this.dangers = {
      policies: peaceful ? 0 : rare(50, 6),
      churn: peaceful ? 0 : rare(30, 3),
      rotation: rare(50, 5),
      cuts: peaceful ? 0 : rare(30, 2),
      resets: peaceful ? 0 : rare(30, 2),
      refusals: peaceful ? 0 : rare(15, 2),
      exhaustion: peaceful ? 0 : rare(20, 2),
      hostility: peaceful ? 0 : rare(25, 2),
      removals: peaceful ? 0 : rare(30, 1),
      drain: peaceful ? 0 : rare(10, 0.5),
      lateCertificates: chance.often(30),
      wrongRoots: peaceful ? 0 : rare(15, 2),
      silence: rare(15, 1),
      closeRequests: peaceful ? 0 : rare(15, 3),
      strangers: rare(25, 5),
      arrivals: peaceful ? 0 : rare(25, 2),
      smallTables: !peaceful && chance.often(6),
      lostStreams: rare(40, 3),
      restarts: rare(20, 1),
      badResources: rare(30, 2),
    };
  }

  /** What this round brings. */
  endanger(): void {
    this.world.successions.endanger(this.world);
    const { chance, kernel } = this, dangers = this.dangers;
    const known = this.world.pods.filter((pod) => pod.known && !pod.removed);
    const enrolled = known.filter((pod) => pod.enrolled);
    if (chance.often(dangers.policies)) this.#changePolicies();
    if (chance.often(dangers.churn)) this.#churn(chance.pick(known));
    if (chance.often(dangers.rotation) && enrolled.length > 0) {
      const pod = chance.pick(enrolled);
      this.world.say(`${pod.name} gets a new certificate`);
      this.world.nodes[pod.node]!.certify(uriOf(pod), GOOD_ROOT);
    }
    if (chance.often(dangers.wrongRoots) && enrolled.length > 0) this.#wrongRoot(chance.pick(enrolled));
    if (chance.often(dangers.cuts) && this.world.nodes.length > 1) this.#cut();
    if (chance.often(dangers.resets)) this.#reset();
    if (chance.often(dangers.refusals) && enrolled.length > 0) {
      const pod = chance.pick(enrolled);
      this.world.say(`${pod.name} refuses`);
      kernel.refusals.set(pod.namespace, kernel.nowMs + 200);
      this.world.hazard("refused", 300, (it) => it.targets.includes(pod));
    }
    if (chance.often(dangers.exhaustion)) this.#exhaust(chance.pick(this.world.nodes));
    if (chance.often(dangers.hostility)) {
      this.world.say("somebody changes bytes between nodes");
      this.world.hostileUntilMs = kernel.nowMs + 20;
    }
    if (chance.often(dangers.removals) && enrolled.length > 2) this.#remove(chance.pick(enrolled));
    if (chance.often(dangers.drain)) this.#drain(chance.pick(this.world.nodes));
    // With small buffers a second a round is a link so slow that sessions rightly give up.
    if (chance.often(dangers.silence) && Math.min(...kernel.bufferSizes) >= 65_536) {
      this.world.say("time passes");
      const contrary = kernel.contraryPercent;
      kernel.contraryPercent = 0; // What comes in pieces takes a round for each, and handshakes end after ten.
      for (let seconds = chance.between(5, 35); seconds > 0; seconds--) this.world.round(1_000, false);
      kernel.contraryPercent = contrary;
    }
    if (chance.often(dangers.closeRequests)) this.#requestClose(chance.pick(this.world.nodes));
    if (chance.often(dangers.strangers)) this.#strange(chance.pick(this.world.pods));
    if (chance.often(dangers.arrivals)) this.world.enrol();
    if (chance.often(dangers.lostStreams)) {
      const link = chance.pick(this.world.control.links);
      this.world.say(`the stream of node${link.node.options.index} is lost`);
      link.lose();
    }
    if (chance.often(dangers.restarts)) {
      const forMs = chance.pick([0, 50, 1_000, 4_000]);
      this.world.say(`istiod is away for ${forMs} ms`);
      this.world.control.restart(forMs);
    }
    if (chance.often(dangers.badResources)) this.#spoil();
    for (const stranger of [...this.#strangers]) this.#disturb(stranger);
  }

  /** The calm begins. */
  end(): void {
    for (const socket of this.#strangers.splice(0)) socket.close();
  }

  #requestClose(node: SimNode): void {
    this.world.say(`the end of a connection on node${node.options.index} is asked for`);
    const here = (it: Exchange) => [it.client, ...it.targets].some((pod) => pod.node === node.options.index);
    this.world.excuse("its end was asked for", here);
    node.requestClose(this.chance);
  }

  /** Somebody who speaks no HBONE connects, or nobody at all speaks. */
  #strange(pod: SimPod): void {
    const { chance, kernel } = this, port = chance.pick([Port.HBONE, Port.HBONE, 8080, Port.OUTBOUND, Port.PLAINTEXT]);
    const socket = new SimSocket(kernel, chance.pick(this.world.pods).namespace, false);
    this.estranged = true;
    this.world.say(`a stranger ${socket.serial} connects to ${pod.name}:${port}`);
    if (kernel.connect(socket, { ip: pod.ip, port }, undefined) === -Errno.INPROGRESS) this.#strangers.push(socket);
  }

  #disturb(stranger: SimSocket): void {
    const { chance } = this;
    // Only a session's first bytes may be anything: an application's server here takes its own clients at their word.
    if (stranger.servicePort === Port.HBONE && chance.often(20)) {
      const bytes = Uint8Array.from({ length: chance.between(1, 400) }, () => chance.below(256));
      if (chance.often(50)) bytes.set([chance.pick([20, 21, 22, 23]), 3, 3, chance.below(2)].slice(0, bytes.length));
      stranger.send(bytes);
    }
    if (!chance.often(3)) return;
    if (chance.often(50)) stranger.close();
    else stranger.abort();
    this.#strangers.splice(this.#strangers.indexOf(stranger), 1);
  }

  #changePolicies(): void {
    const { chance } = this;
    if (this.world.policies.size > 0 && chance.often(45)) {
      const name = chance.pick([...this.world.policies.keys()]), key = policyFrom(this.world.policies.get(name)!).key;
      this.world.say(`policy ${name} goes`);
      this.world.policies.delete(name);
      this.world.control.remove(AUTHORIZATION_TYPE_URL, key);
    } else {
      const fact = drawPolicy(chance, this.#nextPolicy++, this.world.pods.filter((pod) => pod.enrolled));
      const policy = policyFrom(fact), bytes = encodeAuthorization(policy);
      this.world.say(`policy ${fact.name}: ${fact.deny ? "deny" : "allow"} ${fact.accounts} in ${fact.ns ?? "all"}`);
      this.world.policies.set(fact.name, fact);
      this.world.control.put(AUTHORIZATION_TYPE_URL, policy.key, bytes, fact);
    }
    this.world.policyVersions.push([...this.world.policies.values()]);
    this.world.control.policyVersion = this.world.policyVersions.length - 1;
    this.world.excuse("policy may end it", (it) => !this.world.isAllowedEverywhere(it));
  }

  /** A workload vanishes from the mesh for a while, or changes. */
  #churn(pod: SimPod): void {
    const { chance } = this;
    if (chance.often(50)) {
      this.world.say(`${pod.name} changes`);
      this.world.putWorkload(pod, { capacity: chance.between(1, 9) });
      return;
    }
    this.world.say(`${pod.name} leaves the mesh's view`);
    this.#unsettleAll(pod);
    this.world.control.remove(ADDRESS_TYPE_URL, uidOf(pod));
    this.world.later(chance.below(2_000), () => {
      if (!pod.removed) this.world.putWorkload(pod);
    });
  }

  /** Among what is good comes something that no client can take: new, or instead of what was there. */
  #spoil(): void {
    const { chance, world } = this, name = `bad-${this.#nextPolicy++}`;
    // Without a refusal less may be refused, never more: what an ALLOW lets in must stay let in.
    const refusals = [...world.policies.values()].filter((fact) => fact.deny);
    const known = world.pods.filter((pod) => pod.known && !pod.removed);
    const [typeUrl, victim] = chance.pick<readonly [string, string]>([
      [ADDRESS_TYPE_URL, name],
      [AUTHORIZATION_TYPE_URL, `istio-system/${name}`],
      [ADDRESS_TYPE_URL, uidOf(chance.pick(known))],
      ...refusals.map((fact) => [AUTHORIZATION_TYPE_URL, policyFrom(fact).key] as const),
    ]);
    world.say(`${victim} is sent as nobody can read it`);
    world.control.spoil(typeUrl, victim);
    // A node that knew nothing of the victim has nothing to stay with.
    if (known.some((pod) => uidOf(pod) === victim)) this.#unsettleAll(known.find((pod) => uidOf(pod) === victim)!);
    if (!victim.includes(name)) return;
    world.later(chance.below(3_000), () => world.control.remove(typeUrl, victim));
  }

  #unsettleAll(pod: SimPod): void {
    this.world.churned.add(pod);
    for (const exchange of this.world.live) {
      if (exchange.client === pod || exchange.servers.includes(pod)) this.world.unsettle(exchange);
    }
  }

  #wrongRoot(pod: SimPod): void {
    this.world.say(`${pod.name} gets a certificate of another root`);
    const node = this.world.nodes[pod.node]!;
    node.certify(uriOf(pod), OTHER_ROOT);
    this.world.hazard(
      "a certificate of another root",
      5_000,
      (it) => [it.client, ...it.targets].some((other) => uriOf(other) === uriOf(pod)),
    );
    this.world.later(250, () => node.certify(uriOf(pod), GOOD_ROOT));
  }

  #cut(): void {
    const { chance, kernel } = this, one = chance.below(this.world.nodes.length);
    const other = chance.often(10) ? OUTSIDE : (one + 1) % this.world.nodes.length;
    const forMs = chance.pick([10, 300, 3_000, 25_000, 45_000]);
    this.world.say(`link ${one}-${other} is cut for ${forMs} ms`);
    kernel.cut(one, other, forMs);
    if (forMs < 3_000) return;
    const touches = (it: Exchange, node: number) => [it.client, ...it.targets].some((pod) => pod.node === node);
    this.world.hazard("the link is cut", forMs + 2_000, (it) => touches(it, one) && touches(it, other));
  }

  /** The path between two nodes forgets a connection. */
  #reset(): void {
    const alive = [...this.kernel.crossing].filter((socket) => socket.state === "open" && !socket.broken);
    this.kernel.crossing.clear();
    for (const socket of alive) this.kernel.crossing.add(socket);
    if (alive.length === 0) return;
    const socket = this.chance.pick(alive);
    this.world.say(`connection ${socket.serial} is reset`);
    this.world.hazard("a connection was reset", 500, over(socket));
    socket.breakOff(104);
    socket.peer!.breakOff(104);
  }

  #exhaust(node: SimNode): void {
    this.world.say(`node${node.options.index} has no descriptors left`);
    const forMs = this.chance.below(300);
    node.process.exhausted = true;
    this.world.hazard("descriptors run short", forMs + 1_000, (it) => it.serverEnd === undefined);
    this.world.later(forMs, () => {
      node.process.exhausted = false;
    });
  }

  #remove(pod: SimPod): void {
    this.world.say(`${pod.name} is removed`);
    this.world.hazard("its pod was removed", Infinity, (it) => it.client === pod || it.targets.includes(pod));
    pod.removed = true;
    this.world.servers.get(pod)!.kill();
    for (const exchange of this.world.live) {
      if (exchange.client === pod) exchange.clientEnd.close();
      if (exchange.serverEnd !== undefined && exchange.servers.includes(pod)) exchange.serverEnd.close();
    }
    const gone = () => this.world.nodes[pod.node]!.removePod(pod);
    if (this.chance.often(50)) gone();
    else this.world.later(this.chance.below(200), gone);
    this.world.control.remove(ADDRESS_TYPE_URL, uidOf(pod));
  }

  #drain(node: SimNode): void {
    if (node.stopped) return;
    this.world.say(`node${node.options.index} drains`);
    const here = (it: Exchange) => [it.client, ...it.targets].some((pod) => pod.node === node.options.index);
    this.world.hazard("its node drains", Infinity, here);
    node.draining = true;
    node.tell(Command.DRAIN, this.chance.below(3_000));
  }
}
