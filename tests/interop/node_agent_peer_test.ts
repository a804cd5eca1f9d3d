/**
 * Our node agent with parts of another make (CNI-311): a ztunnel (AMBIT_PEER_ZTUNNEL) and a CNI plugin
 * (AMBIT_PEER_CNI_PLUGIN), each the path of a program. Needs root; a test without its variable is shown as ignored.
 */
import { assert, assertEquals } from "@std/assert";
import { checkPodRules } from "../../cni/pod_rules.ts";
import { listeningPorts } from "../../os/netlink/sock_diag.ts";
import { createAnonymousNetns } from "../../os/netns.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { spawnWithin } from "../../os/process.ts";
import { NodeRig, type RigPod, until } from "../e2e/node_rig.ts";

const ZTUNNEL = Deno.env.get("AMBIT_PEER_ZTUNNEL"), PLUGIN = Deno.env.get("AMBIT_PEER_CNI_PLUGIN");
const LISTENERS = [15001, 15006, 15008];

/** The other ztunnel, in a namespace of its own so that its admin ports are free. */
class Peer implements AsyncDisposable {
  readonly home = createAnonymousNetns();
  readonly child: Deno.ChildProcess;

  constructor(zdsSocket: string) {
    using routes = RouteSocket.open(this.home);
    routes.setUp("lo");
    this.child = spawnWithin(this.home, ZTUNNEL!, {
      env: {
        INPOD_UDS: zdsSocket,
        NODE_NAME: "n1",
        XDS_ADDRESS: "",
        // Certificates are not what is looked at here: a CA that nobody serves will do.
        CA_ADDRESS: "https://127.0.0.1:1",
        CA_ROOT_CA: "SYSTEM",
        AUTH_TOKEN: "/proc/sys/kernel/hostname",
      },
      stdout: "null",
      stderr: "null",
    });
  }

  /** One that has ended already needs no signal. */
  stop(signal: Deno.Signal): void {
    try {
      this.child.kill(signal);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop("SIGKILL");
    await this.child.status;
    this.home[Symbol.dispose]();
  }
}

const listens = ({ netns }: RigPod) => LISTENERS.every((port) => listeningPorts(netns)!.has(port));

Deno.test({
  name:
    "the other ztunnel serves the pods of our node agent over labels, restarts of either and a pod's new namespace (CNI-250, CNI-311)",
  ignore: ZTUNNEL === undefined,
  async fn() {
    await using rig = await NodeRig.make({ ztunnel: false });
    const web = rig.pod("web");
    await rig.start("--audit-interval", "1s");
    await until("without a ztunnel it waits", () => rig.annotation(web) === "pending");
    {
      await using first = new Peer(rig.zdsSocket);
      assert(first.child.pid > 0);
      await until("it is enrolled", () => rig.annotation(web) === "enabled");
      assertEquals([listens(web), checkPodRules(web.netns, {})], [true, []]);
      // A second one takes over while the first is still there (CNI-250).
      await using second = new Peer(rig.zdsSocket);
      assert(second.child.pid > 0);
      await until("both are connected", async () => await rig.metric("ztunnel_connected") === 2);
      const late = rig.pod("late");
      await until("the newest has the new pod", () => rig.annotation(late) === "enabled" && listens(late));
      first.stop("SIGTERM");
      await until("one is left", async () => await rig.metric("ztunnel_connected") === 1);
      assertEquals([listens(web), listens(late)], [true, true]);
      rig.replaceNetns(late);
      await until("it follows into a new namespace", () => listens(late) && checkPodRules(late.netns, {}).length === 0);
      await rig.stop("SIGKILL");
      assertEquals([listens(web), listens(late)], [true, true], "what runs goes on");
      await rig.start("--audit-interval", "1s");
      await until("it is back", async () => await rig.metric("ztunnel_connected") === 1);
      assertEquals(await rig.metric('istio_cni_enrolled_pods{state="enrolled"}'), 2);
      rig.namespace("shop", false);
      await until("its listeners are gone", () => !listens(web) && !listens(late));
      await until(
        "and all that was said",
        () => rig.annotation(web) === undefined && rig.annotation(late) === undefined,
      );
    }
  },
});

Deno.test({
  name:
    "the other plugin asks the API server with our kubeconfig, and has our agent enrol the pod, or the pod fails (CNI-006, CNI-012, CNI-013, CNI-311)",
  ignore: PLUGIN === undefined,
  async fn() {
    await using rig = await NodeRig.make();
    await rig.start();
    const web = rig.pod("web"), answer = await rig.callPlugin(PLUGIN!, web);
    assertEquals([answer.code, JSON.parse(answer.out).ips[0].address], [0, `${web.ip}/32`], answer.said);
    assertEquals([rig.annotation(web), checkPodRules(web.netns, {}), listens(web)], ["enabled", [], true]);
    assertEquals(await rig.metric('istio_cni_plugin_requests_total{response_code="200"}'), 1);
    await rig.stop("SIGKILL");
    const late = rig.pod("late"), refused = await rig.callPlugin(PLUGIN!, late);
    assertEquals(refused.code, 1, `nobody listens: it must not start: ${refused.out}${refused.said}`);
  },
});
