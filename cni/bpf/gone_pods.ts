/** Pins of pods whose network namespace went while no agent was there to hear of it. */
import { BpfLink } from "../../os/bpf/links.ts";
import { openPinned } from "../../os/bpf/pins.ts";
import { cookieKey, LISTENERS_SHAPE, podPinFolder } from "../../os/bpf/shared_maps.ts";
import type { NodeObjects } from "./node_objects.ts";
import { pinNames, removePodPins } from "./pinned.ts";
import { MARKER } from "./pod_objects.ts";
import { syncExceptions, syncPorts } from "./pod_values.ts";

/** Takes away what is pinned for namespaces that are no more: all links into them have come loose. */
export function forgetGone({ places, maps }: NodeObjects): void {
  for (const key of maps.enrolled.keys()) {
    const cookie = new DataView(key.buffer).getBigUint64(0, true), folder = podPinFolder(places.pins, cookie);
    const links = linkPins(folder);
    if (links.length === 0 || links.some((name) => isAttached(`${folder}/${name}`))) continue;
    maps.enrolled.delete(cookieKey(cookie));
    syncExceptions(maps, cookie, []);
    syncPorts(maps, cookie, []);
    removePodPins(folder);
  }
}

/** Names of the links that are pinned for a pod. */
export function linkPins(folder: string): string[] {
  return pinNames(folder).filter((name) => name !== LISTENERS_SHAPE.name && name !== MARKER);
}

export function isAttached(path: string): boolean {
  const fd = openPinned(path);
  if (fd === undefined) return false;
  using link = new BpfLink(fd);
  return link.info().target !== 0;
}
