/** Sockets of a pod that outlived the ztunnel which opened them: they came back from the node agent, or from a predecessor. */
import { retireSocket, type SocketFacts, socketFacts } from "../../os/socket_facts.ts";
import { closeFd } from "../../os/sockets.ts";

interface Kept {
  readonly fd: number;
  readonly facts: SocketFacts;
}

/** Each belongs to this until it is taken. */
export class KeptSockets implements Disposable {
  #sockets: Kept[] = [];
  readonly #others: number[] = [];
  readonly #shared: boolean;

  /**
   * Takes the descriptors over. @param shared whether somebody else serves them still; if not, one that nobody takes is
   * closed for all who hold it, so that whoever waits in its queue does not wait for ever.
   */
  constructor(fds: readonly number[], { shared }: { readonly shared: boolean }) {
    this.#shared = shared;
    for (const fd of fds) {
      const facts = socketFacts(fd);
      if (facts === undefined) this.#others.push(fd);
      else this.#sockets.push({ fd, facts });
    }
  }

  /** Whether nothing is left to take; so it is always on a kernel that does not tell a socket's namespace. */
  get isEmpty(): boolean {
    return this.#sockets.length === 0;
  }

  /** The sockets of a namespace that fit; they are the caller's. Those of another namespace fit nobody. */
  take(netns: bigint, fits: (facts: SocketFacts) => boolean, countMax = Infinity): Kept[] {
    const taken = this.#sockets.filter(({ facts }) => facts.netns === netns && fits(facts)).slice(0, countMax);
    this.#sockets = this.#sockets.filter((it) => !taken.includes(it));
    return taken;
  }

  [Symbol.dispose](): void {
    for (const fd of this.#others.splice(0)) closeFd(fd);
    for (const { fd, facts } of this.#sockets.splice(0)) {
      if (this.#shared || facts.transport === "udp") closeFd(fd);
      else retireSocket(fd);
    }
  }
}
