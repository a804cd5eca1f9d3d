/** Workloads that have a hostname and no address: resolved by the node's own resolver for each connection, and counted (ZT-033). */
import { formatIdentity } from "../../mesh/identity.ts";
import type { Workload } from "../../mesh/workload.ts";
import { ownNetns } from "../../os/netns.ts";
import type { Poller } from "../../os/poller.ts";
import { flowLabelOf, parseFlowLabel } from "../tables/flow_label.ts";
import { Direction } from "../tables/layout.ts";
import type { Answer } from "./answers.ts";
import { readHosts } from "./dns/hosts_file.ts";
import type { UpstreamSettings } from "./dns/resolv_conf.ts";
import { SystemResolver } from "./dns/system_resolver.ts";
import { PodUpstreamSockets } from "./dns/upstream_sockets.ts";
import { onDemandDnsLabels } from "./metrics.ts";
import type { Counter } from "./metrics_registry.ts";

const HOSTS_PATH = "/etc/hosts";

export interface HostnamesOptions {
  readonly settings: () => UpstreamSettings;
  /** Of the resolver's sockets; 0: none. */
  readonly mark: number;
  readonly ipv6: boolean;
  readonly poller: Poller;
  readonly counter: Counter;
}

export class Hostnames implements Disposable {
  readonly #resources = new DisposableStack();
  readonly #resolver: SystemResolver;
  readonly #counter: Counter;

  /** @throws MeshError AMB7002 where the process cannot open its own network namespace. */
  constructor({ settings, mark, ipv6, poller, counter }: HostnamesOptions) {
    const netns = this.#resources.use(ownNetns()), stop = new AbortController();
    this.#resources.defer(() => stop.abort()); // Before the namespace is closed.
    this.#counter = counter;
    this.#resolver = new SystemResolver({
      settings,
      hosts: () => readHosts(HOSTS_PATH),
      sockets: new PodUpstreamSockets({ netns, mark, poller }),
      ipv6,
      now: () => performance.now(),
      randomId: () => crypto.getRandomValues(new Uint16Array(1))[0]!,
      random: Math.random,
      signal: stop.signal,
    });
  }

  /** @param source the workload that connects, if it is still known. Never rejects. */
  async find(hostname: string, wantsIpv4: boolean, source: Workload | undefined): Promise<Answer> {
    this.#counter.add(labelsOf(source, hostname)); // Each use, be the answer known already or not.
    return await this.#resolver.resolve(hostname, wantsIpv4) ?? "unknown";
  }

  [Symbol.dispose](): void {
    this.#resources.dispose();
  }
}

/** ZT-192: the source as any connection of it is labelled. */
function labelsOf(source: Workload | undefined, hostname: string): Record<string, string> {
  const identity = source === undefined ? "" : formatIdentity(source);
  const text = flowLabelOf(
    Direction.OUTBOUND,
    false,
    source,
    identity,
    undefined,
    undefined,
    "",
    undefined,
    undefined,
  );
  return onDemandDnsLabels(parseFlowLabel(text), hostname);
}
