/** What the agent holds of each pod that it enrolled, and why others are not (CNI-088, CNI-293). */
import type { Netns } from "../../os/netns.ts";
import { redirectionTables } from "../nft_rules.ts";
import { renderNftText } from "../nft_text.ts";
import type { PodRuleOptions } from "../redirection/redirection.ts";
import type { NodePod } from "./node_pod.ts";
import type { PodState } from "./node_metrics.ts";

export interface EnrolledPod {
  pod: NodePod;
  /** Ours, until the pod leaves or gets another. */
  readonly netns: Netns;
  rules: PodRuleOptions;
  /** Whether ztunnel has acknowledged it; until then only the rules are there. */
  acknowledged: boolean;
  /** When we wrote the annotation, on the monotonic clock. */
  annotatedMs: number;
  /** Listens to changes in the namespace; undefined where that cannot be. */
  watching: Disposable | undefined;
}

interface Failure {
  readonly pod: NodePod;
  readonly error: string;
  readonly at: string;
}

/** A pod as the page of pods shows it. */
export interface PodStatus {
  readonly pod: string;
  readonly uid: string;
  readonly ips: readonly string[];
  readonly state: PodState;
  readonly netnsInode?: number;
  readonly rules?: PodRuleOptions;
  readonly lastError?: string;
  readonly lastErrorAt?: string;
}

const FINGERPRINT_CHARS = 16;

/** The pods with a fingerprint of the rules that each is to have: two with the same one are captured in the same way. */
export async function podRows(pods: readonly PodStatus[]): Promise<readonly (PodStatus & { fingerprint?: string })[]> {
  return await Promise.all(pods.map(async (pod) => {
    if (pod.rules === undefined) return pod;
    const text = renderNftText(redirectionTables({ ipv6: true, ...pod.rules }));
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
    return { ...pod, fingerprint: digest.toHex().slice(0, FINGERPRINT_CHARS) };
  }));
}

export class PodTable implements Disposable {
  readonly #byUid = new Map<string, EnrolledPod>();
  readonly #failures = new Map<string, Failure>();

  get size(): number {
    return this.#byUid.size;
  }

  get(uid: string): EnrolledPod | undefined {
    return this.#byUid.get(uid);
  }

  /** What stood there before is the caller's to close. */
  set(enrolled: EnrolledPod): void {
    this.#byUid.set(enrolled.pod.uid, enrolled);
  }

  /** Forgets it, and why it failed. */
  delete(uid: string): void {
    this.#byUid.delete(uid);
    this.#failures.delete(uid);
  }

  failed(pod: NodePod, error: string): void {
    this.#failures.set(pod.uid, { pod, error, at: new Date().toISOString() });
  }

  healed(uid: string): void {
    this.#failures.delete(uid);
  }

  /** Forgets failures of pods that are no more. */
  forgetFailure(uid: string): void {
    if (!this.#byUid.has(uid)) this.#failures.delete(uid);
  }

  /** Every enrolled pod as it was last seen. */
  pods(): readonly NodePod[] {
    return [...this.#byUid.values()].map(({ pod }) => pod);
  }

  /** Those that have all they need, their addresses in the probes' set included. */
  complete(): readonly NodePod[] {
    return [...this.#byUid.values()].filter(({ acknowledged }) => acknowledged).map(({ pod }) => pod);
  }

  counts(): Readonly<Record<PodState, number>> {
    const counts = { enrolled: 0, pending: 0, failed: 0 };
    for (const { acknowledged } of this.#byUid.values()) counts[acknowledged ? "enrolled" : "pending"]++;
    for (const uid of this.#failures.keys()) if (!this.#byUid.has(uid)) counts.failed++;
    return counts;
  }

  /** In order of their names. */
  status(): PodStatus[] {
    const uids = new Set([...this.#byUid.keys(), ...this.#failures.keys()]);
    return [...uids].map((uid) => this.#statusOf(uid)).sort((one, other) => one.pod < other.pod ? -1 : 1);
  }

  /** Closes all handles. */
  [Symbol.dispose](): void {
    for (const { netns, watching } of this.#byUid.values()) {
      watching?.[Symbol.dispose]();
      netns[Symbol.dispose]();
    }
    this.#byUid.clear();
  }

  #statusOf(uid: string): PodStatus {
    const enrolled = this.#byUid.get(uid), failure = this.#failures.get(uid), pod = (enrolled ?? failure)!.pod;
    return {
      pod: `${pod.namespace}/${pod.name}`,
      uid,
      ips: pod.ips,
      state: enrolled === undefined ? "failed" : enrolled.acknowledged ? "enrolled" : "pending",
      ...(enrolled === undefined ? {} : { netnsInode: enrolled.netns.inode, rules: enrolled.rules }),
      ...(failure === undefined ? {} : { lastError: failure.error, lastErrorAt: failure.at }),
    };
  }
}
