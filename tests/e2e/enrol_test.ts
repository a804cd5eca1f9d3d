/** The node agent as an operator meets it: its sockets, `ambit enroll` and `unenroll`, restart and release (CNI-270, CNI-271, CNI-273, CNI-278). */
import { assertEquals, assertRejects } from "@std/assert";
import { assert } from "../../base/assert.ts";
import { chain, MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { runEnroll } from "../../cli/enroll.ts";
import { runUnenroll } from "../../cli/unenroll.ts";
import { CNI_CONFIG, type CniConfig } from "../../cni/config.ts";
import { runCni, startCni } from "../../cni/main.ts";
import "../../cni/kubernetes/main.ts"; // Its libraries are loaded here, not in the middle of a test.
import { checkPodRules } from "../../cni/pod_rules.ts";
import { type EnrolledPod, ZdsClient } from "../../dataplane/agent/zds_client.ts";
import { countNetnsDescriptors } from "../../os/descriptors_testing.ts";
import { createNamedNetns, deleteNamedNetns } from "../../os/netns.ts";

const silent = new Logger("cni", { sink: () => {} });

class Pods {
  readonly running = new Map<string, string>();

  addPod(pod: EnrolledPod): Promise<void> {
    this.running.set(pod.uid, `${pod.info.namespace}/${pod.info.name} ${pod.info.serviceAccount}`);
    return Promise.resolve();
  }

  deletePod(uid: string): Promise<void> {
    this.running.delete(uid);
    return Promise.resolve();
  }
}

async function withNodeAgent(config: CniConfig, body: () => Promise<void>): Promise<void> {
  const stop = new AbortController();
  const agent = await startCni(config, { signal: stop.signal, log: silent });
  try {
    await body();
  } finally {
    stop.abort();
    await agent.done;
  }
}

/** What a command writes, besides doing it. */
async function output(run: () => Promise<number>): Promise<string> {
  const original = Deno.stdout.writeSync;
  let text = "";
  Deno.stdout.writeSync = (bytes) => {
    text += new TextDecoder().decode(bytes);
    return bytes.length;
  };
  try {
    assertEquals(await run(), 0);
  } finally {
    Deno.stdout.writeSync = original;
  }
  return text;
}

async function until(claim: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!condition()) {
    assert(performance.now() < deadline, claim);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

Deno.test("a namespace is enrolled, survives a restart of the node agent, and leaves (CNI-270, CNI-271, CNI-273)", async () => {
  const folder = Deno.makeTempDirSync(), name = `ambit-e2e-${Deno.pid}`;
  const zds = `${folder}/zds.sock`, enrol = `${folder}/run/enrol.sock`;
  const dirs = ["--state-dir", `${folder}/state`, "--enrol-dir", `${folder}/enrol.d`];
  const base = ["--node-mode", "--zds-socket", zds, "--enrol-socket", enrol, ...dirs];
  const config = (...more: string[]) => CNI_CONFIG.parse([...base, ...more], () => undefined).config;
  const socket = ["--enrol-socket", enrol];
  const enroll = ["--namespace", "shop", "--service-account", "web", "--name", "web-0", ...socket];
  const target = `netns/${name}`;
  using netns = createNamedNetns(name);
  const pods = new Pods(), stop = new AbortController();
  using ztunnel = new ZdsClient({ path: zds, pods, log: silent });
  const running = ztunnel.run(stop.signal);
  try {
    await withNodeAgent(config(), async () => {
      assertEquals(Deno.statSync(enrol).mode! & 0o777, 0o600);
      const text = await output(() => runEnroll([target, ...enroll]));
      assertEquals(text, `${target} is enrolled as pod shop/web-0, service account web\n`);
      assertEquals([...pods.running.values()], ["shop/web-0 web"]);
      assertEquals(checkPodRules(netns, {}), []);
      const own = `netns-path:/proc/${Deno.pid}/ns/net`;
      const refused = await assertRejects(() => runEnroll([own, ...enroll]), MeshError);
      assertEquals([refused.code, chain(refused)], ["AMB7101", `${own} is in the network namespace of the host`]);
      assertEquals((await assertRejects(() => runEnroll(["cgroup/x", ...enroll]), MeshError)).code, "AMB7162");
      assertEquals((await assertRejects(() => runEnroll(["host/x", ...enroll]), MeshError)).code, "AMB7500");
    });
    assertEquals(checkPodRules(netns, {}), [], "capture stays in place (CNI-278)");
    assertEquals(pods.running.size, 1);
    await until("ztunnel noticed", () => !ztunnel.ready);
    await withNodeAgent(config("--dns-capture"), async () => {
      assertEquals(checkPodRules(netns, { dnsCapture: true }), [], "restored under the new settings");
      await until("in sync again", () => ztunnel.ready);
      assertEquals(pods.running.size, 1);
      const listed = JSON.parse(await output(() => runEnroll(["--list", "-o", "json", ...socket])));
      assertEquals(listed.ztunnel, { connections: 1, synchronized: true });
      assertEquals(listed.pods.map((pod: { target: string; state: string }) => [pod.target, pod.state]), [
        [target, "enrolled"],
      ]);
      await output(() => runUnenroll([target, ...socket]));
      assertEquals(pods.running.size, 0);
      assertEquals(checkPodRules(netns, {}).includes("table istio-ambient-nat is missing"), true);
      assertEquals((await assertRejects(() => runUnenroll([target, ...socket]), MeshError)).code, "AMB7106");
    });
    await withNodeAgent(config("--release"), async () => {
      await output(() => runEnroll([target, ...enroll]));
      assertEquals(pods.running.size, 1);
    });
    assertEquals(checkPodRules(netns, {}).includes("table istio-ambient-nat is missing"), true, "released");
    await withNodeAgent(config("--audit-interval", "1h"), async () => {
      await output(() => runEnroll([target, ...enroll]));
      deleteNamedNetns(name);
      await until("the deleted namespace is let go of without waiting for an audit", () => pods.running.size === 0);
      await until("the descriptors are closed", () => countNetnsDescriptors(netns) === 1);
    });
  } finally {
    stop.abort();
    await running;
    deleteNamedNetns(name);
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("role cni without --node-mode is for a cluster, and says so where there is none", async () => {
  const { config } = CNI_CONFIG.parse([], () => undefined);
  const running = runCni(config, { signal: AbortSignal.abort(), log: silent });
  assertEquals((await assertRejects(() => running, MeshError)).code, "AMB0805");
});
