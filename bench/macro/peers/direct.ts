/** No proxy at all: what the machine and the load generator can do. */
import type { Peer, RunningPeer } from "./peer.ts";

export class Direct implements Peer {
  readonly name = "direct";
  readonly hasWorkers = false;
  readonly descriptorsPerConnection = 1;

  describe(): Promise<string> {
    return Promise.resolve("TCP without a proxy");
  }

  setup(): Promise<RunningPeer> {
    return Promise.resolve({ processes: [], tls: undefined });
  }
}
