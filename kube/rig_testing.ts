/** What every KubeApi promises, as cases that run against the one in memory and against real servers alike. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { type KubeApi, KubeError, type KubeObject, type ListPage, type ObjectPlace } from "./api.ts";
import { AUTHORIZATION_POLICIES, CONFIG_MAPS, SERVICES } from "./resource_types.ts";

/** What a case gets: an API and a namespace of its own, empty as far as the case can see. */
export interface Rig {
  readonly api: KubeApi;
  readonly namespace: string;
}

export interface RigCase {
  readonly name: string;
  /** Whether the CRDs of Istio must be there. */
  readonly needsIstio?: boolean;
  /** Whether the server must have streaming lists, which it has not with an old etcd. */
  readonly needsStreamingLists?: boolean;
  run(rig: Rig): Promise<void>;
}

const label = (text: string) => ({ app: text });

function configMap(name: string, data: Record<string, string>, metadata: object = {}): object {
  return { apiVersion: "v1", kind: "ConfigMap", metadata: { name, ...metadata }, data };
}

async function refused(call: Promise<unknown>, status: number, reason: string): Promise<void> {
  const error = await assertRejects(() => call, KubeError);
  assertEquals([error.status, error.reason], [status, reason]);
}

function names(page: ListPage): string[] {
  return page.items.map((item) => item.metadata.name);
}

/** Reads a watch until `enough` holds of what has come, bookmarks that end nothing left out. */
async function watchUntil(
  rig: Rig,
  options: { resourceVersion: string; initialEvents?: boolean; labelSelector?: string },
  enough: (events: readonly string[]) => boolean,
): Promise<string[]> {
  const stop = new AbortController(), events: string[] = [];
  const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(60_000)]);
  const scope = { namespace: rig.namespace, labelSelector: options.labelSelector };
  for await (const event of rig.api.watch(CONFIG_MAPS, scope, { ...options, signal })) {
    if (event.type === "BOOKMARK") {
      if (event.initialEventsEnd) events.push("END");
    } else if (event.object.metadata.name !== "kube-root-ca.crt") {
      events.push(`${event.type} ${event.object.metadata.name}`);
    }
    if (enough(events)) break;
  }
  assert(enough(events), `the watch ended too early: ${events.join(", ")}`);
  return events;
}

async function reads(read: () => Promise<KubeObject | undefined>): Promise<KubeObject> {
  const object = await read();
  if (object === undefined) throw new Error("the object is not there");
  return object;
}

