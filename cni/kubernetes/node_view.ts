/** What the agent sees of its node: pods' namespaces among the processes, what listens in them, and what changes there. */
import type { Logger } from "../../base/log.ts";
import type { ChangeTopic } from "../../os/netlink/listener.ts";
import { listeningPorts } from "../../os/netlink/sock_diag.ts";
import type { Netns } from "../../os/netns.ts";
import { ChangeWatch } from "../change_watch.ts";
import { isHostNetns } from "../target.ts";
import { findPodNetns, hasAddress, type WantedPod } from "./pod_netns.ts";

/** The node, or a stand-in of a test. */
export interface NodeView {
  /** Open namespaces of those that were found, by uid; the caller closes them (CNI-085). */
  find(pods: readonly WantedPod[]): Map<string, Netns>;
  /** Whether an interface in the namespace still has one of the addresses. */
  holds(netns: Netns, ips: readonly string[]): boolean;
  /** Whether it is that of the host's first process, or the one that this process is in. */
  isHost(netns: Netns): boolean;
  /** TCP ports with a listener; undefined where that cannot be told. */
  listening(netns: Netns): ReadonlySet<number> | undefined;
  /** Calls back some time after rules, and with `routes` also routes and addresses, were changed; without a namespace in the host's. */
  watch(netns: Netns | undefined, onChange: () => void, topics: readonly ChangeTopic[]): Disposable;
}

export class ProcNode implements NodeView, AsyncDisposable {
  readonly #procDir: string;
  readonly #log: Logger;
  readonly #changes = new ChangeWatch();

  /** @param procDir `/proc` of the host, as this process sees it. */
  constructor(procDir: string, log: Logger) {
    this.#procDir = procDir;
    this.#log = log;
  }

  find(pods: readonly WantedPod[]): Map<string, Netns> {
    return findPodNetns(this.#procDir, pods, this.#log);
  }

  holds(netns: Netns, ips: readonly string[]): boolean {
    return hasAddress(netns, ips);
  }

  isHost(netns: Netns): boolean {
    return isHostNetns(netns, this.#procDir);
  }

  listening(netns: Netns): ReadonlySet<number> | undefined {
    return listeningPorts(netns);
  }

  watch(netns: Netns | undefined, onChange: () => void, topics: readonly ChangeTopic[]): Disposable {
    return this.#changes.watch(netns, onChange, topics);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#changes[Symbol.asyncDispose]();
  }
}
