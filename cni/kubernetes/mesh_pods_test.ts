import { assert, assertEquals, assertRejects } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import type { Netns } from "../../os/netns.ts";
import { MeshPods } from "./mesh_pods.ts";
import { actionFor, type NodePod, nodePodOf, REDIRECTION, ruleOptionsOf } from "./node_pod.ts";
import { DEFAULT_SELECTORS } from "../enablement.ts";

const POD: NodePod = {
  uid: "u1",
  name: "web-1",
  namespace: "shop",
  serviceAccount: "web",
  labels: {},
  annotations: {},
  hostNetwork: false,
  ended: false,
  ips: ["10.0.0.2"],
};

/** A namespace that counts its open handles. */
class FakeNetns {
  open = 0;
  readonly inode: number;

  constructor(inode: number) {
    this.inode = inode;
  }

  handle(): Netns {
    this.open++;
    let isOpen = true;
    const close = () => {
      assert(isOpen, "a handle is closed once");
      isOpen = false;
      this.open--;
    };
    const { inode } = this;
    return { inode, duplicate: () => this.handle(), [Symbol.dispose]: close } as unknown as Netns;
  }
}

/** All that the agent touches, as a list of what was done. */
function world(failing: { step?: string } = {}) {
  const steps: string[] = [], netns = new FakeNetns(1), owners = new Map<string, string>();
  const step = (name: string) => {
    steps.push(name);
    if (failing.step !== undefined && name.startsWith(failing.step)) {
      throw new MeshError("AMB0000", "no", { remedy: "" });
    }
  };
  const pods = new MeshPods({
    zds: () => ({
      addPod: async ({ uid }) => await Promise.resolve(step(`zds add ${uid}`)),
      deletePod: async (uid) => await Promise.resolve(step(`zds delete ${uid}`)),
    }),
    rules: {
      apply: (_, options) => step(`rules${options.dnsCapture ? " dns" : ""}`),
      release: () => step("release"),
      remove: () => step("unrule"),
      check: () => [],
    },
    probes: {
      add: (addresses) => {
        for (const { ip, uid } of addresses) owners.set(ip, uid);
        step("probe");
      },
      remove: (addresses) => {
        for (const { ip, uid } of addresses) if (owners.get(ip) === uid) owners.delete(ip);
        step("unprobe");
        return [];
      },
    },
    annotate: async (_, redirection) => await Promise.resolve(step(`annotate ${redirection}`)),
    find: () => netns.handle(),
    defaults: {},
    log: new Logger("test", { sink: () => {} }),
  });
  return { pods, steps, netns, owners };
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
    const { pods, steps, netns } = world({ step });
    using event = netns.handle();
    await assertRejects(() => pods.add(POD, { netns: event }), MeshError);
    assert(!pods.has("u1"));
    assertEquals(netns.open, 1, step);
    assert(!steps.includes("annotate enabled") && !steps.includes("annotate pending"));
  }
  const failing: { step?: string } = { step: "zds add" }, { pods, steps, netns } = world(failing);
  await assertRejects(() => pods.add(POD, "find"), MeshError);
  assertEquals(steps, ["rules", "zds add u1", "annotate pending"]);
  assert(!pods.has("u1"));
  failing.step = undefined;
  await pods.add(POD, "find");
  assert(pods.has("u1"));
  assertEquals(netns.open, 1);
});

Deno.test("what fails after ztunnel's word is no success, and is tried again (CNI-081)", async () => {
  for (const step of ["probe", "annotate enabled"]) {
    const failing: { step?: string } = { step }, { pods, steps } = world(failing);
    await assertRejects(() => pods.add(POD, "find"), MeshError);
    failing.step = undefined;
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
