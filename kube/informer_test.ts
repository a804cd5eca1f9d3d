import { assertEquals, assertRejects } from "@std/assert";
import { KubeError, KubeUnreachable } from "./api.ts";
import { Mirror, until } from "./informer_testing.ts";
import { CONFIG_MAPS, PODS } from "./resource_types.ts";
import { InMemoryKubeApi } from "./testing.ts";

const map = (name: string, value = "1") => ({ metadata: { name, namespace: "n" }, data: { value } });

function apiWith(...names: readonly string[]): InMemoryKubeApi {
  const api = new InMemoryKubeApi();
  for (const name of names) api.put(CONFIG_MAPS, map(name));
  return api;
}

for (const streamingLists of ["served", "error-event", "invalid"] as const) {
  Deno.test(`startInformer() lists and follows where streaming lists are: ${streamingLists} (CP-101)`, async () => {
    const api = new InMemoryKubeApi({ streamingLists });
    for (const name of ["a", "b"]) api.put(CONFIG_MAPS, map(name));
    await using mirror = new Mirror(api, CONFIG_MAPS);
    await mirror.informer.synced;
    assertEquals(mirror.takeTold().sort(), ["+a", "+b"]);
    api.put(CONFIG_MAPS, map("c"));
    api.remove(CONFIG_MAPS, "n", "a");
    await mirror.untilNames("b", "c");
    const { synced, trouble, objects, failures } = mirror.informer.status();
    assertEquals({ synced, trouble, objects, failures }, { synced: true, trouble: undefined, objects: 2, failures: 0 });
    const asked = api.calls.map(({ verb }) => verb);
    // The choice is remembered: after the thread is lost it goes straight to pages.
    if (streamingLists !== "served") assertEquals(asked, ["watch", "list", "watch"]);
    api.cutWatches(new KubeUnreachable("no JSON", { undecodable: true }));
    await until("it follows again", () => api.calls.length > asked.length && api.watching(CONFIG_MAPS) === 1);
    const again = api.calls.slice(asked.length).map(({ verb }) => verb);
    assertEquals(again, streamingLists === "served" ? ["watch"] : ["list", "watch"]);
  });
}

Deno.test("startInformer() reads long lists in pages, each told as it comes", async () => {
  const api = new InMemoryKubeApi({ streamingLists: "invalid" });
  for (let n = 0; n < 1_200; n++) api.put(CONFIG_MAPS, map(`m${n}`));
  await using mirror = new Mirror(api, CONFIG_MAPS);
  await mirror.informer.synced;
  assertEquals(mirror.batches, [500, 500, 200]);
  assertEquals(mirror.informer.status().objects, 1_200);
});

Deno.test("startInformer() tells after a 410 what differs and no more: deletes for what vanished, nothing for what is as it was (CP-101)", async () => {
  const api = apiWith("same", "changed", "gone", "reborn");
  await using mirror = new Mirror(api, CONFIG_MAPS);
  await mirror.informer.synced;
  mirror.takeTold();
  api.holdWatches(true);
  api.put(CONFIG_MAPS, map("changed", "2"));
  api.remove(CONFIG_MAPS, "n", "gone");
  api.remove(CONFIG_MAPS, "n", "reborn");
  api.put(CONFIG_MAPS, map("reborn", "2"));
  api.put(CONFIG_MAPS, map("new"));
  api.unreachable = true; // What the watch held back is lost with it.
  api.expireVersions();
  api.holdWatches(false);
  api.unreachable = false;
  await mirror.untilNames("same", "changed", "reborn", "new");
  await until("all of it is told", () => mirror.told.length >= 4);
  assertEquals(mirror.takeTold().sort(), ["+changed", "+new", "+reborn", "-gone"]);
  assertEquals(mirror.objects.get("reborn"), api.object(CONFIG_MAPS, "n", "reborn")?.metadata.resourceVersion);
});

for (const streamingLists of ["served", "invalid"] as const) {
  Deno.test(`startInformer() survives a 410 in each phase, lists ${streamingLists} (CP-101)`, async () => {
    const gone = () => new KubeError(410, "Expired", "too old");
    for (const verb of ["list", "watch"] as const) {
      for (let call = 1; call <= 3; call++) {
        const api = new InMemoryKubeApi({ streamingLists });
        for (let n = 0; n < 1_100; n++) api.put(CONFIG_MAPS, map(`m${n}`));
        api.fail(gone(), { verb, times: call });
        await using mirror = new Mirror(api, CONFIG_MAPS);
        await mirror.informer.synced;
        api.remove(CONFIG_MAPS, "n", "m7");
        await until("the change is told", () => mirror.objects.size === 1_099);
        assertEquals(mirror.informer.status().trouble, undefined);
      }
    }
  });
}

