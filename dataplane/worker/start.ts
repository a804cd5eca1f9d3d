/** What the agent posts to a worker, once, at its start. After it the two speak through shared memory alone. */
import type { TlsPolicy } from "../../os/api.ts";
import type { TableHandles } from "../tables/handles.ts";
import type { ShardOptions } from "./shard_options.ts";

/** Records of a hand-over ring: listener kind, pod row, pod epoch, descriptor. */
export const HANDOVER_WORDS = 4;
export const HANDOVER_ENTRIES = 256;

export interface WorkerStart {
  readonly handles: TableHandles;
  readonly options: ShardOptions;
  /** Eventfds that wake the workers, by worker. */
  readonly wakeFds: readonly number[];
  /** The eventfd that wakes the agent. */
  readonly agentFd: number;
  /** Rings between workers, `from * workers + to`, each of `handoverBytes`. */
  readonly handover: SharedArrayBuffer;
  readonly handoverBytes: number;
  readonly memoryBytes: number;
  readonly tls: TlsPolicy;
}
