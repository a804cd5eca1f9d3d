/** The DNS proxy of all pods: opens and closes each one's listeners, and the one thread that waits for all of them (ZT-176). */
import { formatSocketAddress, type IpWords } from "../../../base/address.ts";
import { assert } from "../../../base/assert.ts";
import { MeshError } from "../../../base/errors.ts";
import type { Logger } from "../../../base/log.ts";
import { pause } from "../../../base/waiting.ts";
import type { Workload } from "../../../mesh/workload.ts";
import { bindInet } from "../../../os/inet.ts";
import * as libc from "../../../os/libc_cold.ts";
import { type Netns, readSysctl, withinNetns } from "../../../os/netns.ts";
import { Poller } from "../../../os/poller.ts";
import { closeFd } from "../../../os/sockets.ts";
import { netnsCookie } from "../../../os/bpf/netns_cookie.ts";
import type { KeptSockets } from "../kept_sockets.ts";
import type { PodDnsOptions } from "../pods.ts";
import type { PodFacts } from "../state.ts";
import type { AnswerSettings, DnsMesh } from "./answer.ts";
import { firstAddress } from "./own_lookup.ts";
import { Forwarder } from "./forwarder.ts";
import { addressesToBind, type ListenAddress } from "./listen_address.ts";
import type { UpstreamSettings } from "./resolv_conf.ts";
import { type DnsMetrics, type Respond, responder } from "./responder.ts";
import { TcpListener } from "./tcp_listener.ts";
import { UdpListener } from "./udp_listener.ts";
import { PodUpstreamSockets } from "./upstream_sockets.ts";

const SWEEP_MS = 500, FINISH_LOOK_MS = 5;
/** For how long a query waits for its pod's workload, and how often we look (ZT-177). */
const CLIENT_WAIT_MS = 5_000, CLIENT_LOOK_MS = 50;
const LOOPBACK_IPV6_OFF = "net/ipv6/conf/lo/disable_ipv6";

/** What the proxy reads of the mesh. */
export interface DnsState extends DnsMesh {
  findLocal(pod: PodFacts): Workload | undefined;
}

export interface DnsProxyOptions {
  readonly state: DnsState;
  readonly listen: ListenAddress;
  readonly answers: AnswerSettings;
  /** Asked when a pod is added: the file may have changed since. */
  readonly upstreams: () => UpstreamSettings;
  readonly mark: number;
  readonly reusePort: boolean;
  readonly metrics: DnsMetrics;
  readonly log: Logger;
  /** Of nameservers, for tests. */
  readonly upstreamPort?: number;
}

/** One pod's part. */
interface PodDns {
  readonly stop: AbortController;
  readonly resources: DisposableStack;
  readonly udp: readonly UdpListener[];
  readonly tcp: readonly TcpListener[];
  readonly respond: Respond;
}

/** Nothing else on this thread blocks for it: sockets never block, and waiting is the poller's. */
export class DnsProxy implements AsyncDisposable {
  readonly #options: DnsProxyOptions;
  readonly #poller = new Poller();
  readonly #pods = new Map<string, PodDns>();
  readonly #sweeping: ReturnType<typeof setInterval>;

