import { assert, assertEquals, assertRejects } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { MeshPods } from "./mesh_pods.ts";
import { actionFor, type NodePod, nodePodOf, REDIRECTION, redirectionOf, ruleOptionsOf } from "./node_pod.ts";
import { DEFAULT_SELECTORS } from "../enablement.ts";
import { FakeNode, News, POD } from "./node_testing.ts";
import { JournalFolder } from "./run_files.ts";

/** The agent's pods on a node in memory, where pod u1 runs in namespace 1. */
function world({ failing, node = new FakeNode() }: { failing?: string; node?: FakeNode } = {}) {
  node.failing = failing;
  const netns = node.processes.get(POD.uid) ?? node.place(POD.uid, 1), news = new News(), changed: string[] = [];
  const pods = new MeshPods({
    zds: () => node.announcer,
    rules: node.redirection,
    probes: node.probes(),
    annotate: node.annotate,
    node,
    onChange: ({ name }) => changed.push(name),
    defaults: {},
    news,
    journal: node.journal,
    log: new Logger("test", { sink: () => {} }),
  });
  return { pods, steps: node.steps, netns, owners: node.probeSet, node, news: news.lines, changed };
}

Deno.test("a pod is enrolled in the order that fails closed, its annotation last (CNI-020, CNI-080, CNI-088)", async () => {
  const { pods, steps, netns } = world();
  using event = netns.handle();
  await pods.add(POD, { netns: event });
  assertEquals(steps, ["rules", "zds add u1", "probe", "annotate enabled"]);
  assert(pods.has("u1"));
  await pods.add(POD, "find"); // Again: the same steps, nothing leaks.
  assertEquals(netns.open, 2);
  pods[Symbol.dispose]();
  assertEquals(netns.open, 1);
});

Deno.test("a failed sandbox leaves nothing to be tried again; a pod that runs waits as pending (CNI-081, CNI-089)", async () => {
  for (const step of ["rules", "zds add"]) {
    const { pods, steps, netns } = world({ failing: step });
    using event = netns.handle();
    await assertRejects(() => pods.add(POD, { netns: event }), MeshError);
    assert(!pods.has("u1"));
    assertEquals(netns.open, 1, step);
    assert(!steps.includes("annotate enabled") && !steps.includes("annotate pending"));
  }
  const { pods, steps, netns, node } = world({ failing: "zds add" });
  await assertRejects(() => pods.add(POD, "find"), MeshError);
  assertEquals(steps, ["rules", "zds add u1", "annotate pending"]);
  assert(!pods.has("u1"));
  node.failing = undefined;
  await pods.add(POD, "find");
  assert(pods.has("u1"));
  assertEquals(netns.open, 1);
});

Deno.test("what fails after ztunnel's word is no success, and is tried again (CNI-081)", async () => {
  for (const step of ["probe", "annotate enabled"]) {
    const { pods, steps, node } = world({ failing: step });
    await assertRejects(() => pods.add(POD, "find"), MeshError);
    node.failing = undefined;
    await pods.add(POD, "find");
    assertEquals(steps.at(-1), "annotate enabled");
  }
});

Deno.test("a pod that leaves alive shows nothing in clear; one that has ended keeps its rules (CNI-083)", async () => {
  const { pods, steps, netns, owners } = world();
  await pods.add(POD, "find");
  steps.length = 0;
  await pods.remove({ ...POD, ips: [] }, { lives: true });
  assertEquals(steps, ["unprobe", "release", "zds delete u1", "unrule", "annotate none"]);
  assertEquals([netns.open, owners.size, pods.has("u1")], [0, 0, false]);
  await pods.add(POD, "find");
  steps.length = 0;
  await pods.remove({ ...POD, ips: [], ended: true }, { lives: false });
  assertEquals(steps, ["unprobe", "zds delete u1"]);
  assertEquals([netns.open, owners.size], [0, 0]);
});

Deno.test("what one pod waits for holds up no other, and its own steps never cross (CNI-080)", async () => {
  const { pods, steps } = world();
  await Promise.all([pods.add(POD, "find"), pods.remove(POD, { lives: true }), pods.add(POD, "find")]);
  assertEquals(steps.filter((it) => it.startsWith("annotate")), [
    "annotate enabled",
    "annotate none",
    "annotate enabled",
  ]);
  assert(pods.has("u1"));
});

