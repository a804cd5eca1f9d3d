/** Hears of changes to rules, routes and addresses in network namespaces, from the kernel itself (CNI-188). */
import { type ChangeTopic, NetlinkListener } from "../os/netlink/listener.ts";
import type { Netns } from "../os/netns.ts";
import { Poller, READABLE } from "../os/poller.ts";

/** Changes come in bursts, our own among them: a look at them together, soon enough to repair within a second. */
const SETTLE_MS = 200;

export class ChangeWatch implements AsyncDisposable {
  readonly #poller = new Poller();

  /**
   * Calls back some time after there were changes. @param netns undefined: the one that this thread is in. @param restMs how
   * long it stays quiet after a call, at least. Throws AMB7180.
   */
  watch(netns: Netns | undefined, onChange: () => void, topics: readonly ChangeTopic[], restMs = 0): Disposable {
    using watching = new DisposableStack();
    let timer: ReturnType<typeof setTimeout> | undefined, calledAtMs = -Infinity;
    const heard = () => {
      timer ??= setTimeout(() => {
        timer = undefined;
        calledAtMs = performance.now();
        onChange();
      }, Math.max(SETTLE_MS, calledAtMs + restMs - performance.now()));
    };
    for (const topic of topics) {
      const listener = watching.use(new NetlinkListener(topic, netns));
      const watched = this.#poller.watch(listener.fd, READABLE, () => {
        if (listener.drain()) heard();
      });
      watching.defer(() => watched.end());
    }
    watching.defer(() => clearTimeout(timer));
    return watching.move();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#poller[Symbol.asyncDispose]();
  }
}