const WRITES: readonly RigCase[] = [
  {
    name: "create() stores, get() finds it, and a second create is AlreadyExists",
    async run({ api, namespace }) {
      const made = await api.create(CONFIG_MAPS, namespace, configMap("a", { x: "1" }));
      assert(made.metadata.uid !== undefined && made.metadata.resourceVersion !== undefined);
      assertEquals((await reads(() => api.get(CONFIG_MAPS, { namespace, name: "a" }))).data, { x: "1" });
      assertEquals(await api.get(CONFIG_MAPS, { namespace, name: "b" }), undefined);
      await refused(api.create(CONFIG_MAPS, namespace, configMap("a", {})), 409, "AlreadyExists");
    },
  },
  {
    name: "create() with dryRun stores nothing",
    async run({ api, namespace }) {
      await api.create(CONFIG_MAPS, namespace, configMap("dry", {}), { dryRun: true });
      assertEquals(await api.get(CONFIG_MAPS, { namespace, name: "dry" }), undefined);
    },
  },
  {
    name: "replace() is a Conflict once the object has changed, and NotFound when it is gone",
    async run({ api, namespace }) {
      const place = { namespace, name: "r" },
        first = await api.create(CONFIG_MAPS, namespace, configMap("r", { x: "1" }));
      const second = await api.replace(CONFIG_MAPS, place, { ...first, data: { x: "2" } });
      assert(second.metadata.resourceVersion !== first.metadata.resourceVersion);
      await refused(api.replace(CONFIG_MAPS, place, { ...first, data: { x: "3" } }), 409, "Conflict");
      const same = await api.replace(CONFIG_MAPS, place, second);
      assertEquals(same.metadata.resourceVersion, second.metadata.resourceVersion, "no change, no version");
      await api.delete(CONFIG_MAPS, place);
      await refused(
        api.replace(CONFIG_MAPS, place, { ...second, metadata: { name: "r", namespace } }),
        404,
        "NotFound",
      );
    },
  },
  {
    name: "patch() merges objects, and runs lists of operations",
    async run({ api, namespace }) {
      const place = { namespace, name: "p" };
      await api.create(CONFIG_MAPS, namespace, configMap("p", { x: "1", y: "2" }));
      assertEquals((await api.patch(CONFIG_MAPS, place, { data: { x: null, z: "3" } })).data, { y: "2", z: "3" });
      const operations = [{ op: "test", path: "/data/y", value: "2" }, { op: "replace", path: "/data/y", value: "4" }, {
        op: "remove",
        path: "/data/z",
      }];
      assertEquals((await api.patch(CONFIG_MAPS, place, operations)).data, { y: "4" });
      await refused(api.patch(CONFIG_MAPS, place, operations), 422, "Invalid");
      await refused(api.patch(CONFIG_MAPS, { namespace, name: "none" }, { data: {} }), 404, "NotFound");
    },
  },
  {
    name: "patch() with an old resourceVersion is a Conflict",
    async run({ api, namespace }) {
      const first = await api.create(CONFIG_MAPS, namespace, configMap("pv", {})), place = { namespace, name: "pv" };
      await api.patch(CONFIG_MAPS, place, { data: { x: "1" } });
      const stale = { metadata: { resourceVersion: first.metadata.resourceVersion }, data: { x: "2" } };
      await refused(api.patch(CONFIG_MAPS, place, stale), 409, "Conflict");
    },
  },
  {
    name: "delete() keeps to its guard, and is no error twice",
    async run({ api, namespace }) {
      const place = { namespace, name: "d" }, made = await api.create(CONFIG_MAPS, namespace, configMap("d", {}));
      await refused(api.delete(CONFIG_MAPS, place, { uid: "00000000-0000-0000-0000-000000000000" }), 409, "Conflict");
      await api.delete(CONFIG_MAPS, place, { uid: made.metadata.uid, resourceVersion: made.metadata.resourceVersion });
      assertEquals(await api.get(CONFIG_MAPS, place), undefined);
      await api.delete(CONFIG_MAPS, place);
    },
  },
  {
    name: "delete() of an object with a finalizer waits for that to go",
    async run({ api, namespace }) {
      const place = { namespace, name: "f" };
      await api.create(CONFIG_MAPS, namespace, configMap("f", {}, { finalizers: ["test.ambit/hold"] }));
      await api.delete(CONFIG_MAPS, place);
      const leaving = await reads(() => api.get(CONFIG_MAPS, place));
      assert(leaving.metadata.deletionTimestamp !== undefined);
      await api.patch(CONFIG_MAPS, place, { metadata: { finalizers: null } });
      assertEquals(await api.get(CONFIG_MAPS, place), undefined);
    },
  },
];

const LISTS: readonly RigCase[] = [
  {
    name: "list() comes in pages of one moment, and by label and field",
    async run({ api, namespace }) {
      for (const name of ["a", "b", "c", "d", "e"]) {
        await api.create(
          CONFIG_MAPS,
          namespace,
          configMap(name, {}, { labels: { app: name < "d" ? "x" : "y", rig: "list" } }),
        );
      }
      const scope = { namespace, labelSelector: "rig=list" };
      const first = await api.list(CONFIG_MAPS, scope, { limit: 2 });
      await api.delete(CONFIG_MAPS, { namespace, name: "d" });
      const second = await api.list(CONFIG_MAPS, scope, { limit: 2, continueToken: first.continueToken });
      const third = await api.list(CONFIG_MAPS, scope, { limit: 2, continueToken: second.continueToken });
      assertEquals([first, second, third].map(names), [["a", "b"], ["c", "d"], ["e"]]);
      assertEquals(third.continueToken, "");
      assertEquals(third.resourceVersion, first.resourceVersion);
      const by = async (labelSelector: string, fieldSelector?: string) =>
        names(await api.list(CONFIG_MAPS, { namespace, labelSelector, fieldSelector }, { limit: 0 }));
      assertEquals(await by("app in (y),rig"), ["e"]);
      assertEquals(await by("rig,app notin (y)"), ["a", "b", "c"]);
      assertEquals(await by("rig,app!=x"), ["e"]);
      assertEquals(await by("rig", "metadata.name!=b"), ["a", "c", "e"]);
    },
  },
];

