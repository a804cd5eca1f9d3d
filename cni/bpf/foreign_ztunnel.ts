/** Whether eBPF's hooks serve the ztunnel that has connected: what it is it says itself, where it runs the kernel does. */
import { MeshError } from "../../base/errors.ts";
import { findCgroupRoot, unifiedPathOf } from "../bare/cgroups.ts";
import type { RedirectSettings } from "../redirection/choices.ts";
import type { Redirection } from "../redirection/redirection.ts";

export interface ForeignParts {
  readonly settings: Pick<RedirectSettings, "bpfForeignZtunnel">;
  readonly redirection: Pick<Redirection, "name">;
  /** The control group of a process, as a folder; undefined where that cannot be seen. */
  readonly cgroupOf?: (processId: number) => string | undefined;
}

/**
 * Ours names features of its own in its hello, and reads the destinations from the pins; one of another make asks the kernel
 * for them, which only hooks on its control group answer. Without those it would refuse every connection.
 * @returns What the ZDS server asks of each ztunnel.
 */
export function refusesForeign(
  { settings, redirection, cgroupOf = visibleCgroupOf }: ForeignParts,
): (features: number, processId: number | undefined) => string | undefined {
  return (features, processId) => {
    if (redirection.name !== "bpf" || settings.bpfForeignZtunnel !== undefined || features !== 0) return undefined;
    const cgroup = processId === undefined || processId === 0 ? undefined : cgroupOf(processId);
    return "it is of another make, which --redirect=bpf serves only where the node agent has " +
      `--bpf-foreign-ztunnel=${cgroup ?? "DIR, with DIR for its control group"}`;
  };
}

function visibleCgroupOf(processId: number): string | undefined {
  try {
    const path = unifiedPathOf(Deno.readTextFileSync(`/proc/${processId}/cgroup`));
    // In the root, or in what it shares with others, hooks would answer whoever else is there.
    return path === undefined || path === "" ? undefined : `${findCgroupRoot()}/${path}`;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof MeshError) return undefined; // It has ended, or there are none.
    throw error;
  }
}
