/** Sockets that ztunnel listens on in pods, held for it: while none runs, who connects waits for the next one. */
import type { Logger } from "../base/log.ts";
import { closeDescriptor } from "../os/seqpacket.ts";

/** A pod's: three kinds of listener for each of sixteen workers, SOCKS, and DNS by UDP and TCP at two addresses. */
export const POD_SOCKETS_MAX = 68;
/** Of all pods. Beyond it new pods are refused while no ztunnel runs, as without this. */
const SOCKETS_MAX = 16_384;
/**
 * How long after the last ztunnel: a container's start and that of the mesh take seconds. Then whoever waits is refused, and
 * whoever comes: nobody hangs on a proxy that does not come back.
 */
const HOLD_MS = 20_000;

export interface HeldSocketsOptions {
  readonly log: Logger;
  /** For tests. */
  readonly holdMs?: number;
  /** Where descriptors are scarcer than {@link SOCKETS_MAX}. */
  readonly socketsMax?: number;
}

/** Owns the descriptors. */
export class HeldSockets implements Disposable {
  readonly #options: HeldSocketsOptions;
  readonly #byUid = new Map<string, readonly number[]>();
  #count = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(options: HeldSocketsOptions) {
    this.#options = options;
  }

  /** Whether a pod's sockets may come. */
  get hasRoom(): boolean {
    return this.#count + POD_SOCKETS_MAX <= Math.min(SOCKETS_MAX, this.#options.socketsMax ?? SOCKETS_MAX);
  }

  of(uid: string): readonly number[] {
    return this.#byUid.get(uid) ?? [];
  }

  /** Takes the descriptors over, in place of what was held of the pod. */
  replace(uid: string, fds: readonly number[]): void {
    this.drop(uid);
    for (const fd of fds.slice(POD_SOCKETS_MAX)) closeDescriptor(fd);
    const own = fds.slice(0, POD_SOCKETS_MAX);
    if (own.length === 0) return;
    this.#byUid.set(uid, own);
    this.#count += own.length;
  }

  /** The pod has gone, or has another namespace. */
  drop(uid: string): void {
    const fds = this.of(uid);
    for (const fd of fds) closeDescriptor(fd);
    this.#count -= fds.length;
    this.#byUid.delete(uid);
  }

  /** No ztunnel runs any more, as far as is known. */
  startClock(): void {
    clearTimeout(this.#timer);
    if (this.#byUid.size === 0) return;
    this.#timer = setTimeout(() => {
      this.#options.log.warn("no ztunnel has come back: connections to its pods are refused now", {
        pods: this.#byUid.size,
      });
      this.#dropAll();
    }, this.#options.holdMs ?? HOLD_MS);
    Deno.unrefTimer(this.#timer);
  }

  /** One runs. */
  stopClock(): void {
    clearTimeout(this.#timer);
  }

  [Symbol.dispose](): void {
    this.stopClock();
    this.#dropAll();
  }

  #dropAll(): void {
    for (const uid of [...this.#byUid.keys()]) this.drop(uid);
  }
}