const WATCHES: readonly RigCase[] = [
  {
    name: "watch() with initialEvents tells what is there, then its end, then what changes",
    needsStreamingLists: true,
    async run(rig) {
      const { api, namespace } = rig;
      await api.create(CONFIG_MAPS, namespace, configMap("a", {}));
      await api.create(CONFIG_MAPS, namespace, configMap("b", {}));
      let begun: Promise<unknown> | undefined;
      const events = await watchUntil(rig, { resourceVersion: "", initialEvents: true }, (seen) => {
        if (seen.includes("END")) begun ??= change();
        return seen.some((event) => event.startsWith("DELETED"));
      });
      async function change(): Promise<void> {
        await api.patch(CONFIG_MAPS, { namespace, name: "a" }, { data: { x: "1" } });
        await api.delete(CONFIG_MAPS, { namespace, name: "b" });
      }
      await begun;
      assertEquals(events.slice(0, 2).sort(), ["ADDED a", "ADDED b"]);
      assertEquals(events.slice(2), ["END", "MODIFIED a", "DELETED b"]);
    },
  },
  {
    name:
      "watch() from a list's version tells what has happened since; what enters and leaves a selection appears and disappears",
    async run(rig) {
      const { api, namespace } = rig;
      await api.create(CONFIG_MAPS, namespace, configMap("a", {}, { labels: label("x") }));
      const { resourceVersion } = await api.list(CONFIG_MAPS, { namespace }, { limit: 500 });
      await api.create(CONFIG_MAPS, namespace, configMap("b", {}, { labels: label("y") }));
      await api.patch(CONFIG_MAPS, { namespace, name: "b" }, { metadata: { labels: label("x") } });
      await api.patch(CONFIG_MAPS, { namespace, name: "a" }, { data: { k: "v" } });
      await api.patch(CONFIG_MAPS, { namespace, name: "a" }, { metadata: { labels: label("y") } });
      const options = { resourceVersion, labelSelector: "app=x" };
      const events = await watchUntil(rig, options, (seen) => seen.length === 3);
      assertEquals(events, ["ADDED b", "MODIFIED a", "DELETED a"]);
    },
  },
  {
    name: "watch() ends quietly when its signal is aborted",
    needsStreamingLists: true,
    async run({ api, namespace }) {
      const stop = new AbortController(), scope = { namespace };
      const watch = api.watch(CONFIG_MAPS, scope, { resourceVersion: "", initialEvents: true, signal: stop.signal });
      for await (const event of watch) if (event.type === "BOOKMARK") stop.abort();
    },
  },
];

const SERVICE = {
  apiVersion: "v1",
  kind: "Service",
  spec: { ports: [{ name: "http", port: 80 }], selector: { app: "x" } },
};
const condition = (type: string, status = "True") => ({
  type,
  status,
  reason: "Told",
  message: "",
  lastTransitionTime: "2026-01-01T00:00:00Z",
});

function conditionsOf(object: KubeObject): string[] {
  const status = object.status as { conditions?: { type: string; status: string }[] } | undefined;
  return (status?.conditions ?? []).map((it) => `${it.type}=${it.status}`).sort();
}

