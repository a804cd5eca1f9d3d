/** The node agent of a cluster dies before each single step of what it does for a pod; the next one ends what was begun (CNI-313). */
import { assert, assertEquals } from "@std/assert";
import { HostProbes } from "../../cni/host_probes.ts";
import { TABLE_NAMES } from "../../cni/nft_rules.ts";
import { SocketAgent } from "../../cni/plugin/agent.ts";
import { missingPolicyRoutes } from "../../cni/redirection/policy_routes.ts";
import { checkPodRules } from "../../cni/pod_rules.ts";
import { PODS } from "../../kube/resource_types.ts";
import { FirewallSocket } from "../../os/netlink/nftables.ts";
import { listeningPorts } from "../../os/netlink/sock_diag.ts";
import { NodeRig, type RigPod, until } from "./node_rig.ts";

const LISTENERS = [15001, 15006, 15008], STEPS_MAX = 40, KILLED = 137;

/** One agent after the other on one node with one pod. */
class Mortal implements AsyncDisposable {
  readonly rig: NodeRig;
  readonly pod: RigPod;

  constructor(rig: NodeRig) {
    this.rig = rig;
    rig.program = new URL("./mortal_agent.ts", import.meta.url).pathname;
    rig.env.AMBIT_STEPS = rig.folder;
    rig.namespace("shop", false);
    this.pod = rig.pod("web");
  }

  /** From here on the agent counts its steps, and dies before that one; 0: it lives. */
  dieAt(step: number): void {
    Deno.writeTextFileSync(`${this.rig.folder}/steps`, "");
    Deno.writeTextFileSync(`${this.rig.folder}/die-at`, `${step}`);
  }

  /** It counts no more. @returns What it did since. */
  live(): string[] {
    Deno.removeSync(`${this.rig.folder}/die-at`);
    return Deno.readTextFileSync(`${this.rig.folder}/steps`).trim().split("\n");
  }

  get annotation(): unknown {
    return this.rig.annotation(this.pod);
  }

  /** What an enrolled pod has and this one lacks. */
  lacks(): string[] {
    const { netns, uid, ip } = this.pod, listening = listeningPorts(netns)!;
    return [
      ...checkPodRules(netns, {}),
      ...LISTENERS.filter((port) => !listening.has(port)).map((port) => `nothing listens on ${port}`),
      ...this.#probed().some((it) => it.ip === ip && it.uid === uid) ? [] : ["not in the probes' set"],
      ...this.annotation === "enabled" ? [] : [`annotated ${this.annotation}`],
      ...this.#begun().map(() => "said to be under way"),
    ];
  }

  /** What of a mesh is left in the pod, on the node, at ztunnel and at the API server. */
  left(): string[] {
    const { netns } = this.pod;
    using firewall = FirewallSocket.open(netns);
    const tables = firewall.tableNames().filter((it) => (Object.values(TABLE_NAMES) as string[]).includes(it));
    const routes = 4 - missingPolicyRoutes(netns, {}).length; // A rule and a route of each family.
    return [
      ...tables.map((name) => `table ${name}`),
      ...routes === 0 ? [] : [`${routes} rules or routes`],
      ...[...listeningPorts(netns)!].map((port) => `a listener on ${port}`),
      ...this.#probed().map(({ ip }) => `${ip} in the probes' set`),
      ...[...this.rig.ztunnel.pods.keys()].map((uid) => `${uid} at ztunnel`),
      ...this.annotation === undefined ? [] : [`the annotation ${this.annotation}`],
      ...this.#begun().map(() => "said to be under way"),
    ];
  }

  #probed() {
    using probes = new HostProbes();
    return probes.check().length > 0 ? [] : probes.addresses();
  }

  #begun(): string[] {
    return [...Deno.readDirSync(`${this.rig.folder}/run/enrolling`)].map(({ name }) => name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.rig[Symbol.asyncDispose]();
  }
}

interface Scenario {
  /** Brings the pod to where the work begins, with an agent that lives. */
  readonly before: (mortal: Mortal) => Promise<void>;
  /** Begins the work that the agent dies in. */
  readonly begin: (mortal: Mortal) => void;
  /** What must hold of a node whose agent is dead. */
  readonly dead: (mortal: Mortal, step: string) => void;
  /** What the world does meanwhile, before the next agent starts. */
  readonly between?: (mortal: Mortal) => void;
  /** What the world does once the next agent is there. */
  readonly again?: (mortal: Mortal) => Promise<void>;
  readonly after: (mortal: Mortal) => string[];
}

/** Works it through once to learn the steps, then dies before each of them. */
async function everyStep({ before, begin, dead, between, again, after }: Scenario): Promise<string[]> {
  await using mortal = new Mortal(await NodeRig.make());
  const { rig } = mortal;
  await rig.start();
  await before(mortal);
  mortal.dieAt(0);
  begin(mortal);
  await until("it is done", () => after(mortal).length === 0);
  const steps = mortal.live();
  assert(steps.length > 1 && steps.length < STEPS_MAX, steps.join());
  for (const [at, step] of steps.entries()) {
    await before(mortal);
    mortal.dieAt(at + 1);
    begin(mortal);
    assertEquals(await rig.ended(), KILLED, `dies before step ${at + 1}, ${step}`);
    assertEquals(mortal.live(), steps.slice(0, at + 1), "the same steps each time");
    dead(mortal, step);
    between?.(mortal);
    await rig.start();
    await again?.(mortal);
    await until(`dead before step ${at + 1}, ${step}: ${after(mortal)}`, () => after(mortal).length === 0);
  }
  return steps;
}

