/**
 * A node agent of another make (AMBIT_PEER_NODE_AGENT, the path of its program) with our plugin and our ztunnel's side of
 * ZDS, and ours taking over from it (CNI-311, CNI-312). Needs root, iptables and ipset; without the variable it is shown as ignored.
 */
import { assert, assertEquals } from "@std/assert";
import { checkPodRules } from "../../cni/pod_rules.ts";
import { NODES } from "../../kube/resource_types.ts";
import { listeningPorts } from "../../os/netlink/sock_diag.ts";
import { runWithin } from "../../os/process.ts";
import { NodeRig, type RigPod, until } from "../e2e/node_rig.ts";

const AGENT = Deno.env.get("AMBIT_PEER_NODE_AGENT");
const ENTRY = new URL("../../cni/plugin/entry.ts", import.meta.url).pathname;
const LISTENERS = [15001, 15006, 15008];
const listens = ({ netns }: RigPod) => LISTENERS.every((port) => listeningPorts(netns)!.has(port));

/** The other agent sees a root of its own: the machine's, with the rig's folders where its pod would mount the node's. */
const PROGRAM = `
set -e
root=$1/root; shift
mkdir -p $root; mount -t tmpfs none $root
for part in /*; do
  case $part in /opt|/run|/host|/proc/*) continue ;; esac
  if [ -d $part ] && [ ! -L $part ]; then mkdir $root$part; mount --rbind $part $root$part
  elif [ -L $part ]; then cp -P $part $root$part; fi
done
mkdir -p $root/opt/cni/bin $root/run/secrets/kubernetes.io/serviceaccount $root/host/opt/cni/bin $root/host/etc/cni/net.d
mkdir -p $root/host/proc $root/host/netns $root/run/netns
echo '#!/bin/true' >$root/opt/cni/bin/istio-cni
printf a.b.c >$root/run/secrets/kubernetes.io/serviceaccount/token
mount --bind $RIG/host/proc $root/host/proc
mount --bind $RIG/host/netns $root/host/netns
mount --bind $RIG/net.d $root/host/etc/cni/net.d
exec chroot $root "$@"
`;

/** The other node agent; disposing of it ends it, whatever it does. */
class OtherAgent implements AsyncDisposable {
  readonly folder = Deno.makeTempDirSync();
  readonly #child: Deno.ChildProcess;

  constructor(rig: NodeRig) {
    this.#child = startOther(rig, this.folder);
  }

  async kill(): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // It has ended.
    }
    await this.#child.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    Deno.removeSync(this.folder, { recursive: true });
  }
}

function startOther(rig: NodeRig, folder: string): Deno.ChildProcess {
  const port = new URL(rig.server).port, run = `${rig.folder}/run`;
  return new Deno.Command("unshare", {
    args: [
      "--mount",
      "--propagation=private",
      "bash",
      "-c",
      PROGRAM,
      "other",
      folder,
      AGENT!,
      "--ambient-enabled=true",
      `--cni-agent-run-dir=${run}`,
      "--mounted-cni-net-dir=/host/etc/cni/net.d",
      "--istio-owned-cni-config=true",
      "--istio-owned-cni-config-filename=02-istio-cni.conflist",
      `--ztunnel-uds-address=${rig.zdsSocket}`,
      "--skip-tls-verify=true",
      "--ctrlz_port=0",
    ],
    env: {
      RIG: rig.folder,
      KUBECONFIG: `${rig.folder}/kubeconfig`,
      KUBERNETES_SERVICE_HOST: "127.0.0.1",
      KUBERNETES_SERVICE_PORT: port,
      KUBERNETES_SERVICE_PROTOCOL: "http",
      NODE_NAME: "n1",
      POD_NAMESPACE: "istio-system",
      SYSTEM_NAMESPACE: "istio-system",
      ALLOW_SWITCH_TO_HOST_NS: "false",
      AMBIENT_IPV6: "true",
      AMBIENT_DNS_CAPTURE: "false",
      FORCE_IPTABLES_BINARY: "nft",
      AMBIENT_ENABLEMENT_SELECTOR: JSON.stringify([
        { podSelector: { matchLabels: { "istio.io/dataplane-mode": "ambient" } } },
        {
          podSelector: { matchExpressions: [{ key: "istio.io/dataplane-mode", operator: "NotIn", values: ["none"] }] },
          namespaceSelector: { matchLabels: { "istio.io/dataplane-mode": "ambient" } },
        },
      ]),
    },
    stdout: Deno.env.get("AMBIT_RIG_LOG") === undefined ? "null" : "inherit",
    stderr: Deno.env.get("AMBIT_RIG_LOG") === undefined ? "null" : "inherit",
  }).spawn();
}

Deno.test({
  name:
    "our plugin and our side of ZDS work with the other node agent, and ours takes its pods over as they are (CNI-021, CNI-311, CNI-312)",
  ignore: AGENT === undefined,
  async fn() {
    await using rig = await NodeRig.make();
    rig.api.put(NODES, { metadata: { name: "n1", labels: {} } });
    const web = rig.pod("web");
    await using other = new OtherAgent(rig);
    await until("the other agent is ready", async () =>
      (await rig.page(8000, "/readyz")) !== undefined &&
      (await fetch("http://127.0.0.1:8000/readyz")).ok);
    rig.namespace("shop", false);
    rig.namespace("shop", true);
    await until(
      "it enrols a pod that runs, with our listeners",
      () => rig.annotation(web) === "enabled" && listens(web),
    );
    const plugin = `${other.folder}/plugin`;
    Deno.writeTextFileSync(plugin, `#!/bin/sh\nexec ${Deno.execPath()} run -A --quiet --no-config ${ENTRY}\n`);
    Deno.chmodSync(plugin, 0o755);
    const late = rig.pod("late"), answer = await rig.callPlugin(plugin, late);
    assertEquals(
      [answer.code, JSON.parse(answer.out).ips?.[0].address],
      [0, `${late.ip}/32`],
      answer.out + answer.said,
    );
    assertEquals([rig.annotation(late), listens(late)], ["enabled", true]);
    assert(checkPodRules(late.netns, {}).length > 0, "its rules are those of iptables");
    await other.kill();
    await rig.start("--redirect=nft");
    await until(
      "ours has both, with its own rules",
      () => [web, late].every((pod) => listens(pod) && checkPodRules(pod.netns, {}).length === 0),
    );
    for (const { netns } of [web, late]) {
      const { stdout } = runWithin(netns, "iptables-nft-save", { stdout: "piped", stderr: "null" });
      assert(
        !new TextDecoder().decode(stdout).includes("ISTIO_"),
        "nothing of the other's rules is left beside ours",
      );
    }
    assertEquals(await rig.metric('istio_cni_enrolled_pods{state="enrolled"}'), 2);
  },
});