const APPLIES: readonly RigCase[] = [
  {
    name: "apply() creates, and takes away what its manager no longer names and nobody else owns",
    async run({ api, namespace }) {
      const place = { namespace, name: "s" }, mine = { fieldManager: "mine", force: false };
      await api.apply(CONFIG_MAPS, place, configMap("s", { a: "1", b: "2" }), mine);
      await api.apply(CONFIG_MAPS, place, configMap("s", { b: "2", c: "3" }), { fieldManager: "theirs", force: false });
      assertEquals((await api.apply(CONFIG_MAPS, place, configMap("s", {}), mine)).data, { b: "2", c: "3" });
    },
  },
  {
    name: "apply() of another's field with another value is a Conflict, and takes it over by force",
    async run({ api, namespace }) {
      const place = { namespace, name: "c" };
      await api.apply(CONFIG_MAPS, place, configMap("c", { a: "1" }), { fieldManager: "theirs", force: false });
      const wanted = configMap("c", { a: "2" });
      await refused(api.apply(CONFIG_MAPS, place, wanted, { fieldManager: "mine", force: false }), 409, "Conflict");
      assertEquals((await api.apply(CONFIG_MAPS, place, wanted, { fieldManager: "mine", force: true })).data, {
        a: "2",
      });
      // It is not theirs any more: their leaving it out takes nothing away.
      const left = await api.apply(CONFIG_MAPS, place, configMap("c", {}), { fieldManager: "theirs", force: false });
      assertEquals(left.data, { a: "2" });
    },
  },
  {
    name: "apply() of nothing new makes no version",
    async run({ api, namespace }) {
      const place = { namespace, name: "n" }, mine = { fieldManager: "mine", force: true };
      const first = await api.apply(CONFIG_MAPS, place, configMap("n", { a: "1" }), mine);
      const again = await api.apply(CONFIG_MAPS, place, configMap("n", { a: "1" }), mine);
      assertEquals(again.metadata.resourceVersion, first.metadata.resourceVersion);
    },
  },
  {
    name: "apply() of a core kind's status merges conditions by type, each manager's own (CP-275)",
    async run({ api, namespace }) {
      const place = { namespace, name: "web" }, at = { ...place, subresource: "status" };
      await api.create(SERVICES, namespace, { ...SERVICE, metadata: place });
      const tell = (fieldManager: string, conditions: readonly object[]) =>
        api.apply(SERVICES, at, { apiVersion: "v1", kind: "Service", metadata: place, status: { conditions } }, {
          fieldManager,
          force: true,
        });
      await tell("one", [condition("A"), condition("B")]);
      assertEquals(conditionsOf(await tell("two", [condition("C")])), ["A=True", "B=True", "C=True"]);
      assertEquals(conditionsOf(await tell("one", [condition("B", "False")])), ["B=False", "C=True"]);
      assertEquals(conditionsOf(await tell("two", [])), ["B=False"]);
    },
  },
  {
    name: "apply() of an Istio kind's status replaces all conditions: there they are one value (CP-275)",
    needsIstio: true,
    async run({ api, namespace }) {
      const place = { namespace, name: "deny" }, at = { ...place, subresource: "status" };
      const type = AUTHORIZATION_POLICIES,
        head = { apiVersion: "security.istio.io/v1", kind: type.kind, metadata: place };
      await api.create(type, namespace, { ...head, spec: {} });
      const tell = (fieldManager: string, conditions: readonly object[], force: boolean) =>
        api.apply(type, at, { ...head, status: { conditions } }, { fieldManager, force });
      await tell("one", [condition("A")], false);
      await refused(tell("two", [condition("B")], false), 409, "Conflict");
      assertEquals(conditionsOf(await tell("two", [condition("B")], true)), ["B=True"]);
      await api.delete(type, place);
      await refused(tell("two", [condition("B")], true), 404, "NotFound");
    },
  },
  {
    name: "status is written through its subresource alone, and spec through the object",
    async run({ api, namespace }) {
      const place = { namespace, name: "split" }, at: ObjectPlace = { ...place, subresource: "status" };
      const status = { loadBalancer: { ingress: [{ ip: "10.9.8.7" }] } };
      const made = await api.create(SERVICES, namespace, { ...SERVICE, metadata: place, status });
      assertEquals((made.status as { loadBalancer?: object } | undefined)?.loadBalancer ?? {}, {});
      const spec = { ...made.spec as object, selector: { app: "other" } };
      const written = await api.replace(SERVICES, at, { ...made, spec, status: { conditions: [condition("A")] } });
      assertEquals((written.spec as { selector: object }).selector, { app: "x" });
      assertEquals(conditionsOf(written), ["A=True"]);
      const moved = await api.replace(SERVICES, place, { ...written, spec, status: {} });
      assertEquals((moved.spec as { selector: object }).selector, { app: "other" });
      assertEquals(conditionsOf(moved), ["A=True"]);
    },
  },
];

const METADATA_ALONE: RigCase = {
  name: "of metadata alone neither lists nor watches say more",
  async run({ api, namespace }) {
    const { metadata } = await api.create(
      CONFIG_MAPS,
      namespace,
      configMap("partial", { secret: "x" }, { labels: label("p") }),
    );
    const scope = { namespace, labelSelector: "app=p", metadataOnly: true };
    const { items, resourceVersion } = await api.list(CONFIG_MAPS, scope, { limit: 1 });
    assertEquals(items.map(({ metadata, ...rest }) => [metadata.name, metadata.labels, "data" in rest]), [[
      "partial",
      label("p"),
      false,
    ]]);
    const signal = AbortSignal.timeout(60_000);
    await api.patch(CONFIG_MAPS, { namespace, name: "partial" }, { data: { secret: "y" } });
    for await (const event of api.watch(CONFIG_MAPS, scope, { resourceVersion, signal })) {
      if (event.type === "BOOKMARK") continue;
      assertEquals([event.type, event.object.metadata.uid, "data" in event.object], ["MODIFIED", metadata.uid, false]);
      break;
    }
  },
};

export const RIG_CASES: readonly RigCase[] = [...WRITES, ...LISTS, ...WATCHES, ...APPLIES, METADATA_ALONE];