Deno.test("startInformer() begins its list again when a page's token has expired, and still finds who vanished", async () => {
  const api = new InMemoryKubeApi({ streamingLists: "invalid" });
  for (let n = 0; n < 600; n++) api.put(CONFIG_MAPS, map(`m${1_000 + n}`));
  await using mirror = new Mirror(api, CONFIG_MAPS);
  mirror.onBatch = () => {
    mirror.onBatch = () => {};
    api.remove(CONFIG_MAPS, "n", "m1000"); // Told with the first page, gone before the second is asked for.
    api.expireVersions();
  };
  await mirror.informer.synced;
  assertEquals(mirror.objects.size, 599);
  assertEquals(mirror.told.filter((it) => it === "-m1000").length, 1);
  assertEquals(mirror.told.length, 601, "what was told by the list that broke off is not told again");
});

Deno.test("startInformer() reports what it may not read once, waits longer each time, and takes up again (CP-102)", async () => {
  const api = apiWith("a");
  const lift = api.deny(CONFIG_MAPS);
  await using mirror = new Mirror(api, CONFIG_MAPS);
  await using other = new Mirror(api, PODS);
  await other.informer.synced; // It holds nobody else up.
  await until("it has been tried often", () => mirror.waits.length >= 12);
  const { synced, trouble, failures } = mirror.informer.status();
  assertEquals([synced, trouble?.status, failures >= 12], [false, 403, true]);
  assertEquals(mirror.logged.length, 1);
  assertEquals(mirror.waits.slice(0, 9), [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000]);
  lift();
  await mirror.informer.synced;
  assertEquals(mirror.informer.status().trouble, undefined);
  assertEquals(mirror.logged.length, 2);
});

Deno.test("startInformer() waits for a type that is not served (CP-102)", async () => {
  const api = apiWith("a");
  await using mirror = new Mirror(api, CONFIG_MAPS);
  await mirror.untilNames("a");
  api.expireVersions();
  api.serve(CONFIG_MAPS, false); // As the real one does with a CRD: its objects first.
  await mirror.untilNames();
  await until("it is in trouble", () => mirror.informer.status().trouble?.status === 404);
  api.serve(CONFIG_MAPS, true);
  api.put(CONFIG_MAPS, map("b"));
  await mirror.untilNames("b");
});

Deno.test("startInformer() takes a watch that is closed for no failure, and goes on from where it was", async () => {
  const api = apiWith("a");
  await using mirror = new Mirror(api, CONFIG_MAPS, {}, { limits: { healthyWatchMs: 0 } });
  await mirror.untilNames("a");
  for (let n = 0; n < 5; n++) {
    const { watches } = mirror.informer.status();
    api.cutWatches();
    await until("it watches again", () => mirror.informer.status().watches > watches);
  }
  assertEquals([mirror.told, mirror.waits, mirror.logged, mirror.informer.status().failures], [["+a"], [], [], 0]);
  assertEquals(mirror.informer.status().lists, 1);
});

Deno.test("startInformer() does not ask a server again at once that closes watches at once", async () => {
  const api = apiWith("a");
  await using mirror = new Mirror(api, CONFIG_MAPS);
  await mirror.untilNames("a");
  for (let n = 1; n <= 3; n++) {
    api.cutWatches();
    await until("it waits", () => mirror.waits.length >= n);
    await until("it watches", () => api.watching(CONFIG_MAPS) === 1);
  }
  assertEquals(mirror.waits.slice(0, 3), [200, 400, 800]);
  assertEquals(mirror.informer.status().failures, 0);
});

Deno.test("startInformer() waits as at first again once a watch has been open for a while", async () => {
  const api = apiWith("a"), refusal = () => new KubeError(503, "", "not now");
  api.fail(refusal(), { times: 3 });
  await using mirror = new Mirror(api, CONFIG_MAPS, {}, { limits: { healthyWatchMs: 0 } });
  await mirror.untilNames("a");
  const { watches } = mirror.informer.status();
  api.cutWatches();
  await until("it watches again", () => mirror.informer.status().watches > watches && api.watching(CONFIG_MAPS) === 1);
  api.fail(refusal(), { times: 2 });
  api.cutWatches();
  await until("it has waited again", () => mirror.waits.length >= 5);
  assertEquals(mirror.waits, [200, 400, 800, 200, 400]);
});

Deno.test("startInformer() lists again when a watch says what nobody can read, and not when it is cut", async () => {
  const api = apiWith("a");
  await using mirror = new Mirror(api, CONFIG_MAPS);
  await mirror.untilNames("a");
  api.cutWatches(new KubeUnreachable("cut"));
  await until("it watches again", () => mirror.informer.status().watches === 2);
  assertEquals(mirror.informer.status().lists, 1);
  await until("the watch is open", () => api.watching(CONFIG_MAPS) === 1);
  api.cutWatches(new KubeUnreachable("no JSON", { undecodable: true }));
  await until("it lists again", () => mirror.informer.status().lists === 2);
});

