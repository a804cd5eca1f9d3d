import { assertEquals, assertRejects } from "@std/assert";
import { KubeError, KubeUnreachable, type WatchEvent } from "./api.ts";
import { CONFIG_MAPS, PODS, TOKEN_REVIEWS } from "./resource_types.ts";
import { RIG_CASES } from "./rig_testing.ts";
import { InMemoryKubeApi } from "./testing.ts";

for (const { name, run } of RIG_CASES) {
  Deno.test(`InMemoryKubeApi: ${name}`, () => run({ api: new InMemoryKubeApi(), namespace: "rig" }));
}

function map(name: string, data: object = {}): object {
  return { metadata: { name, namespace: "n" }, data };
}

async function first(api: InMemoryKubeApi, resourceVersion: string): Promise<WatchEvent | undefined> {
  const watch = api.watch(CONFIG_MAPS, {}, { resourceVersion, signal: AbortSignal.timeout(60_000) });
  for await (const event of watch) return event;
  return undefined;
}

Deno.test("InMemoryKubeApi fails the calls that it is told to fail, and no more", async () => {
  const api = new InMemoryKubeApi(), place = { namespace: "n", name: "a" };
  api.fail(new KubeError(429, "TooManyRequests", "slow down"), { verb: "get", times: 2 });
  await api.list(CONFIG_MAPS, {}, { limit: 1 });
  for (let n = 0; n < 2; n++) await assertRejects(() => api.get(CONFIG_MAPS, place), KubeError, "slow down");
  assertEquals(await api.get(CONFIG_MAPS, place), undefined);
  const lift = api.deny(PODS);
  await assertRejects(() => api.list(PODS, {}, { limit: 1 }), KubeError, "forbidden");
  lift();
  assertEquals((await api.list(PODS, {}, { limit: 1 })).items, []);
  assertEquals(api.calls.map(({ verb }) => verb), ["list", "get", "get", "get", "list", "list"]);
});

Deno.test("InMemoryKubeApi expires old versions: watches from them and pages begun before get 410", async () => {
  const api = new InMemoryKubeApi(), made = api.put(CONFIG_MAPS, map("a"));
  api.put(CONFIG_MAPS, map("b"));
  const page = await api.list(CONFIG_MAPS, {}, { limit: 1 });
  api.expireVersions();
  const old = await assertRejects(() => first(api, made.metadata.resourceVersion!), KubeError);
  assertEquals(old.status, 410);
  await assertRejects(
    () => api.list(CONFIG_MAPS, {}, { limit: 1, continueToken: page.continueToken }),
    KubeError,
    "too old",
  );
  api.put(CONFIG_MAPS, map("c"));
  const event = await first(api, page.resourceVersion);
  assertEquals(event?.type === "ADDED" && event.object.metadata.name, "c");
});

Deno.test("InMemoryKubeApi holds and cuts watches, and stops serving a type or at all", async () => {
  const api = new InMemoryKubeApi();
  api.holdWatches(true);
  const next = first(api, "");
  api.put(CONFIG_MAPS, map("a"));
  while (api.watching(CONFIG_MAPS) === 0) await Promise.resolve();
  api.holdWatches(false);
  assertEquals((await next)?.type, "ADDED");
  const ended = first(api, "1000");
  while (api.watching(CONFIG_MAPS) === 0) await Promise.resolve();
  api.serve(CONFIG_MAPS, false);
  assertEquals((await ended)?.type, "DELETED");
  const absent = await assertRejects(() => api.list(CONFIG_MAPS, {}, { limit: 1 }), KubeError);
  assertEquals(absent.status, 404);
  api.unreachable = true;
  await assertRejects(() => api.list(PODS, {}, { limit: 1 }), KubeUnreachable);
});

Deno.test("InMemoryKubeApi answers reviews, and asks admission before it stores", async () => {
  const api = new InMemoryKubeApi();
  api.answer(TOKEN_REVIEWS, (review) => ({ ...review, status: { authenticated: true } }));
  const review = await api.create(TOKEN_REVIEWS, "", { metadata: {}, spec: { token: "t" } });
  assertEquals(review.status, { authenticated: true });
  api.admit((_verb, _type, object) =>
    object.metadata.name === "bad" ? new KubeError(403, "Forbidden", "denied the request") : undefined
  );
  await assertRejects(() => api.create(CONFIG_MAPS, "n", map("bad"), { dryRun: true }), KubeError, "denied");
  await api.create(CONFIG_MAPS, "n", map("good"));
});
