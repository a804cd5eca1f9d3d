/** The pods of this node that are in the mesh: what is done, in which order, when one comes, is looked at or goes (CNI-080 to CNI-097). */
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Netns } from "../../os/netns.ts";
import type { PodAnnouncer } from "../enrolments.ts";
import { CAPTURE_PORTS } from "../nft_rules.ts";
import type { NodeProbes, PodRedirection, PodRuleOptions, ProbedAddress } from "../redirection/redirection.ts";
import type { AnnouncedPod } from "../zds_server.ts";
import { type NodePod, type PodDefaults, podName, type Redirection, redirectionOf, ruleOptionsOf } from "./node_pod.ts";
import type { NodeView } from "./node_view.ts";
import { type EnrolledPod, PodTable } from "./pod_table.ts";
import type { Journal } from "./run_files.ts";
import type { EnrolPath, PodNews } from "./pod_news.ts";

export interface MeshPodsOptions {
  /** Asked for when it is needed: the server comes after what it announces first. */
  readonly zds: () => PodAnnouncer & { readonly synchronized: boolean };
  readonly rules: PodRedirection;
  readonly probes: Pick<NodeProbes, "add" | "remove">;
  /** Writes what the pod's annotation says; a pod that is gone is fine. */
  readonly annotate: (pod: NodePod, redirection: Redirection) => Promise<void>;
  readonly node: NodeView;
  /** Called when something was changed in a pod's namespace: somebody should {@link MeshPods.reassert} it. */
  readonly onChange: (pod: NodePod) => void;
  readonly defaults: PodDefaults;
  readonly news: PodNews;
  readonly journal: Journal;
  readonly log: Logger;
}

/** Where a pod's namespace comes from: opened by the caller, whose it stays, or found among the processes. */
export type NetnsSource = { readonly netns: Netns } | "find";

const LISTENERS = [CAPTURE_PORTS.outbound, CAPTURE_PORTS.inboundPlaintext, CAPTURE_PORTS.inboundHbone];
const ANNOTATION_LAG_MS = 5_000; // The watch tells of our own annotation a moment after it was written.

/** Work for one pod waits for the work before it; pods do not wait for each other. */
export class MeshPods implements Disposable {
  readonly #options: MeshPodsOptions;
  readonly #busy = new Map<string, Promise<unknown>>();
  /** What is known of each pod. */
  readonly table = new PodTable();

  constructor(options: MeshPodsOptions) {
    this.#options = options;
  }

  /** Whether the pod has its rules and ztunnel has acknowledged it. */
  has(uid: string): boolean {
    return this.table.get(uid)?.acknowledged === true;
  }