Deno.test("reassert() finds what was taken away, makes it right and says so, once (CNI-097, CNI-314)", async () => {
  const { pods, node, netns, news } = world();
  await pods.add(POD, "find");
  news.length = 0;
  await pods.reassert(POD);
  assertEquals(news, [], "nothing was wrong");
  const harms: readonly (readonly [string, () => void])[] = [
    ["rules", () => netns.rules = undefined],
    ["rules", () => netns.released = true],
    ["listeners", () => netns.listeners.delete(15008)],
  ];
  for (const [what, harm] of harms) {
    harm();
    await pods.reassert(POD);
    await pods.reassert(POD);
    assertEquals(news.splice(0), [`web-1 repaired ${what}`]);
    assertEquals([netns.rules, netns.released, netns.listeners.size, node.ztunnel.get("u1")], [{}, false, 3, 1]);
  }
  netns.listeners.clear();
  node.synchronized = false;
  await pods.reassert(POD);
  assertEquals(news, [], "a ztunnel that is not there yet listens nowhere: that is no fault of the pod");
});

Deno.test("a pod whose namespace was made anew behind the agent's back is enrolled in the new one (CNI-097, CNI-316)", async () => {
  const { pods, node, news, netns } = world();
  await pods.add(POD, "find");
  const fresh = node.place("u1", 2);
  await pods.reassert(POD);
  assertEquals(news.slice(1), ["web-1 repaired netns"]);
  assertEquals([fresh.rules, fresh.listeners.size, node.ztunnel.get("u1"), netns.open], [{}, 3, 2, 0]);
  node.place("other", 2); // The old one keeps its addresses, as long as somebody holds it.
  node.place("u1", 5);
  await pods.reassert(POD);
  assertEquals(node.ztunnel.get("u1"), 2, "it looks fine from where we look");
  await pods.auditNamespaces();
  await pods.auditNamespaces();
  assertEquals([node.ztunnel.get("u1"), news.splice(0).length], [5, 3]);
  node.processes.delete("u1");
  await assertRejects(() => pods.reassert(POD), MeshError, "has left the network namespace");
  assert(!pods.has("u1"), "so that it is looked for as a pod that is not enrolled");
  const enabled = { ...POD, annotations: { [REDIRECTION]: "enabled" } };
  await assertRejects(() => pods.add(enabled, "find"), MeshError, "was not found");
  assertEquals(node.annotations.get("u1"), "pending", "an annotation with nothing behind it is taken back (CNI-093)");
  node.place("u1", 3);
  await pods.add(enabled, "find");
  assertEquals([node.annotations.get("u1"), node.ztunnel.get("u1")], ["enabled", 3]);
  pods[Symbol.dispose]();
  assertEquals(node.openHandles, 0);
});

Deno.test("rules follow a live pod's annotations, and an address that it gains goes into the probes' set (CNI-076, CNI-094)", async () => {
  const { pods, netns, news, node, steps } = world();
  await pods.add(POD, "find");
  news.length = steps.length = 0;
  await pods.reassert({ ...POD, annotations: { "ambient.istio.io/dns-capture": "true" } });
  assertEquals([netns.rules, news, steps], [{ dnsCapture: true }, [], ["rules dns"]], "a change is no repair");
  await pods.reassert({
    ...POD,
    ips: ["10.0.0.2", "fd00::2"],
    annotations: { "ambient.istio.io/dns-capture": "so so" },
  });
  assertEquals([netns.rules, node.probeSet.get("fd00::2")], [{}, "u1"]);
  assertEquals(news, ["web-1: ambient.istio.io/dns-capture is neither true nor false"]);
});

Deno.test("what is changed in a pod's namespace is heard, as long as the pod is enrolled (CNI-097)", async () => {
  const { pods, node, changed } = world();
  await pods.add(POD, "find");
  node.watchers.get(1)!();
  assertEquals(changed, ["web-1"]);
  await pods.add({ ...POD, uid: "u2", name: "web-2" }, { netns: node.place("u2", 2).handle() });
  await pods.remove(POD, { lives: true });
  assertEquals([...node.watchers.keys()], [2]);
});

Deno.test("an annotation that somebody takes away is written again, and one that the watch has not told of yet is not (CNI-081)", async () => {
  const { pods, news, steps } = world();
  await pods.add(POD, "find");
  steps.length = 0;
  await pods.add(POD, "find");
  assertEquals(steps, [], "the watch is a moment behind");
  pods.table.get("u1")!.annotatedMs = -Infinity;
  await pods.add(POD, "find");
  assertEquals([steps.at(-1), news.at(-1)], ["annotate enabled", "web-1 repaired annotation"]);
});

