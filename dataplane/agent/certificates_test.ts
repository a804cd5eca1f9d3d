/** Certificates by identity, with a clock and a CA that the test moves. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { Certificates, Priority } from "./certificates.ts";
import type { WorkloadCertificate } from "./workload_certificate.ts";

const HOUR_MS = 3_600_000;

/** A clock with timers, and a CA whose answers the test gives. */
class Rig {
  nowMs = 1_000_000;
  random = 0.5;
  readonly asked: string[] = [];
  readonly events: string[] = [];
  readonly #timers = new Map<number, { atMs: number; callback: () => void }>();
  readonly #open = new Map<string, { resolve: (it: WorkloadCertificate) => void; reject: (error: Error) => void }>();
  #timerIds = 0;
  readonly certificates = new Certificates({
    fetch: (identity) => {
      this.asked.push(identity);
      return new Promise((resolve, reject) => this.#open.set(identity, { resolve, reject }));
    },
    onCertificate: (identity, { serial }) => this.events.push(`${identity} has ${serial}`),
    onUnavailable: (identity, error) => this.events.push(`${identity} lacks: ${error.message}`),
    now: () => this.nowMs,
    random: () => this.random,
    schedule: (callback, ms) => {
      const id = ++this.#timerIds;
      this.#timers.set(id, { atMs: this.nowMs + ms, callback });
      return () => void this.#timers.delete(id);
    },
    log: new Logger("certificates", { sink: () => {} }),
  });

  get timerCount(): number {
    return this.#timers.size;
  }

  /** Answers the fetch in flight of an identity, and lets everybody hear of it. */
  async answer(identity: string, serial: string, lifeMs = HOUR_MS): Promise<void> {
    const { nowMs } = this;
    const certificate = { leafAndIntermediatesPem: "", privateKeyPem: "", rootsPem: "", serial };
    this.#take(identity).resolve({ ...certificate, notBeforeMs: nowMs, notAfterMs: nowMs + lifeMs });
    await settle();
  }

  async refuse(identity: string, message = "refused"): Promise<void> {
    this.#take(identity).reject(new MeshError("AMB0311", message, { remedy: "none" }));
    await settle();
  }

  advance(ms: number): void {
    const untilMs = this.nowMs + ms;
    for (;;) {
      const due = [...this.#timers].filter(([, { atMs }]) =>
        atMs <= untilMs
      ).sort(([, a], [, b]) => a.atMs - b.atMs)[0];
      if (due === undefined) break;
      this.#timers.delete(due[0]);
      this.nowMs = Math.max(this.nowMs, due[1].atMs);
      due[1].callback();
    }
    this.nowMs = untilMs;
  }

  #take(identity: string) {
    const open = this.#open.get(identity);
    if (open === undefined) throw new Error(`${identity} is not being fetched`);
    this.#open.delete(identity);
    return open;
  }
}

