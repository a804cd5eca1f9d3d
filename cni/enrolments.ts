/** The enrolled network workloads of a bare node: rules, ztunnel and the file, always in an order that fails closed. */
import { chain, MeshError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { type EnrolmentStatus, type EnrolRequest, type EnrolTarget, isProcess, isShared } from "../mesh/enrolment.ts";
import { type Capture, captureOf, sharedNetnsOf, sharedRequestOf } from "./bare/capture.ts";
import { refuseConflicts } from "./bare/conflicts.ts";
import { findContainer, isMeant } from "./bare/containers.ts";
import { isGone, type Machine, openPlace, type Place, samePlace } from "./bare/place.ts";
import { SharedNode, type SharedNodeOptions } from "./bare/shared_node.ts";
import { type EnrolledEntry, readEnrolled, writeEnrolled } from "./enrolled_file.ts";
import type { Netns } from "../os/netns.ts";
import type { PodRedirection, PodRuleOptions } from "./redirection/redirection.ts";
import { uidOf } from "./target.ts";
import type { AnnouncedPod } from "./zds_server.ts";

/** Where pods are announced: the ZDS server, or a stand-in of a test. */
export interface PodAnnouncer {
  addPod(pod: AnnouncedPod, options?: { signal?: AbortSignal }): Promise<void>;
  deletePod(uid: string, options?: { signal?: AbortSignal }): Promise<void>;
}

interface Enrolment {
  readonly uid: string;
  request: EnrolRequest;
  /** undefined: its unit does not run. */
  place: Place | undefined;
  /** For a target in the host's namespace. */
  readonly slot: number | undefined;
  /** The file of the enrolment folder that it is of. */
  file: string | undefined;
  state: EnrolledEntry["state"];
  problems: readonly string[];
}

export interface EnrolmentsOptions {
  /** `enrolled.json`. */
  readonly file: string;
  readonly rules: PodRuleOptions;
  readonly redirection: PodRedirection;
  readonly shared?: SharedNodeOptions;
  /** For tests. */
  readonly machine?: Machine;
  readonly log: Logger;
}

export interface EnrolOptions {
  readonly signal?: AbortSignal;
  /** It is a file's of the enrolment folder. */
  readonly file?: string;
}

/** Operations on one target wait for each other; those on different targets do not. */
export class Enrolments implements Disposable {
  readonly #options: EnrolmentsOptions;
  readonly #shared: SharedNode;
  readonly #byUid = new Map<string, Enrolment>();
  /** The last piece of work for each target. */
  readonly #busy = new Map<string, Promise<unknown>>();

  constructor(options: EnrolmentsOptions) {
    this.#options = options;
    this.#shared = new SharedNode(options.shared ?? { never: [] });
  }

  /**
   * Takes up what the file names: rules are written again, what was being taken out is captured no more and left for the next
   * audit to finish, when ztunnel is back; what is gone is dropped. To be called once, before ztunnel can connect.
   * @returns The pods to announce.
   */
  async restore(): Promise<AnnouncedPod[]> {
    for (const entry of readEnrolled(this.#options.file)) {
      const place = this.#reopen(entry);
      if (place === "gone") continue;
      const { request, file, state } = entry, uid = await uidOf(request.target);
      const slot = isShared(request.target) ? this.#shared.takeSlot(this.#slots(), entry.slot) : undefined;
      const enrolment: Enrolment = { uid, request, place, slot, file, state, problems: [] };
      this.#byUid.set(uid, enrolment);
      if (place === undefined) enrolment.state = "waiting";
      else if (slot === undefined) await this.#restoreOne(enrolment);
      else {
        this.#shared.adopt(slot, place.cgroup!, sharedRequestOf(request, this.#options.rules), state === "unenrolling");
        if (state !== "unenrolling") enrolment.state = "enrolled";
      }
    }
    this.#restoreShared();
    this.#save();
    return [...this.#byUid.values()].filter(({ state }) => state === "enrolled" || state === "enrolling")
      .map((it) => this.#announced(it));
  }

  async #restoreOne(enrolment: Enrolment): Promise<void> {
    const capture = this.#captureOf(enrolment)!;
    try {
      if (enrolment.state === "unenrolling") await capture.release();
      else {
        await capture.apply();
        enrolment.state = "enrolled";
      }
    } catch (error) {
      // It stays in the list: the next audit tries again, and meanwhile the rules of before are still there.
      this.#options.log.warn("rules not restored", { target: enrolment.request.target.text, error: chain(error) });
      enrolment.problems = [chain(error)];
    }
  }

  /** All at once: rules that named only the first of them would let the others' traffic out. */
  #restoreShared(): void {
    if (this.#slots().size === 0) return;
    try {
      this.#shared.write();
    } catch (error) {
      this.#options.log.warn("the host's rules not restored", { error: chain(error) });
    }
  }

  /**
   * Rules in place, then ztunnel's acknowledgement, then done; a failure takes the rules out again. Enrolling the same
   * target in the same way is fine. Throws what {@link openPlace} and {@link refuseConflicts} throw, AMB7164, and what rules
   * and ztunnel throw.
   */
  async enrol(asked: EnrolRequest, zds: PodAnnouncer, options: EnrolOptions = {}): Promise<EnrolmentStatus> {
    const request = { ...asked, target: this.#wholeTarget(asked.target) };
    return await this.#alone(request.target, async () => {
      const { file, signal } = options, uid = await uidOf(request.target);
      const place = openPlace(request.target, this.#options.machine);
      const before = this.#byUid.get(uid);
      try {
        refuseConflicts({ uid, request, place }, this.#byUid.values());
        if (before?.place !== undefined && !samePlace(before.place, place)) {
          await this.#leavePlace(before, zds, place);
        }
      } catch (error) {
        place[Symbol.dispose]();
        throw error;
      }
      const enrolment = this.#byUid.get(uid) ?? this.#begin(uid, request, place, file);
      const wasEnrolled = enrolment.state === "enrolled" || enrolment.state === "waiting";
      if (enrolment.place === undefined) enrolment.place = place;
      else if (enrolment.place !== place) place[Symbol.dispose]();
      const told = this.#announcementOf(enrolment.request, enrolment.slot);
      enrolment.request = request; // Only what is no identity can differ. Before anything is waited for: others look at it.
      if (told !== this.#announcementOf(request, enrolment.slot)) {
        await zds.deletePod(uid); // Its listeners are others now; what is captured meanwhile is refused.
      }
      enrolment.file = file;
      if (enrolment.state === "waiting") enrolment.state = "enrolling";
      await this.#establish(enrolment, zds, { signal, removeOnFailure: !wasEnrolled });
      return this.#statusOf(enrolment);
    });
  }

  /** A container by its whole id: the beginning of one may come to mean another. Throws AMB7161. */
  #wholeTarget(target: EnrolTarget): EnrolTarget {
    if (target.kind !== "container") return target;
    const { id } = findContainer(this.#options.machine?.procDir ?? "/proc", target.id);
    return { kind: "container", id, text: `container/${id}` };
  }

  /** What is enrolled that the beginning of a container's id means; undefined where that is nothing, or several. */
  #enrolledTarget(target: EnrolTarget): EnrolTarget | undefined {
    if (target.kind !== "container") return undefined;
    const meant = [...this.#byUid.values()].map((it) => it.request.target)
      .filter((it) => it.kind === "container" && isMeant(target.id, it.id));
    return meant.length === 1 ? meant[0] : undefined;
  }

  /** Listed before the first rule: whatever happens, a later start knows where rules may be. */
  #begin(uid: string, request: EnrolRequest, place: Place, file: string | undefined): Enrolment {
    const slot = place.cgroup === undefined ? undefined : this.#shared.takeSlot(this.#slots());
    const enrolment: Enrolment = { uid, request, place, slot, file, state: "enrolling", problems: [] };
    this.#byUid.set(uid, enrolment);
    this.#save();
    return enrolment;
  }

  /** The target is somewhere else now. A unit keeps its slot and ztunnel's listeners: only its control group is another. */
  async #leavePlace(enrolment: Enrolment, zds: PodAnnouncer, now: Place): Promise<void> {
    if (enrolment.slot === undefined || now.cgroup === undefined) {
      return await this.#remove(enrolment, zds, { gone: true });
    }
    enrolment.place?.[Symbol.dispose]();
    enrolment.place = now;
  }

  /** Takes rules and ztunnel's listeners away. Throws AMB7106 when the target is not enrolled. */
  async unenrol(asked: EnrolTarget, zds: PodAnnouncer): Promise<EnrolmentStatus> {
    const target = this.#enrolledTarget(asked) ?? asked;
    return await this.#alone(target, async () => {
      const uid = await uidOf(target);
      const enrolment = this.#byUid.get(uid);
      if (enrolment === undefined) {
        throw new MeshError("AMB7106", `${target.text} is not enrolled`, {
          remedy: "List what is enrolled with `ambit enroll --list`.",
        });
      }
      const status = this.#statusOf(enrolment);
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
    this.#auditShared();
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
    return [...this.#byUid.values()].map((it) => this.#statusOf(it)).sort((left, right) =>
      left.target < right.target ? -1 : 1
    );
  }

  /** What of the enrolment folder's files is enrolled, by target. */
  ofFiles(): ReadonlyMap<string, { readonly file: string; readonly target: EnrolTarget }> {
    return new Map(
      [...this.#byUid.values()].flatMap(({ file, request: { target } }) =>
        file === undefined ? [] : [[target.text, { file, target }] as const]
      ),
    );
  }

  /** Folders in which the end of a control group, or the start of a unit, is to be seen. */
  cgroupFolders(): string[] {
    const folders = [...this.#byUid.values()].flatMap(({ place }) => {
      const path = place?.cgroup?.path;
      return path === undefined ? [] : [path.slice(0, Math.max(0, path.lastIndexOf("/")))];
    });
    return [...new Set(folders)];
  }

  /** Where rules are; they stay ours. */
  namespaces(): Netns[] {
    return [...this.#byUid.values()].flatMap(({ place }) => place?.netns ?? []);
  }

  /** Whether a unit is waited for, whose start no folder that is watched may show. */
  get waits(): boolean {
    return [...this.#byUid.values()].some(({ state }) => state === "waiting");
  }

  /** Closes the namespaces' descriptors; rules stay. */
  [Symbol.dispose](): void {
    for (const enrolment of this.#byUid.values()) enrolment.place?.[Symbol.dispose]();
    this.#byUid.clear();
  }

  #slots(): Set<number> {
    return new Set([...this.#byUid.values()].flatMap(({ slot }) => slot ?? []));
  }

  /** undefined where there is nothing to capture, since its unit does not run. */
  #captureOf({ place, request, slot }: Enrolment): Capture | undefined {
    const { redirection, rules } = this.#options;
    return place && captureOf(place, request, slot, { redirection, rules, shared: this.#shared });
  }

  /** A first enrolment that fails leaves nothing behind. One that was enrolled before stays captured, and the audit tries again. */
  async #establish(
    enrolment: Enrolment,
    zds: PodAnnouncer,
    options: { signal?: AbortSignal; removeOnFailure: boolean },
  ): Promise<void> {
    const { log } = this.#options, target = enrolment.request.target.text;
    try {
      await this.#captureOf(enrolment)?.apply();
      await zds.addPod(this.#announced(enrolment), { signal: options.signal });
    } catch (error) {
      enrolment.problems = [chain(error)];
      log.warn("not enrolled", { target, error: chain(error) });
      if (options.removeOnFailure) await this.#undo(enrolment, zds);
      throw error;
    }
    enrolment.state = "enrolled";
    enrolment.problems = this.#captureOf(enrolment)?.remarks() ?? [];
    this.#save();
    log.info("enrolled", { target, name: enrolment.request.name, netnsInode: enrolment.place?.netns.inode });
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
    const { uid, place } = enrolment, target = enrolment.request.target.text, capture = this.#captureOf(enrolment);
    enrolment.state = "unenrolling";
    this.#save();
    await this.#takeRules(target, () => capture?.release(), gone);
    await this.#stopProxy(enrolment, zds);
    await this.#takeRules(target, () => capture?.remove(), gone);
    this.#byUid.delete(uid);
    place?.[Symbol.dispose]();
    this.#save();
    this.#options.log.info("unenrolled", { target, name: enrolment.request.name });
  }

  /** It is off the announcer's list for good, even if this fails: ztunnel stops it with the next snapshot at the latest. */
  async #stopProxy({ uid, request }: Enrolment, zds: PodAnnouncer): Promise<void> {
    try {
      await zds.deletePod(uid);
    } catch (error) {
      this.#options.log.warn("ztunnel did not acknowledge the end of a pod", {
        target: request.target.text,
        error: chain(error),
      });
    }
  }

  async #takeRules(target: string, take: () => unknown, gone: boolean): Promise<void> {
    try {
      await take();
    } catch (error) {
      if (!gone) throw error; // It stays listed as unenrolling; asking again, or a restart, tries again.
      this.#options.log.warn("rules not removed from a namespace that is gone", { target, error: chain(error) });
    }
  }

  /** Once for all of them: their rules are in the same tables. */
  #auditShared(): void {
    const { log } = this.#options;
    try {
      const differences = this.#shared.check();
      if (differences.length === 0) return;
      log.warn("rules repaired", { target: "units and control groups", differences: differences.join("; ") });
      this.#shared.write();
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      log.warn("audit failed", { target: "units and control groups", error: chain(error) });
    }
  }

  async #auditOne(enrolment: Enrolment, zds: PodAnnouncer): Promise<void> {
    const { request } = enrolment, { log } = this.#options;
    if (enrolment.state === "unenrolling") return await this.#remove(enrolment, zds, { gone: false });
    let now: Place;
    try {
      now = openPlace(request.target, this.#options.machine);
    } catch (error) {
      if (!isGone(error)) throw error;
      if (request.target.kind === "unit") return await this.#suspend(enrolment, zds);
      log.info("target is gone", { target: request.target.text, error: chain(error) });
      return await this.#remove(enrolment, zds, { gone: true });
    }
    if (enrolment.place === undefined || !samePlace(now, enrolment.place)) {
      return await this.#follow(enrolment, zds, now);
    }
    now[Symbol.dispose]();
    const capture = this.#captureOf(enrolment)!, differences = await capture.check();
    if (differences.length > 0) {
      log.warn("rules repaired", { target: request.target.text, differences: differences.join("; ") });
      await capture.apply();
    }
    enrolment.problems = capture.remarks();
    if (enrolment.state === "enrolling") await this.#establish(enrolment, zds, { removeOnFailure: false });
  }

  /** The target has a new place. Takes `now` over. */
  async #follow(enrolment: Enrolment, zds: PodAnnouncer, now: Place): Promise<void> {
    const { request, slot } = enrolment;
    if (slot === undefined) {
      using _now = now;
      await this.#remove(enrolment, zds, { gone: true });
      if (isProcess(request.target)) return; // Another process got the number: not what was meant.
      const again = openPlace(request.target, this.#options.machine);
      const next = this.#begin(enrolment.uid, request, again, enrolment.file);
      this.#options.log.info("target has a new network namespace", { target: request.target.text });
      return await this.#establish(next, zds, { removeOnFailure: false });
    }
    enrolment.place?.[Symbol.dispose]();
    enrolment.place = now;
    enrolment.state = "enrolling";
    this.#options.log.info("target has a new control group", { target: request.target.text });
    await this.#establish(enrolment, zds, { removeOnFailure: false });
  }

  /** A unit that was stopped is one of the mesh as soon as it runs again; meanwhile nothing listens for it. */
  async #suspend(enrolment: Enrolment, zds: PodAnnouncer): Promise<void> {
    if (enrolment.state === "waiting") return;
    const target = enrolment.request.target.text, capture = this.#captureOf(enrolment);
    this.#options.log.info("unit has stopped", { target });
    await this.#takeRules(target, () => capture?.release(), true);
    await this.#stopProxy(enrolment, zds);
    await this.#takeRules(target, () => capture?.remove(), true);
    enrolment.place?.[Symbol.dispose]();
    enrolment.place = undefined;
    enrolment.state = "waiting";
    enrolment.problems = [];
    this.#save();
  }

  /** @returns "gone", and says so, when the target is gone or is not the one that was enrolled; undefined for a unit that does not run, and for what cannot be looked at. */
  #reopen(entry: EnrolledEntry): Place | "gone" | undefined {
    const { target } = entry.request;
    let place: Place;
    try {
      place = openPlace(target, this.#options.machine);
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      if (!isGone(error)) {
        this.#options.log.warn("enrolled target not seen", { target: target.text, error: chain(error) });
        return undefined;
      }
      if (target.kind === "unit" && entry.state !== "unenrolling") return undefined;
      this.#options.log.info("enrolled target is gone", { target: target.text, error: chain(error) });
      return "gone";
    }
    const same = place.netns.inode === entry.netnsInode && place.netns.device === entry.netnsDevice;
    if (same || !isProcess(target)) return place; // A name that was given again means the new one (CNI-316).
    this.#options.log.info("enrolled process is gone", { target: target.text });
    place[Symbol.dispose]();
    return "gone";
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

  /** What ztunnel was told of it beyond who it is: it has to be told anew where that differs. */
  #announcementOf(request: EnrolRequest, slot: number | undefined): string {
    return JSON.stringify(sharedNetnsOf(request, slot, this.#options.rules));
  }

  #announced({ uid, request, place, slot }: Enrolment): AnnouncedPod {
    const { name, namespace, serviceAccount } = request, shared = sharedNetnsOf(request, slot, this.#options.rules);
    return { uid, netns: place?.netns, workload: { name, namespace, serviceAccount }, shared };
  }

  #statusOf({ uid, request, place, slot, state, problems }: Enrolment): EnrolmentStatus {
    const told = sharedNetnsOf(request, slot, this.#options.rules), netnsInode = place?.netns.inode ?? 0;
    const ports = told && {
      outboundPort: told.outboundPort,
      ...told.inboundPorts.length > 0 && { plaintextPort: told.plaintextPort },
      ...told.dnsPort !== 0 && { dnsPort: told.dnsPort },
      cgroup: place?.cgroup?.path,
    };
    return { ...request, target: request.target.text, uid, state, netnsInode, ...ports, problems };
  }

  #save(): void {
    writeEnrolled(
      this.#options.file,
      [...this.#byUid.values()].map(({ request, state, place, slot, file }) => ({
        request,
        state,
        netnsDevice: place?.netns.device ?? 0,
        netnsInode: place?.netns.inode ?? 0,
        slot,
        file,
      })),
    );
  }
}