Deno.test("the agent is killed at every step of an enrolment and of a leaving: the next one ends what it began (CNI-313)", async () => {
  const kill = ["rules", "zds add", "probe", "annotate", "release", "unprobe", "zds delete", "unrule", "never"];
  for (const leaves of [false, true]) {
    for (const step of kill) {
      const node = new FakeNode(), { pods } = world({ node });
      if (leaves) await pods.add(POD, "find");
      node.failing = step;
      const harmed = leaves ? pods.remove(POD, { lives: true }) : pods.add(POD, "find");
      await harmed.catch((error) => assert(error instanceof MeshError));
      // Killed: nothing of it is left but what is on the node, and what the API server was told.
      pods[Symbol.dispose]();
      const netns = node.netns(1), { rules, released } = netns, where = `${leaves ? "leaving" : "coming"}, ${step}`;
      const captured = rules !== undefined && !released;
      if (!leaves && node.annotations.get("u1") === "enabled") assert(captured, `${where}: it says so, and is`);
      if (!leaves && node.ztunnel.has("u1")) assert(captured, `${where}: ztunnel listens only where rules are`);
      const next = world({ node });
      const seen = { ...POD, annotations: { [REDIRECTION]: node.annotations.get("u1") ?? "" } };
      if (redirectionOf(seen) === "enabled") await next.pods.restore(new Map([[seen, netns.handle()]]));
      node.failing = undefined;
      if (leaves) {
        const touched = redirectionOf(seen) !== "none" || next.pods.has("u1");
        if (touched) await next.pods.remove(seen, { lives: true });
        if (!touched) continue; // The annotation went last: all else had gone.
        assertEquals(
          [netns.rules, node.ztunnel.size, node.probeSet.size, node.annotations.size],
          [undefined, 0, 0, 0],
          where,
        );
      } else {
        await (next.pods.has("u1") ? next.pods.reassert(seen) : next.pods.add(seen, "find"));
        await next.pods.reassert(seen);
        const state = [netns.rules, netns.listeners.size, node.probeSet.get("10.0.0.2"), node.annotations.get("u1")];
        assertEquals(state, [{}, 3, "u1", "enabled"], where);
      }
      next.pods[Symbol.dispose]();
      assertEquals(node.openHandles, 0, where);
    }
  }
});

Deno.test("a pod whose enrolment was cut short, and that belongs in no mesh any more, is freed by the next agent (CNI-313)", async () => {
  for (const step of ["rules", "zds add", "probe", "annotate"]) {
    const node = new FakeNode(), { pods } = world({ node, failing: step });
    await pods.add(POD, "find").catch((error) => assert(error instanceof MeshError));
    pods[Symbol.dispose]();
    node.failing = undefined;
    const seen = { ...POD, annotations: { [REDIRECTION]: node.annotations.get("u1") ?? "" } }, next = world({ node });
    const enablement = { selectors: DEFAULT_SELECTORS, excludedNamespaces: [] };
    const told = { namespaceLabels: {}, enablement, enrolled: next.pods.has("u1"), begun: node.begun.has("u1") };
    assertEquals(actionFor(seen, told), "removeLive", step);
    await next.pods.remove(seen, { lives: true });
    const left = [node.netns(1).rules, node.ztunnel.size, node.probeSet.size, node.annotations.size, node.begun.size];
    assertEquals(left, [undefined, 0, 0, 0, 0], step);
  }
});

Deno.test("actionFor() follows the table of pod updates (CNI-076, CNI-079, CNI-092, CNI-093)", () => {
  const ambient = { "istio.io/dataplane-mode": "ambient" };
  const enablement = { selectors: DEFAULT_SELECTORS, excludedNamespaces: [] };
  const action = (pod: Partial<NodePod>, namespaceLabels: Record<string, string>, enrolled: boolean) =>
    actionFor({ ...POD, ...pod }, { namespaceLabels, enablement, enrolled });
  const enabled = { annotations: { [REDIRECTION]: "enabled" } },
    pending = { annotations: { [REDIRECTION]: "pending" } };
  assertEquals(action({}, {}, false), "nothing");
  assertEquals(action({}, ambient, false), "add");
  assertEquals(action(enabled, ambient, true), "reassert");
  assertEquals(action(enabled, ambient, false), "add", "an annotation alone is no enrolment");
  assertEquals(action(pending, ambient, true), "add");
  assertEquals(action({}, ambient, true), "add", "somebody took the annotation away");
  assertEquals(action({ ips: [] }, ambient, false), "nothing");
  assertEquals(action(enabled, {}, true), "removeLive");
  assertEquals(action(pending, {}, false), "removeLive");
  assertEquals(action({ ...enabled, ended: true, ips: [] }, ambient, true), "removeEnded");
  assertEquals(action({ ended: true }, ambient, false), "nothing");
  assertEquals(action({ hostNetwork: true }, ambient, false), "nothing");
});

