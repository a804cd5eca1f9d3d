/** The eBPF objects of the node: maps and the programs on its cgroups, adopted by their pins when a former agent left them (CNI-214). */
import { MeshError } from "../../base/errors.ts";
import * as libc from "../../os/libc_cold.ts";
import { BpfLink } from "../../os/bpf/links.ts";
import { BpfMap, u32Bytes } from "../../os/bpf/maps.ts";
import { unpin } from "../../os/bpf/pins.ts";
import { BpfProgram, mapsOfProgram, type ProgramKind, programsOfCgroup } from "../../os/bpf/programs.ts";
import { cookieKey } from "../../os/bpf/shared_maps.ts";
import { connectProgram } from "./connect.ts";
import { Counter, NODE_MAPS, type NodeMapFds, type NodeMapKey } from "./maps.ts";
import { originalDestinationProgram } from "./getsockopt.ts";
import { nameProgram } from "./names.ts";
import { type BpfPlaces, preparePins } from "./places.ts";
import { ensureLink, ensureMap, removePodPins } from "./pinned.ts";
import { recoveryProgram } from "./sock_ops.ts";

type NodeMaps = Readonly<Record<NodeMapKey, BpfMap>>;

/** What runs on the cgroup, and how it is written. */
const HOOKS: Readonly<Record<string, (maps: NodeMapFds) => Uint8Array<ArrayBuffer>>> = {
  sockOps: recoveryProgram, // First: a connection that is redirected must be found again.
  connect4: (maps) => connectProgram(maps, 4),
  connect6: (maps) => connectProgram(maps, 6),
  sendmsg4: (maps) => connectProgram(maps, 4, "udp"),
  sendmsg6: (maps) => connectProgram(maps, 6, "udp"),
  recvmsg4: (maps) => nameProgram(maps, 4, { dnsOnly: true }),
  recvmsg6: (maps) => nameProgram(maps, 6, { dnsOnly: true }),
  getpeername4: (maps) => nameProgram(maps, 4, { dnsOnly: false }),
  getpeername6: (maps) => nameProgram(maps, 6, { dnsOnly: false }),
};
/** As well, where ztunnel is of another make. */
const FOREIGN_HOOKS: typeof HOOKS = { getsockopt: originalDestinationProgram };

/** As bpftool shows it. */
export function programName(kind: ProgramKind): string {
  return `am_${kind.toLowerCase()}`;
}

export class NodeObjects implements Disposable {
  readonly places: BpfPlaces;
  readonly maps: NodeMaps;
  readonly fds: NodeMapFds;
  /** ztunnel is of another make, and knows nothing of our maps (CNI-202, CNI-208). */
  readonly foreignZtunnel: boolean;
  readonly #opened: DisposableStack;
  readonly #hooks: ReadonlyMap<ProgramKind, BpfLink>;

  private constructor(
    places: BpfPlaces,
    maps: NodeMaps,
    hooks: ReadonlyMap<ProgramKind, BpfLink>,
    opened: DisposableStack,
  ) {
    this.places = places;
    this.maps = maps;
    this.fds = fdsOf(maps);
    this.foreignZtunnel = places.foreignZtunnel !== undefined;
    this.#hooks = hooks;
    this.#opened = opened;
  }

  /**
   * Makes maps and programs, or adopts those that are pinned: what they have captured stays captured meanwhile.
   * Throws AMB7150 to AMB7152.
   */
  static open(places: BpfPlaces): NodeObjects {
    using opening = new DisposableStack();
    preparePins(places.pins);
    const maps = openMaps(opening, places.pins);
    const hooks = new Map<ProgramKind, BpfLink>(), fds = fdsOf(maps);
    const attach = (kinds: typeof HOOKS, path: string) => {
      using cgroup = folderOf(path);
      for (const [key, instructions] of Object.entries(kinds)) {
        const kind = key as ProgramKind, number = cgroupNumber(path);
        using program = BpfProgram.load(kind, programName(kind), instructions(fds));
        const attached = ensureLink(pinOf(places, kind), program, number, () => BpfLink.attach(program, cgroup.fd));
        hooks.set(kind, opening.use(attached));
      }
    };
    attach(HOOKS, places.cgroup);
    if (places.foreignZtunnel !== undefined) attach(FOREIGN_HOOKS, places.foreignZtunnel);
    else for (const kind of Object.keys(FOREIGN_HOOKS)) unpin(pinOf(places, kind));
    return new NodeObjects(places, maps, hooks, opening.move());
  }

