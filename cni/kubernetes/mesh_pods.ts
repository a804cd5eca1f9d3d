/** The pods of this node that are in the mesh: what is done, in which order, when one comes or goes (CNI-080 to CNI-089). */
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Netns } from "../../os/netns.ts";
import type { PodAnnouncer } from "../enrolments.ts";
import type { NodeProbes, PodRedirection, PodRuleOptions, ProbedAddress } from "../redirection/redirection.ts";
import type { AnnouncedPod } from "../zds_server.ts";
import { type NodePod, type Redirection, ruleOptionsOf } from "./node_pod.ts";

export interface MeshPodsOptions {
  /** Asked for when it is needed: the server comes after what it announces first. */
  readonly zds: () => PodAnnouncer;
  readonly rules: PodRedirection;
  readonly probes: Pick<NodeProbes, "add" | "remove">;
  /** Writes what the pod's annotation says; a pod that is gone is fine. */
  readonly annotate: (pod: NodePod, redirection: Redirection) => Promise<void>;
  /** The namespace of a pod that runs, if it can be found; the caller closes it. */
  readonly find: (pod: NodePod) => Netns | undefined;
  readonly defaults: PodRuleOptions;
  readonly log: Logger;
}

interface Enrolled {
  pod: NodePod;
  readonly netns: Netns;
  rules: PodRuleOptions;
  /** Whether ztunnel has acknowledged it; until then only the rules are there. */
  acknowledged: boolean;
}

/** Where a pod's namespace comes from: opened by the caller, whose it stays, or found among the processes. */
export type NetnsSource = { readonly netns: Netns } | "find";

/** Work for one pod waits for the work before it; pods do not wait for each other. */
export class MeshPods implements Disposable {
  readonly #options: MeshPodsOptions;
  readonly #byUid = new Map<string, Enrolled>();
  readonly #busy = new Map<string, Promise<unknown>>();

  constructor(options: MeshPodsOptions) {
    this.#options = options;
  }

  /** Whether the pod has its rules and ztunnel has acknowledged it. */
  has(uid: string): boolean {
    return this.#byUid.get(uid)?.acknowledged === true;
  }

  get size(): number {
    return this.#byUid.size;
  }

