import { assert, assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import type { InformerChange, KubeObject } from "../../kube/api.ts";
import { DEFAULT_SELECTORS } from "../enablement.ts";
import { SocketAgent } from "../plugin/agent.ts";
import { encodeEvent } from "../plugin_event.ts";
import { serveEvents } from "./event_server.ts";
import { MeshPods } from "./mesh_pods.ts";
import { NodeState } from "./node_state.ts";
import { pluginModules } from "./plugin_modules.ts";
import { RetryQueue } from "./retry_queue.ts";

const AMBIENT = { "istio.io/dataplane-mode": "ambient" };
const STATIC_UID = "5f2b".repeat(8);
const ENABLEMENT = { selectors: DEFAULT_SELECTORS, excludedNamespaces: [] };
const log = new Logger("test", { sink: () => {} });

function change(namespace: string, name: string, parts?: Record<string, unknown>): InformerChange {
  if (parts === undefined) return { namespace, name, object: undefined };
  const { labels = {}, uid = `uid-${name}`, ...rest } = parts;
  const object = { metadata: { name, namespace, uid, labels }, spec: {}, status: { podIP: "10.0.0.2" }, ...rest };
  return { namespace, name, object: object as unknown as KubeObject };
}

function stateWith(...pods: InformerChange[]): NodeState {
  const state = new NodeState(ENABLEMENT, "istio-system");
  state.applyNamespaces([
    change("", "shop", { labels: AMBIENT }),
    change("", "plain", {}),
    change("", "istio-system", {}),
  ]);
  state.applyPods(pods);
  return state;
}

Deno.test("NodeState tells which pods a change concerns (CNI-074, CNI-075, CNI-077)", () => {
  const state = stateWith(change("shop", "a", {}), change("plain", "b", {}));
  assertEquals(state.applyNamespaces([change("", "plain", { labels: AMBIENT })]), ["plain/b"]);
  assertEquals(state.applyNamespaces([change("", "plain", { labels: { ...AMBIENT, other: "x" } })]), []);
  assertEquals(state.applyNamespaces([change("", "shop")]), ["shop/a"]);
  const again = state.applyPods([change("shop", "a", { uid: "another" })]);
  assertEquals([again.changed, again.gone.map(({ uid }) => uid)], [["shop/a"], ["uid-a"]]);
  assertEquals(state.applyPods([change("shop", "a")]).gone.map(({ uid }) => uid), ["another"]);
});

Deno.test("NodeState says whom the mesh is for, and where it cannot tell (CNI-070, CNI-078)", () => {
  const ztunnel = change("istio-system", "ztunnel-1", { labels: { app: "ztunnel", ...AMBIENT } });
  const state = stateWith(change("shop", "a", {}), change("plain", "b", {}), change("nowhere", "c", {}), ztunnel);
  assertEquals(["shop/a", "plain/b", "nowhere/c", "shop/none", "istio-system/ztunnel-1"].map((it) => state.wants(it)), [
    true,
    false,
    undefined,
    undefined,
    false,
  ]);
});

Deno.test("the plugin's socket enrols who belongs into the mesh, and says why not (CNI-012, CNI-014 to CNI-016, CNI-021)", async () => {
  const folder = await Deno.makeTempDir(), added: string[] = [], answers: number[] = [];
  const pods = {
    add: (pod: { name: string; ips: readonly string[] }) => Promise.resolve(void added.push(`${pod.name} ${pod.ips}`)),
  } as unknown as MeshPods;
  const mirror = change("shop", "static", {});
  (mirror.object!.metadata as { annotations?: unknown }).annotations = { "kubernetes.io/config.mirror": STATIC_UID };
  const state = stateWith(change("shop", "a", {}), change("plain", "b", {}), mirror);
  let isHost = false;
  const pipe = `${folder}/pipe`;
  await new Deno.Command("mkfifo", { args: [pipe] }).output();
  const server = await serveEvents({
    path: `${folder}/pluginevent.sock`,
    hostRoot: "",
    isHost: () => isHost,
    state,
    pods,
    onAnswer: (it) => answers.push(it),
    log,
  });
  try {
    assertEquals(Deno.statSync(`${folder}/pluginevent.sock`).mode! & 0o777, 0o666);
    const agent = new SocketAgent(folder);
    const decide = (namespace: string, name: string, uid = "") => agent.decide({ namespace, name, uid });
    assertEquals(await decide("shop", "a", "uid-a"), "ambient");
    assertEquals(await decide("plain", "b"), "not-ambient");
    assertEquals(await decide("shop", "a", "older"), "unknown", "another pod had the name");
    assertEquals(await decide("shop", "c"), "unknown");
    const event = (name: string, namespace: string, netns = "/proc/self/ns/net", uid = "") =>
      encodeEvent({ netns, name, namespace, uid }, [{ interface: 0, prefix: "10.0.0.9/24", gateway: "" }])!;
    assertEquals(await agent.enrol(event("a", "shop")), undefined);
    assertEquals(added, ["a 10.0.0.9"], "the event's addresses, which the API has not yet");
    const refusals: readonly (readonly [string, RegExp])[] = [
      ["{", /status 400.*no JSON/s],
      [event("b", "plain"), /status 500.*does not belong into the mesh/s],
      [event("c", "shop"), /status 500.*not known on this node/s],
      [event("a", "shop", "/nowhere"), /status 500.*AMB7002/s],
      [event("a", "shop", "/etc/hostname"), /status 500.*AMB7003/s],
      // The name is another's by now, of whom the watch has not told yet: he gets nobody's identity but his own.
      [event("a", "shop", undefined, "another"), /status 500.*not known on this node/s],
      [event("a", "shop", pipe), /status 500.*AMB7003/s], // Nobody writes there: who opens it for that waits for ever.
      ["x".repeat(70_000), /status 400/],
    ];
    for (const [body, refusal] of refusals) assert(refusal.test(await agent.enrol(body) ?? ""), body.slice(0, 80));
    assertEquals(added.length, 1);
    assertEquals(answers, [200, 400, 500, 500, 500, 500, 500, 500, 400], "questions are no events");
    isHost = true;
    assert(/status 500.*AMB7270/s.test(await agent.enrol(event("a", "shop")) ?? ""), "it would cut the node off");
    isHost = false;
    // A static pod is known to the kubelet by another uid than to the API server, whose copy names it.
    assertEquals(await agent.enrol(event("static", "shop", undefined, STATIC_UID)), undefined);
    assertEquals([added.at(-1), await decide("shop", "static", STATIC_UID)], ["static 10.0.0.9", "ambient"]);
  } finally {
    await server.shutdown();
    await Deno.remove(folder, { recursive: true });
  }
  assert(/does not answer/.test(await new SocketAgent(folder).enrol("{}") ?? ""));
  assertEquals(await new SocketAgent(folder).decide({ namespace: "shop", name: "a", uid: "" }), "unreachable");
});

Deno.test("whoever gives up ends the work he asked for, and whoever gets his answer ends nothing (CNI-016)", async () => {
  const folder = await Deno.makeTempDir(), signals: AbortSignal[] = [];
  const aborted = Promise.withResolvers<void>(), begun = Promise.withResolvers<void>();
  let waits = false;
  const pods = {
    add: (_pod: unknown, _source: unknown, signal: AbortSignal) => {
      signals.push(signal);
      if (!waits) return Promise.resolve();
      signal.addEventListener("abort", () => aborted.resolve());
      begun.resolve();
      return aborted.promise;
    },
  } as unknown as MeshPods;
  const options = {
    path: `${folder}/pluginevent.sock`,
    hostRoot: "",
    isHost: () => false,
    state: stateWith(change("shop", "a", {})),
    pods,
    onAnswer: () => {},
  };
  const server = await serveEvents({ ...options, log });
  const body = encodeEvent({ netns: "/proc/self/ns/net", name: "a", namespace: "shop", uid: "" }, [])!;
  try {
    assertEquals(await new SocketAgent(folder).enrol(body), undefined);
    assertEquals(await new SocketAgent(folder).enrol(body), undefined, "so the first has been cleaned up after");
    assertEquals(signals.map((signal) => signal.aborted), [false, false]);
    waits = true;
    using client = Deno.createHttpClient({ proxy: { transport: "unix", path: options.path } });
    const stop = new AbortController();
    const gone = fetch("http://localhost/cmdadd", { client, method: "POST", body, signal: stop.signal }).catch(() =>
      "gone"
    );
    await begun.promise;
    stop.abort();
    await aborted.promise;
    assertEquals(await gone, "gone");
  } finally {
    await server.shutdown();
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("RetryQueue looks at each pod once however often it is named, and again after a failure (CNI-073)", async () => {
  const stop = new AbortController(), seen: string[] = [];
  let failures = 3;
  const { promise, resolve } = Promise.withResolvers<void>();
  const queue = new RetryQueue({
    reconcile: (key) => {
      seen.push(key);
      if (key === "b" && failures-- > 0) return Promise.reject(new Error("not yet"));
      if (key === "b") resolve();
      return Promise.resolve();
    },
    log,
  });
  for (const key of ["a", "b", "a", "a"]) queue.add(key);
  const running = queue.run(stop.signal);
  await promise;
  stop.abort();
  await running;
  assertEquals(seen, ["a", "b", "b", "b", "b"]);
});

Deno.test("the plugin is made of few modules, and none that needs an import map (CNI-022, CNI-033)", async () => {
  const root = new URL("../../", import.meta.url).pathname.replace(/\/$/, ""), files = pluginModules(root);
  assert(files.length < 40 && files.includes("cni/plugin/entry.ts") && files.includes("kube/client.ts"), files.join());
  for (const file of files) {
    const text = await Deno.readTextFile(`${root}/${file}`);
    const mapped = [...text.matchAll(/from "([^".][^"]*)"/g)].map(([, it]) => it!).filter((it) =>
      !it.startsWith("node:")
    );
    assertEquals(mapped, [], file);
  }
});
