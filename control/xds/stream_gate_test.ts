import { assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { Metrics } from "../../base/metrics.ts";
import type { AuthenticationWay, Caller } from "../ca/caller.ts";
import type { GrpcCall } from "../grpc/call.ts";
import { FakeTime } from "../grpc/fake_time_testing.ts";
import { StreamGate, type Transport } from "./stream_gate.ts";

const KNOWN: Caller = { identities: ["spiffe://cluster.local/ns/istio-system/sa/ztunnel"], token: undefined };

/** A gate for ten new streams a second, whose clock stands still, and what became of whoever came. */
class Rig {
  readonly metrics = new Metrics();
  readonly gate: StreamGate;

  constructor() {
    const authenticator: AuthenticationWay = {
      authenticate: ({ authorization }) => Promise.resolve(authorization.length > 0 ? KNOWN : { refused: "no token" }),
    };
    const log = new Logger("test", { sink: () => {} });
    this.gate = new StreamGate({
      authenticator,
      newStreamsPerSecond: 10,
      metrics: this.metrics,
      log,
      now: () => 5_000,
    });
    this.gate.open();
  }

  /** @returns "in", or the status that it was refused with. */
  async come(authorization: readonly string[], { transport = "tls" as Transport, gone = false } = {}): Promise<string> {
    let status = "";
    const call = {
      over: gone,
      peer: { host: "10.0.0.1", port: 1, certificate: undefined, issuers: [] },
      values: (name: string) => name === "authorization" ? authorization : [],
      whenOver: () => {},
      finish: (with_: string) => void (status = with_),
    };
    const caller = await this.gate.admit(call as unknown as GrpcCall, transport);
    return caller === undefined ? status : "in";
  }
}

const TURNS = 11; // one second's worth, and the next that is due at once

Deno.test("Whoever is not known spends no turn of those who are: neither who has no token, nor who calls over plaintext (CP-400, CP-430)", async () => {
  const rig = new Rig();
  for (let times = 0; times < 100; times++) assertEquals(await rig.come([]), "UNAUTHENTICATED");
  for (let times = 0; times < TURNS; times++) assertEquals(await rig.come([], { transport: "plaintext" }), "in");
  for (let times = 0; times < 100; times++) assertEquals(await rig.come(["Bearer good"], { gone: true }), "");
  for (let times = 0; times < TURNS; times++) assertEquals(await rig.come(["Bearer good"]), "in");
});

Deno.test("Known callers share a rate: who would wait longer than a second is refused (CP-400)", async () => {
  using time = new FakeTime();
  const rig = new Rig(), come = Array.from({ length: 2 * TURNS }, () => rig.come(["Bearer good"]));
  while (time.pending < TURNS - 1) await Promise.resolve(); // The others wait for nobody.
  time.pass(1_000);
  const became = await Promise.all(come);
  assertEquals(became, [...Array(2 * TURNS - 1).fill("in"), "RESOURCE_EXHAUSTED"]);
});
