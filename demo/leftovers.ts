/** Whether a lab has left anything: what there was before it went, against what there is afterwards. */
import type { Checks } from "./checks.ts";
import { isLinkOfLab, labNamespaces, numberOf } from "./lab/network.ts";
import { MeshError } from "../base/errors.ts";
import { openNetns } from "../os/netns.ts";
import { RouteSocket } from "../os/netlink/rtnetlink.ts";
import type { Mesh } from "./lab/mesh.ts";
import { pause } from "./lab/until.ts";

const EXIT_MS = 30_000; // what the kernel needs to bury a process, at most, on a machine that does much else

/** What a lab occupies, noted while it stands. */
export interface Inventory {
  readonly folder: string;
  /**
   * Its namespaces by inode, with a number that is never given twice: an inode is given out again as soon as the last
   * process has gone, to a lab of somebody else for instance. Old kernels have no such number.
   */
  readonly netns: ReadonlyMap<number, bigint | undefined>;
}

export function takeInventory(mesh: Mesh): Inventory {
  return { folder: mesh.folder, netns: mesh.network.numbers };
}

/** Interfaces of our own namespace, to compare with those afterwards. */
export function interfaceNames(): string[] {
  using routes = RouteSocket.open();
  return routes.links().map((link) => link.name).sort();
}

/** Checks that nothing is left of it. Rules, routes and interfaces live in namespaces and are gone with them. */
export async function checkLeftovers(
  checks: Checks,
  inventory: Inventory,
  interfacesBefore: readonly string[],
): Promise<void> {
  await checks.check("no process is left", async () => {
    const deadlineMs = performance.now() + EXIT_MS;
    let left = processesIn(inventory.netns);
    while (left.length > 0 && performance.now() < deadlineMs) {
      await pause(20);
      left = processesIn(inventory.netns);
    }
    return { ok: left.length === 0, detail: left.length === 0 ? "all have ended" : left.join(", ") };
  });
  await checks.check("no namespace, and so no redirection rule, is left", () => {
    const names = labNamespaces(Deno.pid);
    const mounts = Deno.readTextFileSync("/proc/self/mountinfo").split("\n").filter((line) =>
      line.includes(`ambit-lab-${Deno.pid}-`)
    );
    const count = inventory.netns.size;
    return {
      ok: names.length === 0 && mounts.length === 0 && count > 0,
      detail: names.length === 0 ? `${count} were made, all are gone` : names.join(", "),
    };
  });
  await checks.check("no file and no interface is left", () => {
    // Whatever else is on this machine may make interfaces meanwhile.
    const ours = interfaceNames().filter((name) => isLinkOfLab(name) && !interfacesBefore.includes(name));
    const folderLeft = exists(inventory.folder);
    const detail = [`${inventory.folder} is ${folderLeft ? "there" : "gone"}`, ...ours].join(", ");
    return { ok: !folderLeft && ours.length === 0, detail };
  });
}

function processesIn(numbers: Inventory["netns"]): number[] {
  return [...Deno.readDirSync("/proc")].map(({ name }) => Number(name)).filter((pid) => {
    if (!(pid > 0)) return false;
    try {
      const inode = Number(/\[(\d+)\]/.exec(Deno.readLinkSync(`/proc/${pid}/ns/net`))?.[1]);
      if (!numbers.has(inode)) return false;
      using netns = openNetns(`/proc/${pid}/ns/net`);
      return netns.inode === inode && numberOf(netns) === numbers.get(inode);
    } catch (error) {
      if (error instanceof MeshError) return false;
      // Ended in the meantime, or somebody else's: ours we may look at.
      if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.PermissionDenied) return false;
      throw error;
    }
  });
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
