/** Another network, reached through a gateway: a pod that our proxy serves, and behind it a program that pipes what comes on. */
import { ipv4, serviceOf, workloadOf } from "../../dataplane/tables/testing.ts";
import { ADDRESS_TYPE_URL, encodeServiceAddress, encodeWorkloadAddress } from "../../mesh/proto/workload_codec.ts";
import { hold } from "./chance.ts";
import { type Exchange, holdsMark, type SimPod, uriOf } from "./exchange.ts";
import { type Namespace, Port } from "./kernel.ts";
import { Errno, type SimListener, SimSocket } from "./stream.ts";
import { GOOD_ROOT, OUTSIDE, type World } from "./world.ts";

const NETWORK = "far", HOSTNAME = "far.default.svc", APP_PORT = 8080, SERVICE_PORT = 80;
const SERVICE_IP = ipv4(0x0a600002), GATEWAY_IP = ipv4(0x0a0e0001), BEHIND_IP = ipv4(0x0a0f0001);
const CHUNK_BYTES = 65_536;

/** One way through the gateway: what was read and not yet written. */
class Way {
  readonly from: SimSocket;
  readonly to: SimSocket;
  #bytes = new Uint8Array(0);
  #ended = false;
  done = false;

  constructor(from: SimSocket, to: SimSocket) {
    this.from = from;
    this.to = to;
  }

  /** @returns false if either side has failed. */
  step(): boolean {
    if (this.done) return true;
    if (this.#bytes.length === 0 && !this.#ended) {
      const chunk = new Uint8Array(CHUNK_BYTES), got = this.from.receive(chunk, 0, chunk.length);
      if (got < 0 && got !== -Errno.AGAIN) return false;
      if (got === 0) this.#ended = true;
      if (got > 0) this.#bytes = chunk.slice(0, got);
      hold(!holdsMark(this.#bytes), "a gateway sees nothing of what it carries");
    }
    if (this.#bytes.length > 0) {
      const sent = this.to.send(this.#bytes);
      if (sent < 0 && sent !== -Errno.AGAIN) return false;
      if (sent > 0) this.#bytes = this.#bytes.slice(sent);
    }
    if (this.#ended && this.#bytes.length === 0) {
      this.done = true;
      this.to.shutdownWrite();
    }
    return true;
  }
}

export class Remote {
  readonly #world: World;
  readonly #endpoints: readonly SimPod[];
  readonly #pod: SimPod;
  readonly #behind: Namespace;
  readonly #listener: SimListener;
  readonly #ways: [Way, Way][] = [];
  readonly #exchanges: Exchange[] = [];

  /** Describes the network to the mesh, and starts its gateway. @param endpoints who is there, besides being here. */
  constructor(world: World, endpoints: readonly SimPod[]) {
    this.#world = world;
    this.#endpoints = endpoints;
    const { chance, kernel } = world, node = chance.pick(world.nodes).options.index;
    const namespace = kernel.addNamespace(GATEWAY_IP, node, "gateway");
    namespace.enrolled = true;
    this.#behind = kernel.addNamespace(BEHIND_IP, OUTSIDE, "behind the gateway");
    this.#pod = {
      name: "gateway",
      account: "sa-gateway",
      ns: "gateways",
      ip: GATEWAY_IP,
      node,
      namespace,
      enrolled: true,
      known: true,
      removed: false,
    };
    this.#listener = namespace.listen(APP_PORT);
    world.control.put(
      ADDRESS_TYPE_URL,
      `default/${HOSTNAME}`,
      encodeServiceAddress(serviceOf("default", HOSTNAME, {
        addresses: [{ network: "", ip: SERVICE_IP }],
        ports: [{ servicePort: SERVICE_PORT, targetPort: APP_PORT }],
        subjectAltNames: [...new Set(endpoints.map(uriOf))],
      })),
    );
    this.#putWorkload("gateway", {
      name: "gateway",
      namespace: "gateways",
      serviceAccount: "sa-gateway",
      addresses: [GATEWAY_IP],
      node: `node${node}`,
    });
    for (const { name, ns, account } of endpoints) {
      this.#putWorkload(`far-${name}`, {
        name: `far-${name}`,
        namespace: ns,
        serviceAccount: account,
        networkGateway: { address: { network: NETWORK, ip: GATEWAY_IP }, hboneMtlsPort: Port.HBONE },
        services: new Map([[`default/${HOSTNAME}`, [{ servicePort: SERVICE_PORT, targetPort: APP_PORT }]]]),
      });
    }
    const serving = world.nodes[node]!;
    serving.addPod(this.#pod, uriOf(this.#pod));
    serving.certify(uriOf(this.#pod), GOOD_ROOT);
  }

  #putWorkload(uid: string, change: Parameters<typeof workloadOf>[1]): void {
    const workload = workloadOf(`cluster//Pod/far/${uid}`, { network: NETWORK, tunnelProtocol: 1, ...change });
    this.#world.control.put(ADDRESS_TYPE_URL, workload.uid, encodeWorkloadAddress(workload));
  }

  /** An exchange goes there. What happens on its way ends it: faults look for it between its two ends alone. */
  take(exchange: Exchange): void {
    this.#exchanges.push(exchange);
    const {
      policies,
      cuts,
      resets,
      refusals,
      exhaustion,
      hostility,
      removals,
      drain,
      silence,
      closeRequests,
      wrongRoots,
    } = this.#world.faults.dangers;
    const dangers = [policies, cuts, resets, refusals, exhaustion, hostility, removals, drain, silence, closeRequests];
    if ([...dangers, wrongRoots].some((it) => it > 0)) exchange.excuse("its way through the gateway is not safe");
  }

  /** Exchanges have gone there: the gateway's own counters hold more than the applications'. */
  get used(): boolean {
    return this.#exchanges.length > 0;
  }

  /** Those that arrived. */
  get delivered(): number {
    return this.#exchanges.filter((it) => it.serverEnd !== undefined).length;
  }

  /** What a client dials to get there. */
  get address(): { readonly ip: SimPod["ip"]; readonly port: number } {
    return { ip: SERVICE_IP, port: SERVICE_PORT };
  }

  /** Takes what the gateway's proxy brings, and pipes it to an endpoint's port for tunnels. */
  step(): void {
    const { chance, kernel } = this.#world, { backlog } = this.#listener;
    for (let near = backlog.shift(); near !== undefined; near = backlog.shift()) {
      const there = this.#endpoints.filter((pod) => !pod.removed);
      const far = new SimSocket(kernel, this.#behind, false);
      const to = there.length === 0 ? undefined : chance.pick(there);
      if (to === undefined || kernel.connect(far, { ip: to.ip, port: Port.HBONE }, undefined) !== -Errno.INPROGRESS) {
        near.abort();
      } else this.#ways.push([new Way(near, far), new Way(far, near)]);
    }
    for (let at = this.#ways.length - 1; at >= 0; at--) {
      const [inwards, outwards] = this.#ways[at]!;
      const alive = inwards.step() && outwards.step();
      if (alive && !(inwards.done && outwards.done)) continue;
      this.#ways.splice(at, 1);
      for (const { from } of [inwards, outwards]) {
        if (alive) from.close();
        else from.abort();
      }
    }
  }

  leave(): void {
    this.#world.nodes[this.#pod.node]!.removePod(this.#pod);
  }
}
