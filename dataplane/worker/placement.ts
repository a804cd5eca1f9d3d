/** Which worker serves a new connection: the one that accepted it, unless another has clearly less to do. */
import type { Rows } from "../../base/shm/rows.ts";
import { WORKER } from "../tables/layout.ts";

/** For a captured connection: by open connections. `load` is the own worker's. */
export function leastLoaded(workers: Rows<"worker">, own: number, load: number): number {
  let best = own, least = load;
  if (least < 2) return own;
  for (let worker = 0; worker < workers.rowCount; worker++) {
    const others = worker === own ? load : workers.load(worker, WORKER.load);
    if (others < least) {
      least = others;
      best = worker;
    }
  }
  // Moving a connection costs a wake-up: only a clear difference is worth it.
  return load > 2 * least + 1 ? best : own;
}

/** For a downstream's session: by sessions, since each may carry many tunnels and stays for long. */
export function fewestSessions(workers: Rows<"worker">, own: number): number {
  let best = own, fewest = workers.getF64(own, WORKER.downstreamSessions);
  for (let worker = 0; worker < workers.rowCount; worker++) {
    const sessions = workers.getF64(worker, WORKER.downstreamSessions);
    if (sessions < fewest) {
      fewest = sessions;
      best = worker;
    }
  }
  return best;
}
