/** The node agent as a process: killed, started again, told to stop with and without release (CNI-278, CNI-313). */
import { assertEquals } from "@std/assert";
import { assert } from "../../base/assert.ts";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { askNodeAgent } from "../../cli/enrol_client.ts";
import { checkPodRules } from "../../cni/pod_rules.ts";
import { type EnrolledPod, ZdsClient } from "../../dataplane/agent/zds_client.ts";
import type { NodeStatus } from "../../mesh/enrolment.ts";
import { createNamedNetns, deleteNamedNetns } from "../../os/netns.ts";

const MAIN = new URL("../../main.ts", import.meta.url).pathname;
const silent = new Logger("cni", { sink: () => {} });

/** `ambit cni` with sockets and state in a folder of its own. */
class NodeAgent {
  readonly folder = Deno.makeTempDirSync();
  readonly zds = `${this.folder}/zds.sock`;
  readonly enrol = `${this.folder}/enrol.sock`;
  #child: Deno.ChildProcess | undefined;

  async start(...more: string[]): Promise<void> {
    const sockets = ["--zds-socket", this.zds, "--enrol-socket", this.enrol, "--state-dir", `${this.folder}/state`];
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", MAIN, "cni", "--node-mode", ...sockets, ...more],
      stdout: "null",
    }).spawn();
    await until("the node agent serves", async () => {
      try {
        await this.status();
        return true;
      } catch (error) {
        if (error instanceof MeshError) return false;
        throw error;
      }
    });
  }

  async stop(signal: Deno.Signal): Promise<Deno.CommandStatus> {
    this.#child!.kill(signal);
    const status = await this.#child!.status;
    this.#child = undefined;
    return status;
  }

  async status(): Promise<NodeStatus> {
    return await askNodeAgent(this.enrol, { method: "GET", path: "/status" }) as NodeStatus;
  }

  async enrolAs(target: string): Promise<void> {
    const body = { target, namespace: "shop", serviceAccount: "web", name: "web-0" };
    await askNodeAgent(this.enrol, { method: "POST", path: "/enrol", body });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child !== undefined) await this.stop("SIGKILL");
    Deno.removeSync(this.folder, { recursive: true });
  }
}

async function until(claim: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 120_000;
  while (!await condition()) {
    assert(performance.now() < deadline, claim);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

Deno.test("a killed node agent leaves its pods captured, and knows them when it is back", async () => {
  const name = `ambit-kill-${Deno.pid}`, target = `netns/${name}`;
  await using agent = new NodeAgent();
  using netns = createNamedNetns(name);
  const running = new Set<string>(), stop = new AbortController();
  const pods = {
    addPod: (pod: EnrolledPod) => Promise.resolve(void running.add(pod.uid)),
    deletePod: (uid: string) => Promise.resolve(void running.delete(uid)),
  };
  using ztunnel = new ZdsClient({ path: agent.zds, pods, log: silent });
  const connected = ztunnel.run(stop.signal);
  try {
    await agent.start();
    await agent.enrolAs(target);
    assertEquals((await agent.stop("SIGKILL")).code, 137);
    assertEquals([checkPodRules(netns, {}), running.size], [[], 1]);

    await agent.start();
    await until("ztunnel is in sync", async () => (await agent.status()).ztunnel.synchronized);
    assertEquals((await agent.status()).pods.map((pod) => [pod.target, pod.state]), [[target, "enrolled"]]);
    assertEquals(running.size, 1, "not restarted, not stopped");
    assertEquals((await agent.stop("SIGTERM")).code, 0);
    assertEquals([checkPodRules(netns, {}), running.size], [[], 1]);

    await agent.start("--release");
    await until("ztunnel is in sync", async () => (await agent.status()).ztunnel.synchronized);
    assertEquals((await agent.stop("SIGTERM")).code, 0);
    assertEquals([checkPodRules(netns, {}).includes("table istio-ambient-nat is missing"), running.size], [true, 0]);
  } finally {
    stop.abort();
    await connected;
    deleteNamedNetns(name);
  }
});
