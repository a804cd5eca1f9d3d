/** The enrolled network namespaces of a bare node: rules, ztunnel and the file, always in an order that fails closed. */
import { chain, MeshError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { EnrolmentStatus, EnrolRequest, EnrolTarget } from "../mesh/enrolment.ts";
import type { Netns } from "../os/netns.ts";
import { type EnrolledEntry, readEnrolled, writeEnrolled } from "./enrolled_file.ts";
import type { Awaitable, PodRedirection, PodRuleOptions } from "./redirection/redirection.ts";
import { openTarget, uidOf } from "./target.ts";
import type { AnnouncedPod } from "./zds_server.ts";

/** Where pods are announced: the ZDS server, or a stand-in of a test. */
export interface PodAnnouncer {
  addPod(pod: AnnouncedPod, options?: { signal?: AbortSignal }): Promise<void>;
  deletePod(uid: string, options?: { signal?: AbortSignal }): Promise<void>;
}

interface Enrolment {
  readonly uid: string;
  request: EnrolRequest;
  readonly netns: Netns;
  state: EnrolledEntry["state"];
  problems: readonly string[];
}

export interface EnrolmentsOptions {
  /** `enrolled.json`. */
  readonly file: string;
  readonly rules: PodRuleOptions;
  readonly redirection: PodRedirection;
  readonly log: Logger;
}

/** Operations on one target wait for each other; those on different targets do not. */
export class Enrolments implements Disposable {
  readonly #options: EnrolmentsOptions;
  readonly #byUid = new Map<string, Enrolment>();
  /** The last piece of work for each target. */
  readonly #busy = new Map<string, Promise<unknown>>();

  constructor(options: EnrolmentsOptions) {
    this.#options = options;
  }

  /**
   * Takes up what the file names: rules are written again, what was being taken out is captured no more and left for the next
   * audit to finish, when ztunnel is back; what is gone is dropped. To be called once, before ztunnel can connect.
   * @returns The pods to announce.
   */
  async restore(): Promise<AnnouncedPod[]> {
    for (const entry of readEnrolled(this.#options.file)) {
      const uid = await uidOf(entry.request.target);
      const netns = this.#reopen(entry);
      if (netns === undefined) continue;
      try {
        const leaving = entry.state === "unenrolling";
        if (leaving) await this.#options.redirection.release(netns);
        else await this.#options.redirection.apply(netns, this.#rulesOf(entry.request));
        const state = leaving ? "unenrolling" : "enrolled";
        this.#byUid.set(uid, { uid, request: entry.request, netns, state, problems: [] });
      } catch (error) {
        // It stays in the list: the next audit tries again, and meanwhile the rules of before are still there.
        this.#options.log.warn("rules not restored", { target: entry.request.target.text, error: chain(error) });
        this.#byUid.set(uid, { uid, request: entry.request, netns, state: entry.state, problems: [chain(error)] });
      }
    }
    this.#save();
    return [...this.#byUid.values()].filter(({ state }) => state !== "unenrolling").map(announced);
  }

  /**
   * Rules in place, then ztunnel's acknowledgement, then done; a failure takes the rules out again. Enrolling the same
   * target in the same way is fine. Throws AMB7101, AMB7102, AMB7105 and what rules and ztunnel throw.
   */
  async enrol(request: EnrolRequest, zds: PodAnnouncer, signal?: AbortSignal): Promise<EnrolmentStatus> {
    return await this.#alone(request.target, async () => {
      const uid = await uidOf(request.target);
      const netns = openTarget(request.target);
      const before = this.#byUid.get(uid);
      try {
        this.#refuseConflicts(uid, request, netns);
        if (before !== undefined && !before.netns.equals(netns)) await this.#remove(before, zds, { gone: true });
      } catch (error) {
        netns[Symbol.dispose]();
        throw error;
      }
      let enrolment = this.#byUid.get(uid);
      if (enrolment === undefined) {
        enrolment = { uid, request, netns, state: "enrolling", problems: [] };
        this.#byUid.set(uid, enrolment);
        this.#save(); // Before the first rule: whatever happens, a later start knows where rules may be.
      } else {
        netns[Symbol.dispose]();
        enrolment.request = request; // Only what is no identity can differ: what it says of DNS.
      }
      await this.#establish(enrolment, zds, { signal, removeOnFailure: enrolment.state !== "enrolled" });
      return statusOf(enrolment);
    });
  }

  /** Takes rules and ztunnel's listeners away. Throws AMB7106 when the target is not enrolled. */
  async unenrol(target: EnrolTarget, zds: PodAnnouncer): Promise<EnrolmentStatus> {
    return await this.#alone(target, async () => {
      const uid = await uidOf(target);
      const enrolment = this.#byUid.get(uid);
      if (enrolment === undefined) {
        throw new MeshError("AMB7106", `${target.text} is not enrolled`, {
          remedy: "List what is enrolled with `ambit enroll --list`.",
        });
      }
      const status = statusOf(enrolment);
      await this.#remove(enrolment, zds, { gone: false });
      return status;
    });
  }

  /** Takes everything out, going on after a failure. Throws the first failure at the end. */
  async releaseAll(zds: PodAnnouncer): Promise<void> {
    let failure: unknown;
    for (const enrolment of [...this.#byUid.values()]) {
      try {
        await this.#alone(enrolment.request.target, async () => {
          if (this.#byUid.get(enrolment.uid) === enrolment) await this.#remove(enrolment, zds, { gone: false });
        });
      } catch (error) {
        failure ??= error;
      }
    }
    if (failure !== undefined) throw failure;
  }

  /** Checks every target: one that is gone is taken out, one that is another namespace now is enrolled anew, rules that differ are written again (CNI-097). */
  async audit(zds: PodAnnouncer): Promise<void> {
    for (const { uid, request } of [...this.#byUid.values()]) {
      await this.#alone(request.target, async () => {
        const enrolment = this.#byUid.get(uid);
        if (enrolment === undefined) return;
        try {
          await this.#auditOne(enrolment, zds);
        } catch (error) {
          enrolment.problems = [chain(error)];
          this.#options.log.warn("audit failed", { target: enrolment.request.target.text, error: chain(error) });
        }
      });
    }
  }

  status(): EnrolmentStatus[] {
    return [...this.#byUid.values()].map(statusOf).sort((left, right) => left.target < right.target ? -1 : 1);
  }

  /** Closes the namespaces' descriptors; rules stay. */
  [Symbol.dispose](): void {
    for (const enrolment of this.#byUid.values()) enrolment.netns[Symbol.dispose]();
    this.#byUid.clear();
  }

  /** A first enrolment that fails leaves nothing behind. One that was enrolled before stays captured, and the audit tries again. */
  async #establish(
    enrolment: Enrolment,
    zds: PodAnnouncer,
    options: { signal?: AbortSignal; removeOnFailure: boolean },
  ): Promise<void> {
    const { redirection, log } = this.#options, target = enrolment.request.target.text;
    try {
      await redirection.apply(enrolment.netns, this.#rulesOf(enrolment.request));
      await zds.addPod(announced(enrolment), { signal: options.signal });
    } catch (error) {
      enrolment.problems = [chain(error)];
      log.warn("not enrolled", { target, error: chain(error) });
      if (options.removeOnFailure) await this.#undo(enrolment, zds);
      throw error;
    }
    enrolment.state = "enrolled";
    enrolment.problems = [];
    this.#save();
    log.info("enrolled", { target, name: enrolment.request.name, netnsInode: enrolment.netns.inode });
  }

  /** After a failure that is reported already: what cannot be removed now stays listed, and the audit removes it. */
  async #undo(enrolment: Enrolment, zds: PodAnnouncer): Promise<void> {
    try {
      await this.#remove(enrolment, zds, { gone: false });
    } catch (error) {
      this.#options.log.error("rules not removed after a failed enrolment", {
        target: enrolment.request.target.text,
        error: chain(error),
      });
    }
  }

  /**
   * First no new connection is captured, then ztunnel ends those it carries, then the rules go (CNI-083): from the first step
   * on new traffic flows as without a mesh. Rules that went before ztunnel's connections would show the wire what is on its
   * way in them, in both directions.
   */
  async #remove(enrolment: Enrolment, zds: PodAnnouncer, { gone }: { gone: boolean }): Promise<void> {
    const { uid, netns } = enrolment, { redirection } = this.#options, target = enrolment.request.target.text;
    enrolment.state = "unenrolling";
    this.#save();
    await this.#takeRules(enrolment, (it) => redirection.release(it), gone);
    try {
      await zds.deletePod(uid);
    } catch (error) {
      // It is off the announcer's list for good: ztunnel stops it with the next snapshot at the latest.
      this.#options.log.warn("ztunnel did not acknowledge the end of a pod", { target, error: chain(error) });
    }
    await this.#takeRules(enrolment, (it) => redirection.remove(it), gone);
    this.#byUid.delete(uid);
    netns[Symbol.dispose]();
    this.#save();
    this.#options.log.info("unenrolled", { target, name: enrolment.request.name });
  }

  async #takeRules(
    { request, netns }: Enrolment,
    take: (netns: Netns) => Awaitable<void>,
    gone: boolean,
  ): Promise<void> {
    try {
      await take(netns);
    } catch (error) {
      if (!gone) throw error; // It stays listed as unenrolling; asking again, or a restart, tries again.
      this.#options.log.warn("rules not removed from a namespace that is gone", {
        target: request.target.text,
        error: chain(error),
      });
    }
  }

  async #auditOne(enrolment: Enrolment, zds: PodAnnouncer): Promise<void> {
    const { request } = enrolment, { redirection, log } = this.#options, rules = this.#rulesOf(request);
    if (enrolment.state === "unenrolling") return await this.#remove(enrolment, zds, { gone: false });
    let now: Netns;
    try {
      now = openTarget(request.target);
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      log.info("target is gone", { target: request.target.text, error: chain(error) });
      return await this.#remove(enrolment, zds, { gone: true });
    }
    using _now = now;
    if (!now.equals(enrolment.netns)) {
      await this.#remove(enrolment, zds, { gone: true });
      if (request.target.kind === "pid") return; // Another process got the number: not what was meant.
      const again: Enrolment = { ...enrolment, netns: now.duplicate(), state: "enrolling", problems: [] };
      this.#byUid.set(again.uid, again);
      this.#save();
      log.info("target has a new network namespace", { target: request.target.text });
      return await this.#establish(again, zds, { removeOnFailure: false });
    }
    const differences = await redirection.check(enrolment.netns, rules);
    if (differences.length > 0) {
      log.warn("rules repaired", { target: request.target.text, differences: differences.join("; ") });
      await redirection.apply(enrolment.netns, rules);
    }
    enrolment.problems = [];
    if (enrolment.state === "enrolling") await this.#establish(enrolment, zds, { removeOnFailure: false });
  }

  /** @returns undefined, and says so, when the target is gone or is not the one that was enrolled. */
  #reopen(entry: EnrolledEntry): Netns | undefined {
    const { target } = entry.request;
    let netns: Netns;
    try {
      netns = openTarget(target);
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      this.#options.log.info("enrolled target is gone", { target: target.text, error: chain(error) });
      return undefined;
    }
    const same = netns.inode === entry.netnsInode && netns.device === entry.netnsDevice;
    if (same || target.kind !== "pid") return netns; // A name that was given again means the new one (CNI-316).
    this.#options.log.info("enrolled process is gone", { target: target.text });
    netns[Symbol.dispose]();
    return undefined;
  }

  #refuseConflicts(uid: string, request: EnrolRequest, netns: Netns): void {
    const same = this.#byUid.get(uid);
    if (same !== undefined && identityOf(same.request) !== identityOf(request)) {
      throw new MeshError("AMB7105", `${request.target.text} is enrolled as ${identityOf(same.request)}`, {
        remedy: `Unenrol it first: ambit unenroll ${request.target.text}`,
      });
    }
    const other = [...this.#byUid.values()].find((it) => it.uid !== uid && it.netns.equals(netns));
    if (other === undefined) return;
    throw new MeshError("AMB7102", `${request.target.text} is the namespace that ${other.request.target.text} has`, {
      remedy: "Name it as it was enrolled; one network namespace is one workload.",
    });
  }

  /** What the enrolment itself says of DNS outweighs the setting for all. */
  #rulesOf({ dnsCapture }: EnrolRequest): PodRuleOptions {
    const { rules } = this.#options;
    return dnsCapture === undefined ? rules : { ...rules, dnsCapture };
  }

  /** Runs `work` after all that was asked for this target before, in the order it was asked. */
  async #alone<T>(target: EnrolTarget, work: () => Promise<T>): Promise<T> {
    const before = this.#busy.get(target.text) ?? Promise.resolve();
    const working = before.then(work, work);
    this.#busy.set(target.text, working);
    try {
      return await working;
    } finally {
      if (this.#busy.get(target.text) === working) this.#busy.delete(target.text);
    }
  }

  #save(): void {
    writeEnrolled(
      this.#options.file,
      [...this.#byUid.values()].map(({ request, state, netns }) => ({
        request,
        state,
        netnsDevice: netns.device,
        netnsInode: netns.inode,
      })),
    );
  }
}

const identityOf = ({ namespace, serviceAccount, name }: EnrolRequest) =>
  `pod ${namespace}/${name} with service account ${serviceAccount}`;

function announced({ uid, request, netns }: Enrolment): AnnouncedPod {
  const { name, namespace, serviceAccount } = request;
  return { uid, netns, workload: { name, namespace, serviceAccount } };
}

function statusOf({ uid, request, netns, state, problems }: Enrolment): EnrolmentStatus {
  return { ...request, target: request.target.text, uid, state, netnsInode: netns.inode, problems };
}
