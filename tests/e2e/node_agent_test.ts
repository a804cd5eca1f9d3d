/** The node agent of a cluster on a real kernel: what is taken away comes back, and killing it or the node leaves no pod half enrolled. */
import { assert, assertEquals } from "@std/assert";
import { HostProbes } from "../../cni/host_probes.ts";
import { policyRoute, TABLE_NAMES } from "../../cni/nft_rules.ts";
import { checkPodRules } from "../../cni/pod_rules.ts";
import { DAEMON_SETS } from "../../kube/resource_types.ts";
import { FirewallSocket } from "../../os/netlink/nftables.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { listeningPorts } from "../../os/netlink/sock_diag.ts";
import { NodeRig, type RigPod, until } from "./node_rig.ts";

/** Everything that an enrolled pod has, or what it lacks. */
function lacks(rig: NodeRig, pod: RigPod): string[] {
  using probes = new HostProbes();
  const ports = [15001, 15006, 15008].filter((port) => !listeningPorts(pod.netns)!.has(port));
  return [
    ...checkPodRules(pod.netns, {}),
    ...ports.map((port) => `nothing listens on ${port}`),
    ...probedLacks(probes, pod),
    ...rig.annotation(pod) === "enabled" ? [] : ["not annotated"],
  ];
}

function probedLacks(probes: HostProbes, { ip, uid }: RigPod): string[] {
  const differences = probes.check();
  if (differences.length > 0) return differences; // Without its table there is no set to look into.
  return probes.addresses().some((it) => it.ip === ip && it.uid === uid) ? [] : ["not in the probes' set"];
}

/** Nothing of a mesh in it. */
function isFree(pod: RigPod): boolean {
  using firewall = FirewallSocket.open(pod.netns);
  const tables = firewall.tableNames().filter((name) => (Object.values(TABLE_NAMES) as string[]).includes(name));
  return tables.length === 0 && listeningPorts(pod.netns)!.size === 0;
}

Deno.test("whatever is flushed in a pod or on the host is back at the kernel's word, and is counted (CNI-085, CNI-097, CNI-188, CNI-314)", async () => {
  await using rig = await NodeRig.make();
  const pod = rig.pod("web");
  await rig.start("--audit-interval", "1h"); // The kernel's word is what brings it back, not the clock.
  await until("it is enrolled", () => lacks(rig, pod).length === 0);
  const inPod = (work: (firewall: FirewallSocket) => void) => {
    using firewall = FirewallSocket.open(pod.netns);
    work(firewall);
  };
  const route = (work: (routes: RouteSocket) => void) => {
    using routes = RouteSocket.open(pod.netns);
    work(routes);
  };
  const onHost = (work: (firewall: FirewallSocket) => void) => {
    using firewall = FirewallSocket.open();
    work(firewall);
  };
  const v4 = policyRoute("ipv4"), v6 = policyRoute("ipv6");
  const harms: readonly (readonly [what: string, harm: () => void])[] = [
    ["rules", () => inPod((it) => it.deleteTables([TABLE_NAMES.nat]))],
    ["rules", () => inPod((it) => it.deleteTables([TABLE_NAMES.mangle]))],
    ["rules", () => route((it) => it.deleteRule(v4.rule))],
    ["rules", () => route((it) => it.deleteRoute(v4.route))],
    ["rules", () => route((it) => it.deleteRule(v6.rule))],
    ["rules", () => route((it) => it.deleteRoute(v6.route))],
    ["host_rules", () => onHost((it) => it.deleteTables([TABLE_NAMES.nat]))],
    ["probe_set", () => {
      using probes = new HostProbes();
      probes.remove([{ ip: pod.ip, uid: pod.uid }]);
    }],
  ];
  for (const [what, harm] of harms) {
    const sample = `istio_cni_repairs_total{what="${what}"}`, before = await rig.metric(sample);
    harm(); // It may be made right before we could look: that it was taken away is said by what is counted.
    await until(`${what} is counted`, async () => await rig.metric(sample) > before);
    await until(`${what} is made right`, () => lacks(rig, pod).length === 0);
  }
  const [row] = JSON.parse((await rig.page(rig.debugPort, "/debug/pods"))!).pods;
  assertEquals([row.pod, row.state, row.netnsInode], ["shop/web", "enrolled", pod.netns.inode]);
  const told = () => rig.events().some((event) => event.startsWith("AmbientRepaired: rules made right again"));
  await until("it is told by an event", told);
});

Deno.test("listeners that are lost are found by the audit, and an audit finds what no notification tells (CNI-097, CNI-314)", async () => {
  await using rig = await NodeRig.make();
  const pod = rig.pod("web");
  await rig.start("--audit-interval", "1s");
  await until("it is enrolled", () => lacks(rig, pod).length === 0);
  rig.ztunnel.close(pod.uid);
  await until("ztunnel listens again", () => lacks(rig, pod).length === 0);
  await until("that is counted", async () => await rig.metric('istio_cni_repairs_total{what="listeners"}') >= 1);
});

