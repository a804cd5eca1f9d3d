/** Rules change while a worker connects without pause, and everything that it reached is counted. */
import { assert, assertEquals, assertGreater } from "@std/assert";
import * as libc from "../../os/libc_cold.ts";
import type { Netns } from "../../os/netns.ts";
import type { RawSocket } from "./raw_socket.ts";

const LOAD_MS_MAX = 300_000;

export interface ConnectLoad {
  /** Where connections are begun, and where they are meant to go. */
  readonly netns: Netns;
  readonly ip: string;
  readonly port: number;
  /** Who must take all of them, and who none; neither blocks. */
  readonly outbound: RawSocket;
  readonly remote: RawSocket;
  /** How often rules change at least, and how many connections there are at least. */
  readonly rounds: number;
  readonly change: (round: number) => void;
}

/** Changes rules under load. Asserts that every connection was captured. */
export async function connectWhileRulesChange(load: ConnectLoad): Promise<void> {
  const { netns, ip, port, outbound, remote, change } = load;
  const worker = new Worker(new URL("./connect_worker.ts", import.meta.url), { type: "module" });
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const finished = new Promise<number>((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = (event) => reject(new Error(event.message));
  });
  worker.postMessage({ netnsPath: `/proc/${Deno.pid}/fd/${netns.fd}`, ip, port, stop });
  let captured = 0, rounds = 0;
  const deadline = performance.now() + LOAD_MS_MAX;
  while (rounds < load.rounds || captured < load.rounds) {
    change(rounds);
    assert(performance.now() < deadline, "connections keep coming");
    rounds++;
    captured += takeAll(outbound);
    await new Promise((resolve) => setTimeout(resolve, 0)); // So that a failure of the worker is seen.
  }
  Atomics.store(stop, 0, 1);
  const emptying = setInterval(() => captured += takeAll(outbound), 1); // Its last connect may wait for room.
  const connected = await finished;
  clearInterval(emptying);
  worker.terminate();
  captured += takeAll(outbound);
  assertEquals([captured, takeAll(remote)], [connected, 0]);
  assertGreater(connected, load.rounds);
}

/** Takes all connections that wait at a listener, and closes them. */
export function takeAll(listener: RawSocket): number {
  for (let count = 0;; count++) {
    const fd = libc.accept(listener.fd);
    if (fd < 0) return count;
    libc.close(fd);
  }
}