Deno.test("startInformer() goes on from a bookmark, so that an idle type needs no list later", async () => {
  const api = apiWith("a");
  await using mirror = new Mirror(api, CONFIG_MAPS);
  await mirror.untilNames("a");
  for (let n = 0; n < 10; n++) api.put(PODS, { metadata: { name: `p${n}`, namespace: "n" } });
  api.bookmark();
  api.expireVersions();
  api.cutWatches();
  await until("it watches again", () => mirror.informer.status().watches === 2);
  api.put(CONFIG_MAPS, map("b"));
  await mirror.untilNames("a", "b");
  assertEquals(mirror.informer.status().lists, 1);
});

Deno.test("startInformer() lists when the server has gone back in time, as one restored from a copy", async () => {
  const api = apiWith("a");
  await using mirror = new Mirror(api, CONFIG_MAPS);
  await mirror.untilNames("a");
  const tooLarge = new KubeError(504, "Timeout", "Too large resource version: 900, current: 12");
  api.fail(tooLarge, { verb: "watch", times: 3 });
  api.cutWatches();
  await until("it lists again", () => mirror.informer.status().lists === 2);
});

Deno.test("startInformer() gives a streaming list up that never ends, and takes pages", async () => {
  const api = apiWith("a");
  api.holdWatches(true);
  await using mirror = new Mirror(api, CONFIG_MAPS, {}, { limits: { streamingSilenceMs: 20 } });
  await mirror.informer.synced;
  assertEquals(mirror.told, ["+a"]);
});

Deno.test("startInformer() tells what has arrived together at once, and each object in its newest state", async () => {
  const api = apiWith("a");
  await using mirror = new Mirror(api, CONFIG_MAPS);
  await mirror.untilNames("a");
  mirror.batches.length = 0;
  for (let n = 0; n < 40; n++) api.put(CONFIG_MAPS, map(`m${n % 20}`, String(n)));
  await until("all is told", () => mirror.objects.size === 21);
  assertEquals(mirror.batches, [20]);
});

Deno.test("startInformer() ends with its signal: synced rejects, stopped resolves, and nothing is told any more", async () => {
  const api = apiWith("a");
  api.deny(CONFIG_MAPS);
  const mirror = new Mirror(api, CONFIG_MAPS);
  await until("it has tried", () => mirror.waits.length > 0);
  await mirror[Symbol.asyncDispose]();
  await assertRejects(() => mirror.informer.synced, DOMException);
  api.put(CONFIG_MAPS, map("b"));
  assertEquals(mirror.told, []);
});

Deno.test("startInformer() ends with what onChange throws: that is a mistake of ours, not of the server", async () => {
  const api = apiWith("a"), mirror = new Mirror(api, CONFIG_MAPS);
  mirror.onBatch = () => {
    throw new RangeError("ours");
  };
  await assertRejects(() => mirror.informer.stopped, RangeError, "ours");
  await assertRejects(() => mirror.informer.synced, RangeError, "ours");
});

Deno.test("startInformer() ends in the same state as a fresh list, whatever happens in whatever order (CP-101, CP-105)", async () => {
  for (let seed = 1; seed <= 25; seed++) {
    let state = seed;
    const chance = (n: number) => (state = (state * 48_271) % 2_147_483_647) % n;
    const streamingLists = (["served", "error-event", "invalid"] as const)[chance(3)]!;
    const api = new InMemoryKubeApi({ streamingLists });
    const mirror = new Mirror(api, CONFIG_MAPS);
    for (let step = 0; step < 80; step++) {
      const name = `m${chance(12)}`, kind = chance(12);
      if (kind < 5) api.put(CONFIG_MAPS, map(name, String(step)));
      else if (kind < 8) api.remove(CONFIG_MAPS, "n", name);
      else if (kind === 8) {
        api.cutWatches(chance(2) === 0 ? undefined : new KubeUnreachable("cut", { undecodable: chance(2) === 0 }));
      } else if (kind === 9) api.expireVersions();
      else if (kind === 10) {
        api.fail(new KubeError([403, 404, 410, 429, 500, 503][chance(6)]!, "", "no"), { times: 1 + chance(3) });
      } else api.bookmark();
      if (chance(3) === 0) await new Promise((resolve) => setTimeout(resolve, 0));
    }
    const there = () =>
      api.objects(CONFIG_MAPS).map((it) => `${it.metadata.name}@${it.metadata.resourceVersion}`).sort().join();
    const mirrored = () => [...mirror.objects].map(([name, version]) => `${name}@${version}`).sort().join();
    await until(`seed ${seed} comes to rest`, () => there() === mirrored());
    assertEquals(mirror.informer.status().objects, mirror.objects.size);
    await mirror[Symbol.asyncDispose]();
  }
});