/** Lets every promise that can run do so. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await Promise.resolve();
}

Deno.test("get() shares one fetch among all who ask (ZT-153)", async () => {
  const rig = new Rig();
  const waiting = [rig.certificates.get("a"), rig.certificates.get("a")];
  await rig.answer("a", "1");
  assertEquals((await Promise.all(waiting)).map(({ serial }) => serial), ["1", "1"]);
  assertEquals([(await rig.certificates.get("a")).serial, rig.asked, rig.events], ["1", ["a"], ["a has 1"]]);
});

Deno.test("want() keeps at most 8 fetches in flight, the most urgent first (ZT-153, ZT-154)", async () => {
  const rig = new Rig();
  for (let at = 0; at < 8; at++) rig.certificates.want(`busy${at}`, Priority.WARM_UP);
  rig.certificates.want("background", Priority.BACKGROUND);
  rig.certificates.want("first", Priority.WARM_UP);
  rig.certificates.want("second", Priority.WARM_UP);
  rig.certificates.want("urgent", Priority.REAL_TIME);
  rig.certificates.want("second", Priority.REAL_TIME); // Raised.
  rig.certificates.want("urgent", Priority.BACKGROUND); // Never lowered.
  assertEquals(rig.asked.length, 8);
  for (let at = 0; at < 4; at++) await rig.answer(`busy${at}`, "1");
  assertEquals(rig.asked.slice(8), ["urgent", "second", "first", "background"]);
});

Deno.test("want() renews at half of the validity, and the newer one is served (ZT-155)", async () => {
  const rig = new Rig();
  rig.certificates.want("a", Priority.REAL_TIME);
  await rig.answer("a", "1", HOUR_MS);
  rig.advance(HOUR_MS / 2 - 1);
  assertEquals(rig.asked.length, 1);
  rig.advance(1);
  assertEquals(rig.asked.length, 2);
  assertEquals((await rig.certificates.get("a")).serial, "1", "the old one serves meanwhile");
  await rig.answer("a", "2");
  assertEquals((await rig.certificates.get("a")).serial, "2");
});

Deno.test("want() renews a certificate of many weeks on time: timers do not overflow (ZT-155)", async () => {
  const rig = new Rig();
  rig.certificates.want("a", Priority.REAL_TIME);
  await rig.answer("a", "1", 90 * 24 * HOUR_MS);
  rig.advance(45 * 24 * HOUR_MS - 1);
  assertEquals(rig.asked.length, 1);
  rig.advance(1);
  assertEquals(rig.asked.length, 2);
});

Deno.test("want() does not ask in a tight loop for certificates that are old when they come", async () => {
  const rig = new Rig();
  rig.certificates.want("a", Priority.REAL_TIME);
  await rig.answer("a", "1", 10);
  rig.advance(999);
  assertEquals(rig.asked.length, 1);
  rig.advance(1);
  assertEquals(rig.asked.length, 2);
});

Deno.test("get() fails at once after a failed fetch, without a fetch a caller, until a retry succeeds (ZT-156)", async () => {
  const rig = new Rig();
  const first = assertRejects(() => rig.certificates.get("a"), MeshError, "refused");
  await rig.refuse("a");
  await first;
  await assertRejects(() => rig.certificates.get("a"), MeshError, "refused");
  assertEquals([rig.asked.length, rig.events], [1, ["a lacks: refused"]]);
  rig.advance(1_000);
  assertEquals(rig.asked.length, 2);
  await assertRejects(() => rig.certificates.get("a"), MeshError, "refused"); // The retry is still in flight.
  await rig.answer("a", "1");
  assertEquals((await rig.certificates.get("a")).serial, "1");
});

Deno.test("a failed renewal keeps the valid certificate until it ends (ZT-156, ZT-157)", async () => {
  const rig = new Rig();
  rig.certificates.want("a", Priority.REAL_TIME);
  await rig.answer("a", "1", 10_000);
  rig.advance(5_000);
  await rig.refuse("a");
  assertEquals([(await rig.certificates.get("a")).serial, rig.events], ["1", ["a has 1"]]);
  for (const waitMs of [1_000, 2_000]) {
    rig.advance(waitMs);
    await rig.refuse("a");
  }
  assertEquals(rig.asked.length, 4, "at 5, 6 and 8 s");
  rig.advance(2_000); // The next back-off is 4 s, but the certificate ends in 2 s.
  assertEquals(rig.asked.length, 5);
  await rig.refuse("a", "still refused");
  assertEquals(rig.events, ["a has 1", "a lacks: still refused"]);
  assertEquals(rig.certificates.current("a"), undefined);
});

Deno.test("retries wait 1 s, doubling to 150 s, within 20 %, and start anew after a success (ZT-157)", async () => {
  const rig = new Rig();
  rig.certificates.want("a", Priority.REAL_TIME);
  const waits: number[] = [];
  for (let round = 0; round < 10; round++) {
    rig.random = round % 2 === 0 ? 0 : 0.999999;
    const before = rig.asked.length, startMs = rig.nowMs;
    await rig.refuse("a");
    while (rig.asked.length === before) rig.advance(10);
    waits.push((rig.nowMs - startMs) / 1_000);
  }
  const expected = [0.8, 2.4, 3.2, 9.6, 12.8, 38.4, 51.2, 153.6, 120, 180].map((it) => Math.min(it, 180));
  for (const [at, wait] of waits.entries()) {
    assert(Math.abs(wait - expected[at]!) < 0.05, `${at}: ${wait}, ${expected[at]}`);
  }
  await rig.answer("a", "1", HOUR_MS);
  rig.random = 0.5;
  rig.advance(HOUR_MS / 2);
  await rig.refuse("a");
  const before = rig.asked.length;
  rig.advance(1_000);
  assertEquals(rig.asked.length, before + 1);
});

Deno.test("forget() tells who waits, discards the answer in flight and stops its timers (ZT-158)", async () => {
  const rig = new Rig();
  const waiting = assertRejects(() => rig.certificates.get("a"), MeshError, "the identity is no longer needed");
  rig.certificates.forget("a");
  await waiting;
  await rig.answer("a", "1");
  assertEquals([rig.events, rig.certificates.status(), rig.timerCount], [[], [], 0]);
  rig.certificates.want("b", Priority.WARM_UP);
  await rig.answer("b", "1");
  assertEquals(rig.timerCount, 1);
  rig.certificates.stop();
  assertEquals(rig.timerCount, 0);
});

Deno.test("forget() of a queued identity leaves nothing to fetch; asked for again, it is fetched again (ZT-158)", async () => {
  const rig = new Rig();
  for (let at = 0; at < 8; at++) rig.certificates.want(`busy${at}`, Priority.WARM_UP);
  rig.certificates.want("a", Priority.WARM_UP);
  rig.certificates.forget("a");
  await rig.answer("busy0", "1");
  assertEquals(rig.asked.length, 8);
  rig.certificates.want("a", Priority.WARM_UP);
  assertEquals(rig.asked.slice(8), ["a"]);
});

Deno.test("status() shows each identity's state, and no key (ZT-214)", async () => {
  const rig = new Rig();
  for (let at = 0; at < 6; at++) rig.certificates.want(`busy${at}`, Priority.WARM_UP);
  rig.certificates.want("good", Priority.WARM_UP);
  rig.certificates.want("bad", Priority.WARM_UP);
  rig.certificates.want("queued", Priority.BACKGROUND);
  const states = () => Object.fromEntries(rig.certificates.status().map(({ identity, state }) => [identity, state]));
  assertEquals([states().queued, states().good], ["queued", "fetching"]);
  await rig.answer("good", "7");
  await rig.refuse("bad");
  assertEquals([states().good, states().bad], ["available", "unavailable"]);
  assert(!JSON.stringify(rig.certificates.status()).includes("privateKey"));
});
