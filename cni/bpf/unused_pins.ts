/** What is pinned on a node that no pod needs any more, for an agent that goes for good (CNI-047). */
import { NodeObjects } from "./node_objects.ts";
import { isAttached, linkPins } from "./gone_pods.ts";
import { removePodPins } from "./pinned.ts";

/** Takes away what is pinned for pods that are gone; and hooks and maps, too, unless a pod that runs is captured still. */
export function removeUnusedPins(folder: string): void {
  const pods = podFolders(folder);
  if (pods === undefined) return;
  const used = pods.filter((pod) => linkPins(pod).some((name) => isAttached(`${pod}/${name}`)));
  if (used.length === 0) return NodeObjects.removePins(folder);
  for (const pod of pods) if (!used.includes(pod)) removePodPins(pod);
}

function podFolders(folder: string): string[] | undefined {
  try {
    return [...Deno.readDirSync(folder)].filter(({ isDirectory }) => isDirectory).map(({ name }) =>
      `${folder}/${name}`
    );
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined; // Nobody has redirected by eBPF here.
    throw error;
  }
}
