/** The kinds of churn of a soak: each a loop of deeds until the time is up, which leaves the mesh as it found it. */
import type { Stage } from "../stage.ts";
import { guests } from "./guests.ts";
import { policyGame, policyNoise } from "./policies.ts";
import { cniRestarts, istiodKills, workloadCrowds } from "./roles.ts";
import { rootRotation } from "./roots.ts";
import { takeovers } from "./takeovers.ts";

export interface Churn {
  readonly name: string;
  /** Returns when `stage.over` is aborted and everything that it added is gone. */
  run(stage: Stage): Promise<void>;
}

export const CHURNS: readonly Churn[] = [
  { name: "guests", run: (stage) => guests(stage, 1) },
  { name: "more guests", run: (stage) => guests(stage, 2) },
  { name: "policies", run: policyGame },
  { name: "policies of no weight", run: policyNoise },
  { name: "workloads", run: workloadCrowds },
  { name: "istiod", run: istiodKills },
  { name: "node agents", run: cniRestarts },
  { name: "roots", run: rootRotation },
  { name: "ztunnels", run: takeovers },
];