  /**
   * Rules, then ztunnel, then the probes' set, then the annotation, which says that all is there (CNI-080). Safe to
   * repeat. Throws what a step throws; what was done before it stays for the next try, a namespace of a failed sandbox
   * does not (CNI-081, CNI-089).
   */
  async add(pod: NodePod, source: NetnsSource, signal?: AbortSignal): Promise<void> {
    await this.#alone(pod.uid, async () => {
      const { probes, annotate, log } = this.#options, zds = this.#options.zds();
      const before = this.#byUid.get(pod.uid), enrolled = await this.#take(pod, source);
      const announcing = zds.addPod(announced(enrolled), { signal });
      before?.netns[Symbol.dispose](); // Only now: until then ztunnel may be told of it.
      try {
        await announcing;
      } catch (error) {
        if (source === "find") await annotate(pod, "pending");
        else await this.#drop(pod); // The runtime throws the sandbox away, and makes another.
        throw error;
      }
      enrolled.acknowledged = true;
      await probes.add(addressesOf(pod));
      await annotate(pod, "enabled");
      log.info("pod enrolled", { pod: nameOf(pod), netnsInode: enrolled.netns.inode });
    });
  }

  /**
   * Takes up pods that were enrolled by an agent before us, with the namespaces found for them, whose handles are ours
   * from here on: their rules are made right, and ztunnel is told of them in the first snapshot, so that it keeps what it
   * carries (CNI-090). To be called once, before ztunnel can connect. @returns What to announce.
   */
  async restore(found: ReadonlyMap<NodePod, Netns>): Promise<AnnouncedPod[]> {
    const { rules, defaults, log } = this.#options, announcedPods: AnnouncedPod[] = [];
    for (const [pod, netns] of found) {
      const enrolled: Enrolled = { pod, netns, rules: ruleOptionsOf(pod, defaults).rules, acknowledged: true };
      try {
        await rules.apply(netns, enrolled.rules);
      } catch (error) {
        // The rules of before are still there; the next event or audit tries again.
        enrolled.acknowledged = false;
        log.warn("rules not restored", { pod: nameOf(pod), error: chain(error) });
      }
      this.#byUid.set(pod.uid, enrolled);
      announcedPods.push(announced(enrolled));
    }
    return announcedPods;
  }

  /** Out of the probes' set, then out of ztunnel, then the rules go if the pod lives on (CNI-083). Safe to repeat. */
  async remove(pod: NodePod, { lives }: { readonly lives: boolean }): Promise<void> {
    await this.#alone(pod.uid, async () => {
      const { rules, probes, annotate, find, log } = this.#options;
      const known = this.#byUid.get(pod.uid);
      const before = known?.pod.ips ?? [], ips = new Set([...pod.ips, ...before]); // A pod that ends loses its own.
      for (const { ip, uid } of await probes.remove(addressesOf({ ...pod, ips: [...ips] }))) {
        log.debug("address is another pod's now", { ip, uid });
      }
      const netns = known?.netns ?? (lives ? find(pod) : undefined);
      if (lives && netns === undefined) log.warn("no network namespace to take rules from", { pod: nameOf(pod) });
      // New connections first, then those that ztunnel carries, then what is left: nothing shows in clear (CNI-278).
      if (lives && netns !== undefined) await rules.release(netns);
      try {
        await this.#options.zds().deletePod(pod.uid);
      } catch (error) {
        log.warn("ztunnel did not acknowledge the end of a pod", { pod: nameOf(pod), error: chain(error) });
      }
      if (lives && netns !== undefined) await rules.remove(netns);
      this.#byUid.delete(pod.uid);
      netns?.[Symbol.dispose]();
      if (lives) await annotate(pod, "none");
      log.info("pod unenrolled", { pod: nameOf(pod) });
    });
  }

  /** Puts an enrolled pod's addresses into the probes' set again, and its rules right, should its annotations ask for others (CNI-094). */
  async reassert(pod: NodePod): Promise<void> {
    await this.#alone(pod.uid, async () => {
      const { probes, rules, defaults, log } = this.#options;
      const enrolled = this.#byUid.get(pod.uid);
      if (enrolled === undefined) return;
      enrolled.pod = pod;
      enrolled.rules = ruleOptionsOf(pod, defaults).rules;
      const differences = await rules.check(enrolled.netns, enrolled.rules);
      if (differences.length > 0) {
        log.warn("rules repaired", { pod: nameOf(pod), differences: differences.join("; ") });
        await rules.apply(enrolled.netns, enrolled.rules);
      }
      await probes.add(addressesOf(pod));
    });
  }

  /** Every enrolled pod as it was last seen, for audits and for the probes' set. */
  pods(): readonly NodePod[] {
    return [...this.#byUid.values()].map(({ pod }) => pod);
  }

  /** Closes the descriptors; rules stay. */
  [Symbol.dispose](): void {
    for (const { netns } of this.#byUid.values()) netns[Symbol.dispose]();
    this.#byUid.clear();
  }

  /** The namespace with its rules in place; if that fails, what was known of the pod before stays. */
  async #take(pod: NodePod, source: NetnsSource): Promise<Enrolled> {
    const { rules, find, defaults, log } = this.#options, known = this.#byUid.get(pod.uid);
    const found = source === "find" ? known?.netns.duplicate() ?? find(pod) : source.netns.duplicate();
    if (found === undefined) {
      throw new MeshError("AMB7120", `the network namespace of ${nameOf(pod)} was not found`, {
        remedy: "See that the pod's processes run on this node and that the agent sees the node's /proc.",
      });
    }
    const asked = ruleOptionsOf(pod, defaults);
    for (const problem of asked.problems) log.warn("annotation passed over", { pod: nameOf(pod), problem });
    try {
      await rules.apply(found, asked.rules);
    } catch (error) {
      found[Symbol.dispose]();
      throw error;
    }
    const enrolled: Enrolled = { pod, netns: found, rules: asked.rules, acknowledged: false };
    this.#byUid.set(pod.uid, enrolled);
    return enrolled;
  }

  /** Forgets a pod whose sandbox is thrown away: nothing may be tried with its namespace again (CNI-089). */
  async #drop(pod: NodePod): Promise<void> {
    const { log } = this.#options;
    try {
      await this.#options.zds().deletePod(pod.uid);
    } catch (error) {
      log.warn("ztunnel did not acknowledge the end of a sandbox", { pod: nameOf(pod), error: chain(error) });
    }
    this.#byUid.get(pod.uid)?.netns[Symbol.dispose]();
    this.#byUid.delete(pod.uid);
  }

  /** Runs `work` after all that was asked for this pod before, in the order it was asked. */
  async #alone<T>(uid: string, work: () => Promise<T>): Promise<T> {
    const before = this.#busy.get(uid) ?? Promise.resolve();
    const working = before.then(work, work);
    this.#busy.set(uid, working);
    try {
      return await working;
    } finally {
      if (this.#busy.get(uid) === working) this.#busy.delete(uid);
    }
  }
}

const nameOf = ({ namespace, name }: NodePod) => `${namespace}/${name}`;

function addressesOf({ uid, ips }: NodePod): ProbedAddress[] {
  return ips.map((ip) => ({ ip, uid }));
}

function announced({ pod, netns }: Enrolled): AnnouncedPod {
  const { uid, name, namespace, serviceAccount } = pod;
  return { uid, workload: { name, namespace, serviceAccount }, netns };
}
