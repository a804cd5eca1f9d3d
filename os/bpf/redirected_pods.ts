/** ztunnel's part of eBPF redirection: which pods are redirected so, and their listeners put where the lookup hook finds them (CNI-202, CNI-205). */
import { accepted } from "./kernel.ts";
import { BpfMap, u32Bytes } from "./maps.ts";
import { openPinned } from "./pins.ts";
import { cookieKey, LISTENERS_SHAPE, ListenerSlot, podPinFolder, SHARED_MAPS } from "./shared_maps.ts";

/** The maps that a node agent has pinned. */
export class RedirectedPods implements Disposable {
  readonly #folder: string;
  readonly #enrolled: BpfMap;
  readonly #byTuple: BpfMap;

  private constructor(folder: string, enrolled: BpfMap, byTuple: BpfMap) {
    this.#folder = folder;
    this.#enrolled = enrolled;
    this.#byTuple = byTuple;
  }

  /** @returns undefined where no node agent redirects by eBPF, or one of another version. Throws AMB7150. */
  static open(folder: string): RedirectedPods | undefined {
    using opening = new DisposableStack();
    const maps = [SHARED_MAPS.enrolled, SHARED_MAPS.byTuple].map((shape) => {
      const fd = openPinned(`${folder}/${shape.name}`);
      return fd === undefined ? undefined : BpfMap.adopt(fd, shape);
    });
    for (const map of maps) if (map !== undefined) opening.use(map);
    const [enrolled, byTuple] = maps;
    if (enrolled === undefined || byTuple === undefined) return undefined;
    opening.move();
    return new RedirectedPods(folder, enrolled, byTuple);
  }

  /** The map that a worker looks up what captured connections were meant for. */
  get byTupleFd(): number {
    return this.#byTuple.fd;
  }

  /** Whether both are the same maps of the kernel. */
  equals(other: RedirectedPods): boolean {
    return this.#enrolled.id === other.#enrolled.id && this.#byTuple.id === other.#byTuple.id;
  }

  has(cookie: bigint): boolean {
    return this.#enrolled.lookup(cookieKey(cookie)) !== undefined;
  }

  /** The namespace is redirected by other means from now on. */
  forget(cookie: bigint): void {
    this.#enrolled.delete(cookieKey(cookie));
  }

  /** Puts a listener of each family into the pod's map; of several that share a port any will do. Throws AMB7150. */
  serve(cookie: bigint, listeners: { readonly ipv4: number; readonly ipv6: number | undefined }): void {
    const path = `${podPinFolder(this.#folder, cookie)}/${LISTENERS_SHAPE.name}`;
    using map = BpfMap.adopt(accepted(openPinned(path) ?? -ENOENT, `open ${path}`), LISTENERS_SHAPE);
    accepted(map === undefined ? -ENOENT : 0, `use ${path}`);
    map!.update(u32Bytes(ListenerSlot.IPV4), cookieKey(BigInt(listeners.ipv4)));
    if (listeners.ipv6 !== undefined) map!.update(u32Bytes(ListenerSlot.IPV6), cookieKey(BigInt(listeners.ipv6)));
  }

  [Symbol.dispose](): void {
    this.#enrolled[Symbol.dispose]();
    this.#byTuple[Symbol.dispose]();
  }
}

const ENOENT = 2;
