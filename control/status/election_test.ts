/** Elections of two and three control planes: who leads when one dies, sleeps, is cut off, or is of a lesser revision. */
import { assert, assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { type ElectionStatus, runElection } from "./election.ts";
import { InMemoryKubeApi } from "../../kube/testing.ts";
import type { KubeObject } from "../../kube/api.ts";
import { lockType, readRecord, writeRecord } from "./election_record.ts";
import { ADDRESS_LOCK, gatewayStatusLock, type Lock, STATUS_LOCK } from "./locks.ts";
import { Path, settle, SimulatedClock } from "./testing.ts";

const STORES: readonly Lock[] = [STATUS_LOCK, ADDRESS_LOCK];
const LEASE_MS = 30_000, GIVES_UP_MS = 22_500, RETRY_MS_MAX = 9_000;

interface CandidateOptions {
  readonly lock?: Lock;
  readonly revision?: string;
  readonly remote?: boolean;
  readonly enabled?: boolean;
  readonly clock?: SimulatedClock;
  readonly work?: (signal: AbortSignal) => Promise<void>;
}

/** One control plane with its own way to the API server. */
class Candidate {
  readonly path = new Path();
  readonly lines: string[] = [];
  status: ElectionStatus | undefined;
  working = 0;
  readonly done: Promise<void>;
  readonly #stop = new AbortController();

  constructor(rig: Rig, identity: string, options: CandidateOptions) {
    const { lock = STATUS_LOCK, revision = "", remote, enabled, clock = rig.clock, work = untilAborted } = options;
    this.done = runElection({
      api: this.path.through(rig.api),
      lock,
      identity,
      namespace: "istio-system",
      revision,
      remote,
      enabled,
      defaultRevision: () => rig.defaultRevision,
      onLead: async (signal) => {
        this.working++;
        try {
          await work(signal);
        } finally {
          this.working--;
        }
      },
      onStatus: (status) => this.status = status,
      log: new Logger(identity, { sink: (line) => this.lines.push(line.split("\t").slice(3).join(" ")) }),
      clock,
      random: () => 0.5,
    }, this.#stop.signal);
  }

  get leads(): boolean {
    return this.working > 0;
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await settle();
  }

  /** As a killed process: no call of it arrives any more. */
  async kill(): Promise<void> {
    this.path.state = "cut";
    await this.stop();
  }
}

class Rig {
  readonly clock = new SimulatedClock();
  readonly api = new InMemoryKubeApi();
  readonly candidates: Candidate[] = [];
  defaultRevision: string | undefined;

  async add(identity: string, options: CandidateOptions = {}): Promise<Candidate> {
    const candidate = new Candidate(this, identity, options);
    this.candidates.push(candidate);
    await settle();
    return candidate;
  }

  object({ name, store }: Lock): KubeObject {
    const object = this.api.object(lockType(store), "istio-system", name);
    if (object === undefined) throw new Error("the lock has no object");
    return object;
  }

  /** Who works now. Whatever happened, never more than one, unless the lock itself was taken away. */
  leaders(): number[] {
    return [...this.candidates.keys()].filter((at) => this.candidates[at]!.leads);
  }

  async advance(ms: number, { leadersMax = 1 } = {}): Promise<void> {
    for (let passed = 0; passed < ms; passed += 500) {
      await this.clock.advance(Math.min(500, ms - passed));
      assert(this.leaders().length <= leadersMax, `${this.leaders()} lead at ${this.clock.monotonicMs()}`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { path } of this.candidates) path.mend();
    for (const candidate of this.candidates) await candidate.stop();
    await Promise.all([...this.candidates.map(({ done }) => done), this.clock.advance(4_000)]);
    assertEquals(this.clock.waiting, 0, "a timer is left");
  }
}

function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

for (const lock of STORES) {
  Deno.test(`runElection() lets one of three lead by a ${lock.store}, and the next when it is killed (CP-650)`, async () => {
    await using rig = new Rig();
    const first = await rig.add("istiod-a", { lock });
    await rig.add("istiod-b", { lock });
    await rig.add("istiod-c", { lock });
    await rig.advance(100_000);
    assertEquals(rig.leaders(), [0]);
    await first.kill();
    assertEquals(rig.leaders(), []);
    await rig.advance(LEASE_MS + RETRY_MS_MAX);
    assertEquals(rig.leaders().length, 1);
    const record = readRecord(lock.store, rig.object(lock));
    assertEquals(record.transitions, 1);
    assertEquals(record.leaseSeconds, 30);
  });

  Deno.test(`runElection() releases a ${lock.store} on shutdown, once the work has ended (CP-650, CP-660)`, async () => {
    await using rig = new Rig();
    let end = () => {};
    const slow = () => new Promise<void>((resolve) => end = resolve);
    const first = await rig.add("istiod-a", { lock, work: slow });
    await rig.add("istiod-b", { lock });
    await rig.advance(10_000);
    await first.stop();
    assertEquals(readRecord(lock.store, rig.object(lock)).holder, "istiod-a", "its work still runs");
    end();
    await settle();
    const released = readRecord(lock.store, rig.object(lock));
    assertEquals([released.holder, released.leaseSeconds], ["", 1]);
    await rig.advance(RETRY_MS_MAX);
    assertEquals(rig.leaders(), [1], "without waiting for the lease");
  });

  Deno.test(`runElection() goes on when its ${lock.store} is deleted (CP-652)`, async () => {
    await using rig = new Rig();
    await rig.add("istiod-a", { lock });
    await rig.add("istiod-b", { lock });
    for (let times = 0; times < 5; times++) {
      rig.api.remove(lockType(lock.store), "istio-system", lock.name);
      await rig.advance(20_000, { leadersMax: 2 }); // The other may make it first; the holder sees that at its next renewal.
      await rig.advance(40_000);
      assertEquals(rig.leaders().length, 1);
    }
  });

  Deno.test(`runElection() writes a ${lock.store} as client-go does, and leaves the rest of it alone (CP-650)`, async () => {
    await using rig = new Rig();
    rig.api.put(lockType(lock.store), {
      metadata: { name: lock.name, namespace: "istio-system", labels: { team: "mesh" }, annotations: { note: "kept" } },
      data: { kept: "too" },
    });
    await rig.add("istiod-a", { lock, revision: "blue" });
    const { metadata, data, spec } = rig.object(lock);
    const annotations = metadata["annotations"] as Record<string, string>;
    assertEquals([metadata["labels"], annotations["note"], data], [{ team: "mesh" }, "kept", { kept: "too" }]);
    const at = "2023-11-14T22:13:20.000000Z", shared = { holderIdentity: "istiod-a", leaseDurationSeconds: 30 };
    if (lock.store === "Lease") {
      assertEquals(spec, { ...shared, acquireTime: at, renewTime: at, leaseTransitions: 1 });
      assertEquals(annotations["leader.istio.io/holder-key"], "blue");
    } else {
      const said = JSON.parse(annotations["control-plane.alpha.kubernetes.io/leader"]!);
      assertEquals(said, { ...shared, holderKey: "blue", acquireTime: at, renewTime: at, leaderTransitions: 1 });
    }
  });
}

Deno.test("runElection() stops the work before another may begin when it is cut off (CP-652)", async () => {
  await using rig = new Rig();
  const first = await rig.add("istiod-a");
  await rig.add("istiod-b");
  for (const state of ["cut", "silent"] as const) {
    await rig.advance(60_000);
    const [leader] = rig.leaders();
    rig.candidates[leader!]!.path.state = state;
    await rig.advance(GIVES_UP_MS);
    assertEquals(rig.leaders(), [], state); // And rig.advance() asserted that never two led.
    await rig.advance(LEASE_MS + RETRY_MS_MAX - GIVES_UP_MS);
    assertEquals(rig.leaders(), [1 - leader!], state);
    rig.candidates[leader!]!.path.mend();
    await rig.advance(60_000);
    assertEquals(rig.leaders(), [1 - leader!], "who comes back waits for its turn");
  }
  assertEquals(first.status?.lost, 1);
});

Deno.test("runElection() rides out a cut that is shorter than the renew deadline (CP-650)", async () => {
  await using rig = new Rig();
  const first = await rig.add("istiod-a");
  await rig.add("istiod-b");
  await rig.advance(10_000);
  first.path.state = "cut";
  await rig.advance(14_000);
  first.path.mend();
  await rig.advance(60_000);
  assertEquals([rig.leaders(), first.status?.lost, first.status?.won], [[0], 0, 1]);
});

Deno.test("runElection() recovers when a lost permission comes back, and says once what is wrong (CP-652)", async () => {
  await using rig = new Rig();
  const first = await rig.add("istiod-a");
  first.path.state = "refused";
  await rig.advance(60_000);
  assertEquals(rig.leaders(), []);
  assertEquals(first.lines.filter((line) => line.includes("cannot take part")).length, 1);
  assert(first.status!.trouble.includes("forbidden"));
  first.path.mend();
  await rig.advance(RETRY_MS_MAX);
  assertEquals([rig.leaders(), first.status?.trouble], [[0], ""]);
});

Deno.test("runElection() knows after a long sleep of the machine that it may lead no more (CP-652)", async () => {
  await using rig = new Rig();
  const sleeper = new SimulatedClock();
  const first = await rig.add("istiod-a", { clock: sleeper });
  await rig.add("istiod-b");
  await rig.clock.advance(LEASE_MS + RETRY_MS_MAX); // The first one's clock stands: it sleeps, and holds what it thinks it has.
  assertEquals(rig.leaders(), [0, 1]);
  const before = first.path.calls.length;
  sleeper.sleepThrough(LEASE_MS + RETRY_MS_MAX);
  await sleeper.advance(1);
  assertEquals([rig.leaders(), first.path.calls.slice(before).includes("replace")], [[1], false]);
  await first.stop();
  await sleeper.advance(4_000);
  await first.done;
});

Deno.test("runElection() measures a lease by its own clock, however wrong the holder's is (CP-650)", async () => {
  for (const renewedAt of ["1970-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z", "yesterday"]) {
    await using rig = new Rig();
    const record = { holder: "alien", key: "", leaseSeconds: 30, acquiredAt: renewedAt, renewedAt, transitions: 3 };
    const renew = (transitions: number) => {
      const object = rig.api.object(lockType("Lease"), "istio-system", STATUS_LOCK.name);
      rig.api.put(
        lockType("Lease"),
        writeRecord(STATUS_LOCK, "istio-system", { record: { ...record, transitions }, object }),
      );
    };
    renew(3);
    await rig.add("istiod-a");
    for (let times = 4; times < 8; times++) {
      await rig.advance(20_000);
      assertEquals(rig.leaders(), [], "it changes, so it lives");
      renew(times);
    }
    await rig.advance(LEASE_MS - 500);
    assertEquals(rig.leaders(), []);
    await rig.advance(2 * RETRY_MS_MAX);
    assertEquals(rig.leaders(), [0]);
  }
});

Deno.test("runElection() lets the default revision take the lock, which the holder sees at its next renewal (CP-651)", async () => {
  await using rig = new Rig();
  const canary = await rig.add("canary-1", { revision: "canary" });
  await rig.add("stable-1", { revision: "stable" });
  await rig.add("stable-2", { revision: "stable" });
  await rig.advance(60_000);
  assertEquals(rig.leaders(), [0]);
  rig.defaultRevision = "stable";
  await rig.advance(RETRY_MS_MAX + 7_500, { leadersMax: 2 });
  assertEquals([rig.leaders().length, canary.leads], [1, false]);
  const [leader] = rig.leaders();
  await rig.advance(100_000);
  assertEquals(rig.leaders(), [leader], "nobody of its own rank takes it");
  rig.defaultRevision = "canary";
  await rig.advance(RETRY_MS_MAX + 7_500, { leadersMax: 2 });
  assertEquals(rig.leaders(), [0]);
});

Deno.test("runElection() holds a lock of one revision by no priority, and says no revision in it (CP-651)", async () => {
  await using rig = new Rig();
  const lock = gatewayStatusLock("stable");
  assertEquals(lock.name, "istio-gateway-status-leader-stable");
  await rig.add("stable-1", { lock, revision: "stable", remote: true });
  await rig.add("stable-2", { lock, revision: "stable" });
  rig.defaultRevision = "stable";
  await rig.advance(60_000);
  assertEquals([rig.leaders(), readRecord("Lease", rig.object(lock)).key], [[0], ""]);
});

Deno.test("runElection() lets everybody lead where elections are off, and touches no lock (CP-650)", async () => {
  await using rig = new Rig();
  const first = await rig.add("istiod-a", { enabled: false });
  const second = await rig.add("istiod-b", { enabled: false });
  await rig.advance(100_000, { leadersMax: 2 });
  assertEquals([rig.leaders(), first.path.calls, second.path.calls], [[0, 1], [], []]);
  await first.stop();
  assertEquals([rig.leaders(), first.path.calls], [[1], []]);
});

Deno.test("runElection() gives the lock up when the leader's work fails", async () => {
  await using rig = new Rig();
  const broken = await rig.add("istiod-a", { work: () => Promise.reject(new Error("no such thing")) });
  await rig.add("istiod-b");
  await rig.advance(RETRY_MS_MAX);
  assertEquals(rig.leaders(), [1]);
  assert(broken.lines.some((line) => line.includes("no such thing")));
});

Deno.test("runElection() takes a lock with an unreadable record once it stood still for a lease", async () => {
  await using rig = new Rig();
  const annotations = { "control-plane.alpha.kubernetes.io/leader": "{half" };
  rig.api.put(lockType("ConfigMap"), { metadata: { name: ADDRESS_LOCK.name, namespace: "istio-system", annotations } });
  await rig.add("istiod-a", { lock: ADDRESS_LOCK });
  await rig.advance(LEASE_MS - 1_000);
  assertEquals(rig.leaders(), []);
  await rig.advance(RETRY_MS_MAX + 1_000);
  assertEquals(rig.leaders(), [0]);
});

Deno.test("runElection() ends soon after its signal when the API server never answers (CP-660)", async () => {
  await using rig = new Rig();
  const candidate = await rig.add("istiod-a");
  candidate.path.state = "silent";
  await rig.advance(8_000); // Its renewal hangs.
  await candidate.stop();
  let ended = false;
  void candidate.done.then(() => ended = true);
  await rig.advance(3_500);
  assert(ended);
});