  /**
   * Rules, then ztunnel, then the probes' set, then the annotation, which says that all is there (CNI-080). Safe to
   * repeat. Throws what a step throws; what was done before it stays for the next try, a namespace of a failed sandbox
   * does not (CNI-081, CNI-089).
   */
  async add(pod: NodePod, source: NetnsSource, signal?: AbortSignal): Promise<void> {
    await this.#alone(pod.uid, async () => {
      const { news, log } = this.#options, path: EnrolPath = source === "find" ? "informer" : "plugin";
      const before = this.table.get(pod.uid), startedMs = performance.now(), sinceMs = before?.annotatedMs ?? -Infinity;
      if (source === "find" && before?.acknowledged && startedMs - sinceMs < ANNOTATION_LAG_MS) return;
      const known = before?.acknowledged ? before.netns.inode : undefined;
      try {
        const { netns } = await this.#establish(pod, source, signal);
        const ms = performance.now() - startedMs;
        if (source === "find" && known === netns.inode) news.repaired(pod, "annotation", "it did not say so");
        else news.enrolled(pod, { path, ms });
        log.info("pod enrolled", { pod: podName(pod), netnsInode: netns.inode, ms: Math.round(ms) });
      } catch (error) {
        this.table.failed(pod, chain(error));
        news.failed(pod, { path, ms: performance.now() - startedMs, error });
        throw error;
      }
    });
  }

  /**
   * Takes up pods that were enrolled by an agent before us, with the namespaces found for them, whose handles are ours
   * from here on: their rules are made right, and ztunnel is told of them in the first snapshot, so that it keeps what it
   * carries (CNI-090). To be called once, before ztunnel can connect. @returns What to announce.
   */
  async restore(found: ReadonlyMap<NodePod, Netns>): Promise<AnnouncedPod[]> {
    const { rules, defaults, journal, log } = this.#options, announcedPods: AnnouncedPod[] = [];
    for (const [pod, netns] of found) {
      const enrolled: EnrolledPod = {
        pod,
        netns,
        rules: ruleOptionsOf(pod, defaults).rules,
        acknowledged: true,
        annotatedMs: -Infinity,
        watching: undefined,
      };
      try {
        // What it took away now would be missed by connections that only ztunnel can end: the first look at the pod does.
        if (await rules.supersedes?.(netns) !== true) await rules.apply(netns, enrolled.rules);
      } catch (error) {
        // The rules of before are still there; the next event or audit tries again.
        enrolled.acknowledged = false;
        log.warn("rules not restored", { pod: podName(pod), error: chain(error) });
      }
      journal.end(pod.uid); // The annotation tells, and the agent before had only this left to do.
      this.#watch(enrolled);
      this.table.set(enrolled);
      announcedPods.push(announced(enrolled));
    }
    return announcedPods;
  }

  /** Out of the probes' set, then out of ztunnel, then the rules go if the pod lives on (CNI-083). Safe to repeat. */
  async remove(pod: NodePod, { lives }: { readonly lives: boolean }): Promise<void> {
    await this.#alone(pod.uid, async () => {
      const { rules, probes, annotate, news, log } = this.#options;
      const known = this.table.get(pod.uid);
      if (known !== undefined) known.acknowledged = false; // The host's audit would put back what is taken away here.
      const before = known?.pod.ips ?? [], ips = new Set([...pod.ips, ...before]); // A pod that ends loses its own.
      for (const { ip, uid } of await probes.remove(addressesOf({ ...pod, ips: [...ips] }))) {
        log.info("address is another pod's now", { ip, uid });
      }
      const netns = known?.netns ?? (lives ? this.#find(pod) : undefined);
      if (lives && netns === undefined) log.warn("no network namespace to take rules from", { pod: podName(pod) });
      // New connections first, then those that ztunnel carries, then what is left: nothing shows in clear (CNI-278).
      if (lives && netns !== undefined) await rules.release(netns);
      try {
        await this.#options.zds().deletePod(pod.uid);
      } catch (error) {
        log.warn("ztunnel did not acknowledge the end of a pod", { pod: podName(pod), error: chain(error) });
      }
      known?.watching?.[Symbol.dispose](); // Our own taking away is nothing to look at.
      if (netns !== undefined) await (lives ? rules.remove(netns) : rules.forget?.(netns));
      this.table.delete(pod.uid);
      netns?.[Symbol.dispose]();
      if (lives) await annotate(pod, "none");
      this.#options.journal.end(pod.uid);
      news.unenrolled(pod, { lives });
      log.info("pod unenrolled", { pod: podName(pod) });
    });
  }

  /**
   * Looks whether all of an enrolled pod is as it should be, and makes it so: the namespace is still the pod's, the rules
   * are those that its annotations ask for, ztunnel listens (CNI-094, CNI-097). Its addresses go into the probes' set again
   * should they be others than before (CNI-076).
   */
  async reassert(pod: NodePod): Promise<void> {
    await this.#alone(pod.uid, async () => {
      const { probes, defaults, news } = this.#options, enrolled = this.table.get(pod.uid);
      if (enrolled === undefined) return;
      const moved = pod.ips.some((ip) => !enrolled.pod.ips.includes(ip));
      enrolled.pod = pod;
      const asked = ruleOptionsOf(pod, defaults);
      for (const problem of asked.problems) news.unreadable(pod, problem);
      if (!await this.#netnsIsPods(enrolled)) return;
      await this.#correctRules(enrolled, asked.rules);
      await this.#correctListeners(enrolled);
      if (moved) await probes.add(addressesOf(pod));
    });
  }

  /**
   * Looks for all enrolled pods among the node's processes at once, and enrols anew those that are somewhere else than they
   * were: a namespace that a handle of ours keeps alive has its addresses for ever (CNI-097). What fails is tried again by
   * the next audit.
   */
  async auditNamespaces(): Promise<void> {
    const { node, log } = this.#options;
    using handles = new DisposableStack();
    const found = node.find(this.table.pods());
    for (const netns of found.values()) handles.use(netns);
    for (const [uid, netns] of found) {
      try {
        await this.#alone(uid, async () => {
          const enrolled = this.table.get(uid);
          if (enrolled?.acknowledged && !enrolled.netns.equals(netns)) await this.#moveTo(enrolled, netns);
        });
      } catch (error) {
        log.warn("pod not enrolled in its new namespace", { uid, error: chain(error) });
      }
    }
  }

  /** Closes the descriptors; rules stay. */
  [Symbol.dispose](): void {
    this.table[Symbol.dispose]();
  }

  async #establish(pod: NodePod, source: NetnsSource, signal?: AbortSignal): Promise<EnrolledPod> {
    const { probes, annotate } = this.#options, zds = this.#options.zds();
    const before = this.table.get(pod.uid);
    let enrolled: EnrolledPod;
    try {
      enrolled = await this.#take(pod, source);
    } catch (error) {
      // An annotation of an agent or a boot before, with nothing behind it (CNI-093).
      if (source === "find" && redirectionOf(pod) === "enabled") await annotate(pod, "pending");
      throw error;
    }
    const announcing = zds.addPod(announced(enrolled), { signal });
    before?.watching?.[Symbol.dispose]();
    before?.netns[Symbol.dispose](); // Only now: until then ztunnel may be told of it.
    try {
      await announcing;
    } catch (error) {
      if (source === "find") await annotate(pod, "pending");
      else await this.#drop(pod); // The runtime throws the sandbox away, and makes another.
      throw error;
    }
    await probes.add(addressesOf(pod));
    enrolled.acknowledged = true;
    await annotate(pod, "enabled");
    enrolled.annotatedMs = performance.now();
    this.#options.journal.end(pod.uid); // From here on the annotation tells.
    this.table.healed(pod.uid);
    return enrolled;
  }

  /** The namespace with its rules in place; if that fails, what was known of the pod before stays. */
  async #take(pod: NodePod, source: NetnsSource): Promise<EnrolledPod> {
    const { rules, defaults, news, journal } = this.#options;
    const found = source === "find" ? this.#known(pod) ?? this.#find(pod) : source.netns.duplicate();
    if (found === undefined) {
      throw new MeshError("AMB7120", `the network namespace of ${podName(pod)} was not found`, {
        remedy: "See that the pod's processes run on this node and that the agent sees the node's /proc.",
      });
    }
    const asked = ruleOptionsOf(pod, defaults);
    for (const problem of asked.problems) news.unreadable(pod, problem);
    try {
      journal.begin(pod.uid);
      await rules.apply(found, asked.rules);
    } catch (error) {
      found[Symbol.dispose]();
      throw error;
    }
    const enrolled: EnrolledPod = {
      pod,
      netns: found,
      rules: asked.rules,
      acknowledged: false,
      annotatedMs: -Infinity,
      watching: undefined,
    };
    this.#watch(enrolled);
    this.table.set(enrolled);
    return enrolled;
  }

  /** A handle from before is of use as long as the namespace is still the pod's (CNI-089). */
  #known(pod: NodePod): Netns | undefined {
    const known = this.table.get(pod.uid);
    return known !== undefined && this.#options.node.holds(known.netns, pod.ips) ? known.netns.duplicate() : undefined;
  }

  /** A pod whose sandbox was made anew behind our back is enrolled in the new one (CNI-097). @returns False when its namespace is gone. */
  async #netnsIsPods(enrolled: EnrolledPod): Promise<boolean> {
    const { node } = this.#options, { pod, netns } = enrolled;
    if (pod.ips.length === 0 || node.holds(netns, pod.ips)) return true;
    using found = this.#find(pod);
    if (found === undefined || found.equals(netns)) {
      enrolled.acknowledged = false; // It is looked for from now on as one that is not enrolled.
      throw new MeshError("AMB7181", `${podName(pod)} has left the network namespace that was enrolled`, {
        remedy: "wait: it is looked for again; if that goes on, restart the pod",
      });
    }
    await this.#moveTo(enrolled, found);
    return false;
  }

  async #moveTo({ pod, netns: { inode } }: EnrolledPod, found: Netns): Promise<void> {
    await this.#establish(pod, { netns: found });
    this.#options.news.repaired(pod, "netns", `it is namespace ${found.inode} now, not ${inode}`);
  }

  async #correctRules(enrolled: EnrolledPod, asked: PodRuleOptions): Promise<void> {
    const { rules, news, log } = this.#options, { pod, netns } = enrolled;
    const followed = JSON.stringify(asked) !== JSON.stringify(enrolled.rules);
    const differences = await rules.check(netns, asked);
    if (differences.length > 0) {
      if (await rules.supersedes?.(netns)) return await this.#supersede(enrolled, asked);
      await rules.apply(netns, asked);
      if (followed) log.info("rules follow the pod's annotations", { pod: podName(pod) });
      else {
        const found = differences.join("; ");
        log.warn("rules repaired", { pod: podName(pod), found });
        news.repaired(pod, "rules", found);
      }
    }
    enrolled.rules = asked;
  }

  /** Another means than the pod was redirected by until now: what ztunnel carries ends first, and who comes meanwhile is refused. */
  async #supersede(enrolled: EnrolledPod, asked: PodRuleOptions): Promise<void> {
    const { rules, log } = this.#options, zds = this.#options.zds(), { pod, netns } = enrolled;
    try {
      await zds.deletePod(pod.uid);
      if (!zds.synchronized) {
        throw new MeshError(
          "AMB7251",
          `${podName(pod)} is redirected as before: no ztunnel is there to end what goes by it`,
          {
            remedy: "start ztunnel on this node; it is tried again by itself",
          },
        );
      }
      await rules.apply(netns, asked);
      enrolled.rules = asked;
    } finally {
      await zds.addPod(announced(enrolled));
    }
    log.info("pod is redirected by other means now", { pod: podName(pod) });
  }

  /** A ztunnel that has all pods listens in each of them: one without is told of it anew, since an add alone would be nothing new to it (CNI-251). */
  async #correctListeners(enrolled: EnrolledPod): Promise<void> {
    const { node, news, log } = this.#options, zds = this.#options.zds(), { pod, netns } = enrolled;
    const listening = zds.synchronized ? node.listening(netns) : undefined;
    const missing = listening === undefined ? [] : LISTENERS.filter((port) => !listening.has(port));
    if (missing.length === 0) return;
    await zds.deletePod(pod.uid);
    await zds.addPod(announced(enrolled));
    log.warn("listeners repaired", { pod: podName(pod), ports: missing.join() });
    news.repaired(pod, "listeners", `nothing listened on ${missing.join(", ")}`);
  }

  /** Forgets a pod whose sandbox is thrown away: nothing may be tried with its namespace again (CNI-089). */
  async #drop(pod: NodePod): Promise<void> {
    const { log } = this.#options;
    try {
      await this.#options.zds().deletePod(pod.uid);
    } catch (error) {
      log.warn("ztunnel did not acknowledge the end of a sandbox", { pod: podName(pod), error: chain(error) });
    }
    const known = this.table.get(pod.uid);
    known?.watching?.[Symbol.dispose]();
    known?.netns[Symbol.dispose]();
    this.table.delete(pod.uid);
    this.#options.journal.end(pod.uid); // Its rules go with the sandbox.
  }

  #find(pod: NodePod): Netns | undefined {
    return this.#options.node.find([pod]).get(pod.uid);
  }

  #watch(enrolled: EnrolledPod): void {
    const { node, onChange, log } = this.#options;
    try {
      enrolled.watching = node.watch(enrolled.netns, () => onChange(enrolled.pod), ["firewall", "routes"]);
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      log.warn("changes in a pod are found by the audit only", { pod: podName(enrolled.pod), error: chain(error) });
    }
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

function addressesOf({ uid, ips }: NodePod): ProbedAddress[] {
  return ips.map((ip) => ({ ip, uid }));
}

function announced({ pod, netns }: EnrolledPod): AnnouncedPod {
  const { uid, name, namespace, serviceAccount } = pod;
  return { uid, workload: { name, namespace, serviceAccount }, netns };
}
