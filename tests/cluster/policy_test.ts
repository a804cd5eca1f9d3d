import { assert, assertEquals } from "@std/assert";
import { until } from "../kube/until.ts";
import { clusterTest, isReady, type PodStatus } from "./rig.ts";
import { app, ask, stage, tcpProbe } from "./stage.ts";

const NAMESPACE = "policy", OPTIONS = { namespaces: [NAMESPACE] };
const SETTLE_MS = 20_000, PODS_MS = 90_000;

const policy = (name: string, spec: object) => ({
  apiVersion: "security.istio.io/v1",
  kind: "AuthorizationPolicy",
  metadata: { name, namespace: NAMESPACE },
  spec: { selector: { matchLabels: { app: "server" } }, ...spec },
});
const from = (account: string) => [{ source: { principals: [`cluster.local/ns/${NAMESPACE}/sa/${account}`] } }];

clusterTest(
  "policy: AuthorizationPolicy allows and denies by identity across nodes, and STRICT keeps plain text out",
  OPTIONS,
  async (cluster) => {
    const [namespace, ...objects] = stage(NAMESPACE);
    const labels = { "istio.io/dataplane-mode": "ambient" };
    const named = (name: string) => (it: object) => (it as PodStatus).metadata.name === name;
    await cluster.apply(
      { ...namespace, metadata: { name: NAMESPACE, labels } },
      ...objects.filter(named("server")),
      ...["alice", "bob"].flatMap((name) =>
        app(NAMESPACE, name, { node: "node1", container: { args: ["/apps/server.ts"], ...tcpProbe(8080) } })
      ),
      ...app(NAMESPACE, "outsider", {
        node: "node1",
        container: { args: ["/apps/server.ts"], ...tcpProbe(8080) },
        labels: { "istio.io/dataplane-mode": "none" },
      }),
    );
    await cluster.untilPods(NAMESPACE, "", 4, isReady, PODS_MS);
    const pod = async (name: string) => (await cluster.pods(NAMESPACE, `app=${name}`))[0]!;
    const [alice, bob, outsider, server] = [
      await pod("alice"),
      await pod("bob"),
      await pod("outsider"),
      await pod("server"),
    ];
    const url = `http://${server.status.podIP}:8080/question`;
    const served = async () => {
      const answers = await Promise.all([alice, bob, outsider].map((it) => ask(cluster, it, url)));
      return answers.map((answer) => answer?.startsWith("question") ?? false);
    };
    const settles = async (wanted: readonly boolean[], what: string) => {
      let seen: readonly boolean[] = [];
      const fits = async () => JSON.stringify(seen = await served()) === JSON.stringify(wanted);
      await until(fits, what, SETTLE_MS).catch(() => assertEquals(seen, wanted, what));
      for (let times = 0; times < 3; times++) assertEquals(await served(), wanted, `${what}, and stays so`);
    };
    await settles([true, true, true], "without a policy everybody is served");
    await cluster.apply(policy("only-alice", { action: "ALLOW", rules: [{ from: from("alice") }] }));
    await settles([true, false, false], "ALLOW for one identity");
    await cluster.apply(policy("not-alice", { action: "DENY", rules: [{ from: from("alice") }] }));
    await settles([false, false, false], "DENY goes before ALLOW");
    await cluster.kubectl(["delete", "authorizationpolicy", "-n", NAMESPACE, "--all"]);
    await settles([true, true, true], "the policies are gone");
    await cluster.apply({
      apiVersion: "security.istio.io/v1",
      kind: "PeerAuthentication",
      metadata: { name: "strict", namespace: NAMESPACE },
      spec: { mtls: { mode: "STRICT" } },
    });
    await settles([true, true, false], "STRICT: only who has an identity is served");
    assert((await cluster.pods(NAMESPACE)).every(isReady), "the kubelet's probes pass");
  },
);
