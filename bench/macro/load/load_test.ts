import { assert, assertEquals } from "@std/assert";
import { Churn, Download, Exchanges, Idle, type Load, Upload } from "./client_side.ts";
import { type Target, targetOf } from "./connection.ts";
import { Counters } from "./counters.ts";
import { EXCHANGE_BYTES } from "./messages.ts";
import { OpenLoop } from "./open_loop.ts";
import { Reactor } from "./reactor.ts";
import { listen, type PortName } from "./server_side.ts";

const ANY_PORT = { sink: 0, source: 0, echo: 0, oneShot: 0 };
const DEADLINE_MS = 10_000; // All traffic is on loopback: what does not come within it does not come at all.

/** Client and server of the load in one loop. */
class Rig {
  readonly reactor = new Reactor(32 << 10);
  readonly server = new Counters();
  readonly client = new Counters();
  readonly #ports = listen(this.reactor, this.server, ANY_PORT);

  target(port: PortName): Target {
    return targetOf("127.0.0.1", this.#ports[port]);
  }

  /** Turns until `done`; then the load is stopped, and nothing has failed. */
  run(load: Load, done: () => boolean): void {
    this.turnUntil(done);
    load.stop();
    assertEquals([this.client.firstFailure, this.server.firstFailure], ["", ""]);
  }

  turnUntil(done: () => boolean): void {
    const deadlineMs = performance.now() + DEADLINE_MS;
    while (!done()) {
      assert(performance.now() < deadlineMs, "it comes about in time");
      this.reactor.turn();
    }
  }
}

Deno.test("Upload writes on its connections, and the sink counts what arrives", () => {
  const rig = new Rig(), load = new Upload(rig.reactor, rig.client, rig.target("sink"), 3).start();
  rig.run(load, () => load.ready && rig.server.receivedBytes > 1 << 20);
});

Deno.test("Download counts what the source writes", () => {
  const rig = new Rig(), load = new Download(rig.reactor, rig.client, rig.target("source"), 3).start();
  rig.run(load, () => load.ready && rig.client.receivedBytes > 1 << 20);
});

Deno.test("Exchanges counts whole answers only", () => {
  const rig = new Rig(), load = new Exchanges(rig.reactor, rig.client, rig.target("echo"), 4).start();
  rig.run(load, () => rig.client.completed >= 1000);
  const spareBytes = rig.client.receivedBytes - rig.client.completed * EXCHANGE_BYTES;
  assert(spareBytes >= 0 && spareBytes < 4 * EXCHANGE_BYTES, "only parts of answers under way are not counted");
});

Deno.test("Churn opens a new connection for every exchange, and loses none", () => {
  const rig = new Rig(), load = new Churn(rig.reactor, rig.client, rig.target("oneShot"), 4).start();
  rig.run(load, () => rig.client.completed >= 500);
  assertEquals(rig.client.failures, 0);
});

Deno.test("Idle is ready when every connection has exchanged once, and then sends nothing", () => {
  const rig = new Rig(), load = new Idle(rig.reactor, rig.client, rig.target("echo"), 100).start();
  rig.run(load, () => load.ready);
  assertEquals([rig.client.completed, rig.client.receivedBytes], [100, 100 * EXCHANGE_BYTES]);
});

Deno.test("a load says why its connections fail", () => {
  const rig = new Rig();
  // Port 1, tcpmux: nobody listens there.
  const load = new Upload(rig.reactor, rig.client, targetOf("127.0.0.1", 1), 1).start();
  rig.turnUntil(() => rig.client.failures > 0);
  load.stop();
  assertEquals(rig.client.firstFailure, "connect to 127.0.0.1:1: ECONNREFUSED");
});

Deno.test("OpenLoop charges a stall to every request that was due in it", () => {
  const rig = new Rig(), ratePerSecond = 1000, stallMs = 200;
  const load = new OpenLoop(rig.reactor, rig.client, { target: rig.target("echo"), connections: 4, ratePerSecond })
    .start();
  rig.turnUntil(() => rig.client.completed >= 20);
  rig.client.latency.reset();
  const resumeAtMs = performance.now() + stallMs;
  while (performance.now() < resumeAtMs); // Nothing is sent or read, as when the machine stands still.
  rig.run(load, () => rig.client.latency.total >= 300);
  // 200 of the 300 were due during the stall, evenly: a third of all waited at least half of it.
  assert(rig.client.latency.largest >= stallMs * 1000 * 0.95, "the first waited all the time");
  assert(rig.client.latency.quantile(0.7) >= stallMs * 1000 / 2 * 0.8, "many waited long, not just one a connection");
});
