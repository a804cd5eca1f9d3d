/** Gives each process of a path cores of its own, so that the scheduler's choices are not what is measured. */
import type { Path } from "./measure.ts";
import { runTool } from "./topology.ts";

/** Cores by their use. */
export interface CorePlan {
  readonly client: readonly number[];
  readonly out: readonly number[];
  readonly in: readonly number[];
  readonly server: readonly number[];
}

/** One core for each end of the load, `workers` for each proxy. @returns undefined when there are not enough. */
export function planCores(cores: number, workers: number): CorePlan | undefined {
  if (cores < 2 * workers + 2) return undefined;
  const range = (start: number, count: number) => Array.from({ length: count }, (_, at) => start + at);
  return {
    client: [0],
    out: range(1, workers),
    in: range(1 + workers, workers),
    server: [1 + 2 * workers],
  };
}

/** Moves all threads of a path's processes to their cores; threads that they start later follow. */
export function pin(path: Path, plan: CorePlan): void {
  setCores(path.client.pid, plan.client);
  setCores(path.server.pid, plan.server);
  for (const process of path.running.processes) setCores(process.pid, plan[process.name]);
  // While handshakes are made, only the inbound proxy and its load work.
  for (const helper of path.helpers) setCores(helper.pid, [...plan.out, ...plan.server]);
}

function setCores(pid: number, cores: readonly number[]): void {
  runTool("taskset", ["-a", "-p", "-c", cores.join(","), `${pid}`]);
}
