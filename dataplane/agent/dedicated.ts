/** Dedicated mode: one process for one workload, with its listeners in the process's own network namespace (ZT-001, ZT-002). */
import { closeFd, type Listening } from "../../os/sockets.ts";
import { OWN_NETNS, type Pods } from "./pods.ts";
import type { PodFacts } from "./state.ts";

/** The one workload, from its listeners to its service. */
export class Dedicated implements Disposable {
  readonly #pods: Pods;
  readonly #workload: PodFacts;
  #listeners: readonly (readonly Listening[])[] | undefined;
  #bound = false;
  #serving = false;

  constructor(pods: Pods, workload: PodFacts) {
    this.#pods = pods;
    this.#workload = workload;
  }

  /**
   * Takes the ports, so that whoever connects waits instead of being refused. Nothing is accepted yet (ZT-222).
   * @throws MeshError AMB7054 where another process has one of them: there is nothing to serve then (ZT-004).
   */
  bind(): void {
    this.#listeners = this.#pods.listen(OWN_NETNS);
    this.#bound = true;
  }

  /** Whether the ports are taken: the readiness task `proxy` (ZT-221). */
  get bound(): boolean {
    return this.#bound;
  }

  /** Whether it serves, DNS too: the readiness task `dns proxy` (ZT-221). */
  get serving(): boolean {
    return this.#serving;
  }

  /** Begins to serve, once the mesh is known. */
  async start(): Promise<void> {
    const { namespace, name } = this.#workload, listeners = this.#listeners;
    this.#listeners = undefined; // The workers close them from now on.
    await this.#pods.addPod(
      { uid: `${namespace}/${name}`, netnsFd: OWN_NETNS, info: this.#workload },
      undefined,
      listeners,
    );
    this.#serving = true;
  }

  [Symbol.dispose](): void {
    for (const { fd } of this.#listeners?.flat() ?? []) closeFd(fd);
    this.#listeners = undefined;
  }
}
