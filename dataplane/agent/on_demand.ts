/** On-demand configuration: names that workers miss are asked of istiod, and answered once its word is in force (ZT-127). */
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Answer } from "./answers.ts";
import type { Publisher } from "./publisher.ts";
import type { PodFacts } from "./state.ts";
import type { XdsClient } from "./xds_client.ts";

const COMPLAINT_MS = 60_000; // Repeats are said once a minute.

export class OnDemandResources {
  readonly #xds: Pick<XdsClient, "request">;
  readonly #publisher: Pick<Publisher, "published">;
  readonly #clusterId: string;
  readonly #log: Logger;
  #complainedAtMs = -Infinity;

  constructor(options: {
    readonly xds: Pick<XdsClient, "request">;
    readonly publisher: Pick<Publisher, "published">;
    readonly clusterId: string;
    readonly log: Logger;
  }) {
    this.#xds = options.xds;
    this.#publisher = options.publisher;
    this.#clusterId = options.clusterId;
    this.#log = options.log;
  }

  /** Asks for a name. @returns `known` once workers can see what there is by it, be it nothing; else `unsupported`. Never rejects. */
  async find(name: string): Promise<Answer> {
    try {
      if (!await this.#xds.request(name)) this.#complain(name, "istiod has not answered within 10 s");
      else if (await this.#publisher.published()) return "known";
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      this.#complain(name, `${chain(error)} (${error.remedy})`);
    }
    return "unsupported";
  }

  /**
   * Asks for an enrolled pod's own workload, which no lookup of a connection would name (ZT-016): by the uid that istiod
   * gives pods. An istiod that names them otherwise sends those of the node along with any answer.
   */
  expectPod({ namespace, name }: PodFacts): void {
    void this.find(`${this.#clusterId}//Pod/${namespace}/${name}`);
  }

  #complain(name: string, error: string): void {
    const nowMs = performance.now();
    if (nowMs - this.#complainedAtMs < COMPLAINT_MS) return;
    this.#complainedAtMs = nowMs;
    this.#log.warn("a name of the mesh could not be asked for; connections that need it fail", { name, error });
  }
}