  /** Hooks that run no more, in words: their cgroup has gone, or somebody has taken them off. */
  check(): string[] {
    return [...this.#hooks].flatMap(([kind, link]) =>
      link.info().target !== 0 ? [] : [`the BPF hook ${kind} is detached`]
    );
  }

  /** Whether the programs of another owner before ours claim the namespace (CNI-214). */
  claimedByAnother(cookie: bigint): boolean {
    using cgroup = folderOf(this.places.cgroup);
    const own = this.#hooks.get("connect4")!.info().programId;
    return programsOfCgroup(cgroup.fd, "connect4").some(({ id, name }) => {
      if (id === own || name !== programName("connect4")) return false;
      using stack = new DisposableStack();
      return mapsOfProgram(id).map((it) => stack.use(it)).some(({ fd }) => {
        const copy = libc.fcntl(fd, F_DUPFD_CLOEXEC);
        using map = copy < 0 ? undefined : BpfMap.adopt(copy, NODE_MAPS.enrolled);
        return map?.lookup(cookieKey(cookie)) !== undefined;
      });
    });
  }

  /** What the programs have counted, by name, of all CPUs. */
  counters(): Readonly<Record<keyof typeof Counter, number>> {
    const total = (index: number) =>
      new BigUint64Array(this.maps.stats.lookup(u32Bytes(index))!.buffer).reduce(
        (sum, value) => sum + Number(value),
        0,
      );
    return Object.fromEntries(Object.entries(Counter).map(([name, index]) => [name, total(index)])) as Record<
      keyof typeof Counter,
      number
    >;
  }

  /** Takes hooks and maps off the node with their pins, once nobody has them open: nothing is captured any more. */
  static removePins(folder: string): void {
    for (const { name, isDirectory } of [...Deno.readDirSync(folder)]) {
      if (isDirectory) removePodPins(`${folder}/${name}`);
      else unpin(`${folder}/${name}`);
    }
    Deno.removeSync(folder);
  }

  /** Closes descriptors; what is pinned goes on. */
  [Symbol.dispose](): void {
    this.#opened[Symbol.dispose]();
  }
}

const F_DUPFD_CLOEXEC = 1030;

function fdsOf(maps: NodeMaps): NodeMapFds {
  return Object.fromEntries(Object.entries(maps).map(([key, map]) => [key, map.fd])) as unknown as NodeMapFds;
}

function openMaps(opening: DisposableStack, folder: string): NodeMaps {
  return Object.fromEntries(
    Object.entries(NODE_MAPS).map(([key, shape]) => [key, opening.use(ensureMap(`${folder}/${shape.name}`, shape))]),
  ) as unknown as NodeMaps;
}

function pinOf({ pins }: BpfPlaces, kind: string): string {
  return `${pins}/link_${kind.toLowerCase()}`;
}

function openCgroup(path: string): number {
  const fd = libc.open(path, libc.O.RDONLY);
  if (fd >= 0) return fd;
  throw new MeshError("AMB7153", `cannot open the cgroup ${path}: ${libc.errnoName(fd)}`, {
    remedy: "Mount the cgroup hierarchy of version 2, or name its root with --bpf-cgroup.",
  });
}

function folderOf(path: string): { readonly fd: number } & Disposable {
  const fd = openCgroup(path);
  return { fd, [Symbol.dispose]: () => libc.close(fd) };
}

/** The lower half of the cgroup's number, which is its folder's inode. */
function cgroupNumber(path: string): number {
  return Number(BigInt(Deno.statSync(path).ino ?? 0) & 0xffffffffn);
}