  /** Throws AMB7060. */
  constructor(options: DnsProxyOptions) {
    this.#options = options;
    this.#sweeping = setInterval(() => {
      for (const { tcp } of this.#pods.values()) for (const listener of tcp) listener.sweep();
    }, SWEEP_MS);
  }

  /** Rejects with our own mistake, should one stop the waiting; settles once disposed of. */
  get done(): Promise<void> {
    return this.#poller.done;
  }

  /** Open TCP connections of all pods. */
  get connectionCount(): number {
    let count = 0;
    for (const { tcp } of this.#pods.values()) for (const listener of tcp) count += listener.connectionCount;
    return count;
  }

  /**
   * Listens in the pod's namespace. @param netns taken over. @throws MeshError AMB2411 with nothing left behind (ZT-004).
   */
  addPod(uid: string, facts: PodFacts, netns: Netns, { kept, port }: PodDnsOptions = {}): void {
    assert(!this.#pods.has(uid), "a pod is added once");
    const { metrics, state, log, answers, mark, upstreamPort } = this.#options, poller = this.#poller;
    using resources = new DisposableStack();
    resources.use(netns);
    const stop = new AbortController();
    resources.defer(() => stop.abort());
    const sockets = new PodUpstreamSockets({ netns, mark, poller, port: upstreamPort });
    const now = () => performance.now();
    const settings = this.#options.upstreams();
    const respond = responder({
      mesh: state,
      settings: answers,
      client: clientFinder(() => state.findLocal(facts), stop.signal),
      forwarder: new Forwarder({ settings, sockets, now, randomId, signal: stop.signal }),
      metrics,
      random: Math.random,
      now,
      log,
    });
    const tcp: TcpListener[] = [], udp: UdpListener[] = [];
    // Several workloads of one namespace are told apart by where they are sent: on loopback, whatever the address is elsewhere.
    const listen: ListenAddress = port === undefined ? this.#options.listen : { ip: "localhost", port };
    const bound = this.#bind(netns, listen, kept);
    try {
      for (let next = bound.shift(); next !== undefined; next = bound.shift()) {
        const { fd, transport } = next;
        using unowned = new DisposableStack(); // A listener owns its socket once it is made.
        unowned.defer(() => closeFd(fd));
        if (transport === "udp") {
          udp.push(resources.use(new UdpListener(fd, listen.port, { poller, respond })));
        } else tcp.push(resources.use(new TcpListener(fd, { poller, respond, now })));
        unowned.move();
      }
    } finally {
      for (const { fd } of bound) closeFd(fd);
    }
    this.#pods.set(uid, { stop, udp, tcp, respond, resources: resources.move() });
  }

  /** The first address of a name in the pod's view of the world, asked without a socket (ZT-189); undefined: it has none. */
  async lookup(uid: string, name: string, v4: boolean): Promise<IpWords | undefined> {
    const pod = this.#pods.get(uid);
    return pod === undefined ? undefined : await firstAddress(pod.respond, name, v4);
  }

  /** Closes the pod's sockets; queries that wait for an upstream get no answer. */
  deletePod(uid: string): void {
    this.#pods.get(uid)?.resources.dispose();
    this.#pods.delete(uid);
  }

  /** The sockets that it is asked on in a pod; they stay its own. */
  socketsOf(uid: string): readonly number[] {
    const pod = this.#pods.get(uid);
    return pod === undefined ? [] : [...pod.udp, ...pod.tcp].map(({ fd }) => fd);
  }

  /** Takes no further query, and waits, for so long at most, until those it took are answered: others may read its sockets. */
  async finish(timeoutMs: number): Promise<void> {
    const listeners = [...this.#pods.values()].flatMap(({ udp, tcp }) => [...udp, ...tcp]);
    for (const listener of listeners) listener.finish();
    const deadline = performance.now() + timeoutMs;
    while (listeners.some(({ busy }) => busy) && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, FINISH_LOOK_MS));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#sweeping);
    for (const uid of [...this.#pods.keys()]) this.deletePod(uid);
    await this.#poller[Symbol.asyncDispose]();
  }

  /** All sockets or none. */
  #bind(
    netns: Netns,
    listen: ListenAddress,
    kept: KeptSockets | undefined,
  ): { readonly fd: number; readonly transport: "udp" | "tcp" }[] {
    const { answers, mark, reusePort } = this.#options;
    // Without IPv6 in the kernel there is no such entry (ZT-003).
    const ipv6 = answers.ipv6 && readSysctl(netns, LOOPBACK_IPV6_OFF) === "0";
    const opened: { fd: number; transport: "udp" | "tcp" }[] = [];
    const cookie = kept === undefined || kept.isEmpty ? undefined : netnsCookie(netns);
    const back = (transport: "udp" | "tcp", ip: IpWords) =>
      cookie === undefined ? undefined : kept!.take(
        cookie,
        (it) =>
          it.transport === transport && it.port === listen.port && it.mark === mark &&
          it.ip.every((word, at) => word === ip[at]),
        1,
      )[0]?.fd;
    withinNetns(netns, () => {
      for (const ip of addressesToBind(listen, ipv6)) {
        for (const transport of ["udp", "tcp"] as const) {
          const fd = back(transport, ip) ?? bindInet(ip, listen.port, { transport, mark, reusePort });
          if (fd >= 0) {
            opened.push({ fd, transport });
            continue;
          }
          for (const it of opened) closeFd(it.fd);
          const address = formatSocketAddress(ip, listen.port);
          throw new MeshError("AMB2411", `cannot serve DNS at ${address} by ${transport}: ${libc.errnoName(fd)}`, {
            remedy: "see which process holds the port in the pod, and that its loopback interface is up",
          });
        }
      }
    });
    return opened;
  }
}

/** The pod's workload at once if it is known, else when it becomes known, but not for ever (ZT-177). */
export function clientFinder(
  find: () => Workload | undefined,
  signal: AbortSignal,
  waitMs = CLIENT_WAIT_MS,
): () => Workload | Promise<Workload | undefined> {
  let waiting: Promise<Workload | undefined> | undefined;
  const wait = async () => {
    const deadline = performance.now() + waitMs;
    let found = find();
    while (found === undefined && !signal.aborted && performance.now() < deadline) {
      await pause(CLIENT_LOOK_MS, signal);
      found = find();
    }
    waiting = undefined;
    return found;
  };
  return () => find() ?? (waiting ??= wait());
}

function randomId(): number {
  return crypto.getRandomValues(new Uint16Array(1))[0]!;
}