Deno.test("the agent is killed again and again while pods come and go: each ends enrolled or free, never half (CNI-051, CNI-313)", async () => {
  await using rig = await NodeRig.make();
  const pods = ["a", "b", "c", "d", "e"].map((name) => rig.pod(name));
  await rig.start();
  for (let round = 0; round < 4; round++) {
    const wanted = round % 2 === 1;
    rig.namespace("shop", wanted);
    // Not a time to wait for, but a moment to die at: another one in each round.
    await until(
      "some of it has been done",
      () => pods.filter((it) => (lacks(rig, it).length === 0) === wanted).length > round,
    );
    assertEquals(await rig.stop("SIGKILL"), 137);
    for (const pod of wanted ? pods : []) {
      if (rig.annotation(pod) === "enabled") assertEquals(checkPodRules(pod.netns, {}), [], "what says so is captured");
    }
    await rig.start();
    await until(
      `round ${round}: all are as they should be`,
      () => pods.every((it) => wanted ? lacks(rig, it).length === 0 : isFree(it) && rig.annotation(it) === undefined),
    );
  }
  using probes = new HostProbes();
  assertEquals(probes.addresses().length, 5);
});

Deno.test("after a reboot behind the agent's back every pod is enrolled anew, in its new namespace (CNI-054, CNI-093, CNI-098, CNI-316)", async () => {
  await using rig = await NodeRig.make();
  const pods = ["a", "b"].map((name) => rig.pod(name));
  await rig.start();
  await until("both are enrolled", () => pods.every((pod) => lacks(rig, pod).length === 0));
  await rig.stop("SIGKILL");
  for (const { uid } of pods) await rig.ztunnel.deletePod(uid);
  for (const pod of pods) rig.replaceNetns(pod);
  onBoot(rig);
  assert(pods.every((pod) => rig.annotation(pod) === "enabled" && lacks(rig, pod).length > 0), "they only say so");
  await rig.start("--audit-interval", "1s");
  await until("both are enrolled again", () => pods.every((pod) => lacks(rig, pod).length === 0));
  rig.replaceNetns(pods[0]!); // And once more, under the running agent.
  await until("it is found in its new namespace", () => lacks(rig, pods[0]!).length === 0);
  await until("that is counted", async () => await rig.metric('istio_cni_repairs_total{what="netns"}') >= 1);
});

/** What a boot leaves: no rules of ours on the host, an empty run folder. */
function onBoot(rig: NodeRig): void {
  using firewall = FirewallSocket.open();
  firewall.deleteTables([TABLE_NAMES.nat]);
  Deno.removeSync(`${rig.folder}/run`, { recursive: true });
  Deno.mkdirSync(`${rig.folder}/run`);
}

Deno.test("the installed plugin holds a new pod back until it is captured; an upgrade leaves it, an uninstallation takes it away (CNI-007, CNI-020, CNI-046, CNI-047, CNI-051)", async () => {
  await using rig = await NodeRig.make();
  rig.api.put(DAEMON_SETS, { metadata: { name: "istio-cni-node", namespace: "istio-system" }, spec: {} });
  await rig.start();
  const add = (pod: RigPod) => rig.callPlugin(`${rig.folder}/bin/istio-cni`, pod);
  const web = rig.pod("web"), enrolled = await add(web);
  assertEquals(
    [enrolled.code, JSON.parse(enrolled.out).ips[0].address],
    [0, `${web.ip}/32`],
    enrolled.out + enrolled.said,
  );
  assertEquals(lacks(rig, web), [], "all of it, before its first container runs");
  assertEquals(await rig.stop(), 0);
  assert((await Deno.stat(`${rig.folder}/net.d/02-istio-cni.conflist`)).isFile, "an upgrade leaves it in place");
  assertEquals(checkPodRules(web.netns, {}), []);
  const late = rig.pod("late"), held = await add(late);
  assertEquals([held.code, /does not answer/.test(JSON.parse(held.out).msg)], [1, true], "new pods of the mesh wait");
  await rig.start();
  assertEquals((await add(late)).code, 0);
  rig.api.remove(DAEMON_SETS, "istio-system", "istio-cni-node");
  assertEquals(await rig.stop(), 0);
  const left = ["net.d", "bin", "run"].flatMap((folder) =>
    [...Deno.readDirSync(`${rig.folder}/${folder}`)].map(({ name }) => name)
  );
  assertEquals(left.filter((name) => /conflist|kubeconfig|^\.ambit$/.test(name)), ["10-net.conflist"]);
  assertEquals(checkPodRules(web.netns, {}), [], "what runs stays captured");
  assertEquals((await add(web).catch(() => ({ code: -1 }))).code, -1, "there is no configuration of ours any more");
  using probes = new HostProbes();
  assert(probes.check().length > 0);
});