Deno.test("nodePodOf() reads what the agent needs of a pod, and addresses of both forms (CNI-079)", () => {
  const object = {
    metadata: { uid: "u", name: "n", namespace: "s", labels: { a: "b", bad: 7 }, annotations: null },
    spec: { hostNetwork: true },
    status: { phase: "Succeeded", podIP: "10.0.0.1", podIPs: [{ ip: "::ffff:10.0.0.2" }, { ip: "fd00::1" }, {}] },
  } as unknown as Parameters<typeof nodePodOf>[0];
  assertEquals(nodePodOf(object), {
    uid: "u",
    name: "n",
    namespace: "s",
    serviceAccount: "default",
    labels: { a: "b" },
    annotations: {},
    hostNetwork: true,
    ended: true,
    ips: ["10.0.0.2", "fd00::1"],
  });
  assertEquals(nodePodOf({ metadata: { name: "n" } }), undefined);
});

Deno.test("ruleOptionsOf() lets a pod's annotations decide, and says what it cannot read (CNI-094, CNI-095, CNI-125, CNI-126)", () => {
  const options = (annotations: Record<string, string>) => ruleOptionsOf({ ...POD, annotations }, { dnsCapture: true });
  assertEquals(options({}), { rules: { dnsCapture: true }, problems: [] });
  assertEquals(options({ "ambient.istio.io/dns-capture": "F", "ambient.istio.io/bypass-inbound-capture": "1" }).rules, {
    dnsCapture: false,
    ingress: true,
  });
  assertEquals(options({ "ambient.istio.io/dns-capture": "yes" }), {
    rules: { dnsCapture: true },
    problems: ["ambient.istio.io/dns-capture is neither true nor false"],
  });
  const listed = options({ "istio.io/reroute-virtual-interfaces": " tap0, ,a/b,an-interface-too-long,net1" });
  assertEquals(listed.rules.virtualInterfaces, ["tap0", "net1"]);
  assertEquals(listed.problems.length, 1);
});

Deno.test("a pod that leaves is none to be repaired from the first step on, and one that was enrolled is no more said to be begun (CNI-083, CNI-313)", async () => {
  const { pods, node } = world(), seen: number[] = [];
  await pods.add(POD, "find");
  node.announcer.deletePod = () => {
    seen.push(pods.table.complete().length, node.probeSet.size);
    return Promise.resolve();
  };
  await pods.remove(POD, { lives: true });
  assertEquals(seen, [0, 0], "the host's audit would put its address back");
  node.begun.add("u1"); // The agent before died between its last two steps.
  const next = world({ node });
  await next.pods.restore(new Map([[POD, node.netns(1).handle()]]));
  assertEquals(node.begun.size, 0);
});

Deno.test("what another means captured stays captured until ztunnel has ended what went by it (CNI-144, CNI-083)", async () => {
  const { pods, steps, node, netns } = world();
  netns.rules = { dnsCapture: true }; // By the agent before, which redirected by rules; this one does by eBPF.
  Object.assign(node.redirection, { supersedes: () => netns.rules?.dnsCapture === true });
  node.announcer.addPod(
    ...(await pods.restore(new Map([[POD, netns.handle()]]))) as [Parameters<typeof node.announcer.addPod>[0]],
  );
  assertEquals(steps.splice(0), ["zds add u1"], "no rule was touched");
  node.synchronized = false;
  await assertRejects(() => pods.reassert(POD), MeshError, "no ztunnel is there");
  assertEquals([steps.splice(0), netns.rules], [["zds delete u1", "zds add u1"], { dnsCapture: true }]);
  node.synchronized = true;
  await pods.reassert(POD);
  assertEquals(steps.splice(0), ["zds delete u1", "rules", "zds add u1"]);
  await pods.reassert(POD);
  assertEquals(steps, []);
});

Deno.test("of a pod that has ended nothing is kept on the node (CNI-047)", async () => {
  const { pods, steps, node } = world(), forgotten: number[] = [];
  Object.assign(node.redirection, { forget: ({ inode }: { inode: number }) => forgotten.push(inode) });
  await pods.add(POD, "find");
  await pods.remove(POD, { lives: false });
  assertEquals([steps.at(-1), forgotten], ["zds delete u1", [1]]);
});

Deno.test("JournalFolder forgets pods that this node has no more, over restarts (CNI-313)", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const journal = new JournalFolder(folder);
    for (const uid of ["a", "b", "c"]) journal.begin(uid);
    journal.end("a");
    const next = new JournalFolder(folder);
    next.keepOnly(new Set(["b", "z"]));
    const has = (it: JournalFolder) => ["a", "b", "c"].map((uid) => it.has(uid));
    assertEquals([has(next), has(new JournalFolder(folder))], [[false, true, false], [false, true, false]]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
