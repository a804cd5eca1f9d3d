/** Node agent and ztunnel over a real socket: both sides of ZDS against each other (CNI-311). */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { assert } from "../../base/assert.ts";
import { chain } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { ZdsServer } from "../../cni/zds_server.ts";
import { type EnrolledPod, ZdsClient } from "../../dataplane/agent/zds_client.ts";
import { countNetnsDescriptors } from "../../os/descriptors_testing.ts";
import { createAnonymousNetns, type Netns } from "../../os/netns.ts";

const silent = new Logger("zds", { sink: () => {} });
const workload = { name: "web-0", namespace: "shop", serviceAccount: "web" };

class Pods {
  readonly running = new Map<string, number>();
  failure: string | undefined;

  addPod(pod: EnrolledPod): Promise<void> {
    if (this.failure !== undefined) return Promise.reject(new Error(this.failure));
    this.running.set(pod.uid, Deno.statSync(`/proc/self/fd/${pod.netnsFd}`).ino!);
    return Promise.resolve();
  }

  deletePod(uid: string): Promise<void> {
    this.running.delete(uid);
    return Promise.resolve();
  }
}

async function until(claim: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!condition()) {
    assert(performance.now() < deadline, claim);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

Deno.test("pods are started, survive a node agent's restart and a ztunnel's, and are stopped", async () => {
  const folder = Deno.makeTempDirSync();
  const path = `${folder}/ztunnel.sock`;
  using first = createAnonymousNetns();
  using second = createAnonymousNetns();
  {
    const pod = (uid: string, netns: Netns) => ({ uid, workload, netns });
    const options = { path, log: silent, acceptIntervalMs: 0 };
    const pods = new Pods(), stop = new AbortController();
    using ztunnel = new ZdsClient({ path, pods, log: silent });
    const running = ztunnel.run(stop.signal);
    {
      await using agent = ZdsServer.listen(options);
      await agent.addPod(pod("a", first));
      await agent.addPod(pod("b", second));
      assertEquals(pods.running, new Map([["a", first.inode], ["b", second.inode]]));
      assertEquals(ztunnel.ready, true);
      pods.failure = "é".repeat(2000); // Longer than a packet: the acknowledgement is cut (CNI-241).
      const error = await assertRejects(() => agent.addPod(pod("c", first)));
      assertStringIncludes(chain(error), "failure to start proxy: éé");
      await agent.deletePod("c");
      pods.failure = undefined;
      assertEquals(ztunnel.counts.pending, 0);
    }
    await until("ztunnel noticed", () => !ztunnel.ready);
    assertEquals(pods.running.size, 2, "pods go on without a node agent");
    {
      await using agent = ZdsServer.listen(options, [{ uid: "a", workload }, pod("d", second)]);
      await until("in sync", () => ztunnel.ready);
      assertEquals([...pods.running.keys()].sort(), ["a", "d"]);
      // A new ztunnel takes over before the old one leaves (CNI-250).
      const newPods = new Pods(), newStop = new AbortController();
      using newZtunnel = new ZdsClient({ path, pods: newPods, log: silent });
      const newRunning = newZtunnel.run(newStop.signal);
      await until("the new one is in sync", () => newZtunnel.ready);
      assertEquals([...newPods.running.keys()], ["d"], "kept pods are not its own");
      await agent.addPod(pod("e", first));
      assertEquals([newPods.running.has("e"), pods.running.has("e")], [true, false]);
      await agent.deletePod("d");
      assertEquals([newPods.running.has("d"), pods.running.has("d")], [false, false]);
      newStop.abort();
      await newRunning;
    }
    stop.abort();
    await running;
  }
  assertEquals([countNetnsDescriptors(first), countNetnsDescriptors(second)], [1, 1], "only the test's own are open");
  Deno.removeSync(folder, { recursive: true });
});
