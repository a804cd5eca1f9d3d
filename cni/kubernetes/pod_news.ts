/** What becomes of a node's pods, told to whoever counts it or says it to people. */
import type { NodePod } from "./node_pod.ts";

/** Who asked: the container runtime through the plugin, or the agent itself by what the API server says. */
export type EnrolPath = "plugin" | "informer";

/** What was found wrong, and made right: the label of a counter (CNI-097). */
export type Repair = "rules" | "listeners" | "netns" | "annotation" | "probe_set" | "host_rules";

export interface PodNews {
  enrolled(pod: NodePod, how: { readonly path: EnrolPath; readonly ms: number }): void;
  failed(pod: NodePod, how: { readonly path: EnrolPath; readonly ms: number; readonly error: unknown }): void;
  /** `lives`: it goes on without the mesh; else it has ended. */
  unenrolled(pod: NodePod, how: { readonly lives: boolean }): void;
  repaired(pod: NodePod, what: Repair, found: string): void;
  /** An annotation that cannot be read, and is passed over. */
  unreadable(pod: NodePod, problem: string): void;
}

/** Tells all of them, in order. */
export function toAll(listeners: readonly PodNews[]): PodNews {
  const each = (tell: (listener: PodNews) => void) => listeners.forEach(tell);
  return {
    enrolled: (pod, how) => each((it) => it.enrolled(pod, how)),
    failed: (pod, how) => each((it) => it.failed(pod, how)),
    unenrolled: (pod, how) => each((it) => it.unenrolled(pod, how)),
    repaired: (pod, what, found) => each((it) => it.repaired(pod, what, found)),
    unreadable: (pod, problem) => each((it) => it.unreadable(pod, problem)),
  };
}
