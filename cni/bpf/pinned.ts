/** Objects that stand in a bpffs under a name: taken up if they are what they should be, made anew if not. */
import { BpfLink } from "../../os/bpf/links.ts";
import { MeshError } from "../../base/errors.ts";
import type { BpfObject } from "../../os/bpf/kernel.ts";
import type { MapShape } from "../../os/bpf/map_shape.ts";
import { BpfMap } from "../../os/bpf/maps.ts";
import { openPinned, pin, unpin } from "../../os/bpf/pins.ts";
import type { BpfProgram } from "../../os/bpf/programs.ts";

/** The pinned map of this shape, or a new one in its place. Throws AMB7150. */
export function ensureMap(path: string, shape: MapShape): BpfMap {
  return ensure<BpfMap>(path, (fd) => BpfMap.adopt(fd, shape), () => BpfMap.create(shape));
}

/** The pinned link with this program in it, if it is still where it should be; else a new one. Throws AMB7150. */
export function ensureLink(path: string, program: BpfProgram, target: number, attach: () => BpfLink): BpfLink {
  const adopt = (fd: number) => {
    const kept = new BpfLink(fd);
    if (kept.info().target === target) {
      kept.replace(program);
      return kept;
    }
    kept[Symbol.dispose]();
    return undefined;
  };
  return ensure(path, adopt, attach);
}

const TRIES_MAX = 4;

/** Makes the new one before the name of the old one goes: at no moment is there nothing. Another agent may do the same just now. */
function ensure<T extends BpfObject>(path: string, adopt: (fd: number) => T | undefined, make: () => T): T {
  for (let tries = 0; tries < TRIES_MAX; tries++) {
    const fd = openPinned(path), kept = fd === undefined ? undefined : adopt(fd);
    if (kept !== undefined) return kept;
    using making = new DisposableStack();
    const made = making.use(make());
    if (fd !== undefined) unpin(path); // Another version's, or of what is gone.
    if (!pin(made.fd, path)) continue; // Somebody was faster: theirs will do.
    making.move();
    return made;
  }
  throw new MeshError("AMB7157", `${path} is taken again and again`, {
    remedy: "See that no second node agent works with the same --bpf-pins.",
  });
}

/** Names in a folder of pins; none when there is no such folder. */
export function pinNames(folder: string): string[] {
  try {
    return [...Deno.readDirSync(folder)].map(({ name }) => name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/** Takes away a pod's pins: what nothing else holds is gone with them. */
export function removePodPins(folder: string): void {
  const names = pinNames(folder);
  for (const name of names) unpin(`${folder}/${name}`);
  try {
    Deno.removeSync(folder);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