/** Whoever is said to be captured is: the annotation comes last, and ztunnel listens only behind rules. */
function neverHalf(mortal: Mortal, step: string): void {
  const rules = checkPodRules(mortal.pod.netns, {});
  if (mortal.annotation === "enabled") assertEquals(rules, [], `before ${step}: it says so`);
  if (mortal.rig.ztunnel.pods.size > 0) assertEquals(rules, [], `before ${step}: ztunnel listens`);
}

const free = async (mortal: Mortal) => {
  mortal.rig.namespace("shop", false);
  await until(`free: ${mortal.left()}`, () => mortal.left().length === 0);
};

const enrolled = async (mortal: Mortal) => {
  mortal.rig.namespace("shop", true);
  await until(`enrolled: ${mortal.lacks()}`, () => mortal.lacks().length === 0);
};

Deno.test("the agent dies before every single step of an enrolment, and the next one ends it (CNI-080, CNI-081, CNI-313)", async () => {
  const steps = await everyStep({
    before: free,
    begin: ({ rig }) => rig.namespace("shop", true),
    dead: neverHalf,
    after: (mortal) => mortal.lacks(),
  });
  assertEquals(steps.filter((it) => !it.startsWith("route")), [
    "journal.begin",
    "nft.replace",
    "zds.request",
    "probes.add",
    "api.patch",
    "journal.end",
  ]);
});

Deno.test("the agent dies in an enrolment and the pod is to be in no mesh when the next one comes: nothing is left (CNI-313)", async () => {
  await everyStep({
    before: free,
    begin: ({ rig }) => rig.namespace("shop", true),
    dead: neverHalf,
    between: ({ rig }) => rig.namespace("shop", false),
    // Worked through it is enrolled; after a death it is not wanted any more.
    after: (mortal) => mortal.rig.isAmbient("shop") ? mortal.lacks() : mortal.left(),
  });
});

Deno.test("the agent dies before every single step of taking a pod out, and the next one leaves nothing behind (CNI-083, CNI-313)", async () => {
  const steps = await everyStep({
    before: enrolled,
    begin: ({ rig }) => rig.namespace("shop", false),
    dead: () => {},
    after: (mortal) => mortal.left(),
  });
  assertEquals(steps.filter((it) => !it.startsWith("route")).slice(0, 5), [
    "probes.remove",
    "nft.replace",
    "zds.request",
    "nft.deleteTables",
    "api.patch",
  ]);
});

Deno.test("the agent dies in taking a pod out that is to be in the mesh again when the next one comes: it is enrolled whole (CNI-313)", async () => {
  await everyStep({
    before: enrolled,
    begin: ({ rig }) => rig.namespace("shop", false),
    dead: () => {},
    between: ({ rig }) => rig.namespace("shop", true),
    after: (mortal) => mortal.rig.isAmbient("shop") ? mortal.lacks() : mortal.left(),
  });
});

Deno.test("the agent dies before every single step after a pod was deleted: ztunnel and the probes' set forget it (CNI-077, CNI-083, CNI-313)", async () => {
  const gone = ({ rig, pod }: Mortal) => {
    rig.api.remove(PODS, "shop", pod.name);
    rig.replaceNetns(pod); // The rules went with the sandbox.
  };
  const steps = await everyStep({
    before: async (mortal) => {
      mortal.rig.putPod(mortal.pod);
      await enrolled(mortal);
    },
    begin: gone,
    dead: () => {},
    after: (mortal) => mortal.left(),
  });
  assertEquals(steps, ["probes.remove", "zds.request"]);
});

Deno.test("the agent dies before every single step of what the plugin asks: the runtime is told no, and the next sandbox is enrolled (CNI-016, CNI-020, CNI-089, CNI-313)", async () => {
  let answer: Promise<string | undefined> = Promise.resolve(undefined);
  const ask = ({ rig, pod }: Mortal) => {
    const body = JSON.stringify({
      Netns: rig.place(pod),
      PodName: pod.name,
      PodNamespace: "shop",
      IPs: [{ Interface: null, Address: { IP: pod.ip, Mask: "/////w==" }, Gateway: "" }],
    });
    answer = new SocketAgent(`${rig.folder}/run`).enrol(body);
  };
  const steps = await everyStep({
    before: async (mortal) => {
      mortal.rig.api.remove(PODS, "shop", mortal.pod.name);
      mortal.rig.replaceNetns(mortal.pod);
      await until(`it is gone: ${mortal.left()}`, () => mortal.left().length === 0);
      mortal.rig.namespace("shop", true);
      mortal.rig.putPod(mortal.pod, { knowsIp: false }); // The API server hears of its address only later.
      await until("the agent knows it", async () =>
        (await new SocketAgent(`${mortal.rig.folder}/run`).decide({
          namespace: "shop",
          name: mortal.pod.name,
          uid: mortal.pod.uid,
        })) === "ambient");
    },
    begin: ask,
    dead: neverHalf,
    between: (mortal) => {
      mortal.rig.replaceNetns(mortal.pod); // The sandbox that was not enrolled is thrown away.
      mortal.rig.ztunnel.close(mortal.pod.uid);
    },
    again: async (mortal) => {
      assert(await answer !== undefined, "the runtime is told no");
      ask(mortal);
      assertEquals(await answer, undefined);
    },
    after: (mortal) => mortal.lacks(),
  });
  assert(steps.length > 4);
});
