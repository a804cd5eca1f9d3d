import { assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { KubeError, KubeUnreachable } from "../../kube/api.ts";
import { DAEMON_SETS, NODES } from "../../kube/resource_types.ts";
import { InMemoryKubeApi } from "../../kube/testing.ts";
import { whyLeaving } from "./leaving.ts";

const log = new Logger("test", { sink: () => {} });

function ask(api: InMemoryKubeApi, owned = true): Promise<string> {
  return whyLeaving({ api, namespace: "istio-system", nodeName: "n1", owned, log, sleep: () => Promise.resolve() });
}

/** A cluster with the DaemonSet, whose pods must meet one of the terms. */
function clusterWith(terms?: readonly object[], metadata: object = {}): InMemoryKubeApi {
  const api = new InMemoryKubeApi();
  const required = { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: terms } };
  const spec = terms === undefined ? {} : { affinity: { nodeAffinity: required } };
  api.put(DAEMON_SETS, {
    metadata: { name: "istio-cni-node", namespace: "istio-system", ...metadata },
    spec: { template: { spec } },
  });
  api.put(NODES, { metadata: { name: "n1", labels: { zone: "a", "kubernetes.io/os": "linux", size: "7" } } });
  return api;
}

Deno.test("whyLeaving() tells an upgrade from the end: the set is gone, goes, or does not want this node any more (CNI-046, CNI-051)", async () => {
  const expression = (key: string, operator: string, values?: string[]) => ({
    matchExpressions: [{ key, operator, values }],
  });
  const cases: readonly (readonly [InMemoryKubeApi, string])[] = [
    [clusterWith(), "replaced"],
    [new InMemoryKubeApi(), "uninstalled"],
    [clusterWith(undefined, { deletionTimestamp: "2026-01-01T00:00:00Z", finalizers: ["x"] }), "uninstalled"],
    [clusterWith([expression("zone", "In", ["a", "b"])]), "replaced"],
    [clusterWith([expression("zone", "In", ["b"])]), "uninstalled"],
    [clusterWith([expression("zone", "In", ["b"]), expression("size", "Gt", ["5"])]), "replaced"],
    [clusterWith([expression("zone", "NotIn", ["a"])]), "uninstalled"],
    [clusterWith([expression("gone", "DoesNotExist")]), "replaced"],
    [clusterWith([expression("gone", "Exists")]), "uninstalled"],
    [clusterWith([expression("size", "Lt", ["5"])]), "uninstalled"],
    [clusterWith([{}]), "uninstalled"],
    [
      clusterWith([{ matchFields: [{ key: "metadata.name", operator: "In", values: ["n1"] }] }]),
      "replaced",
    ],
    [clusterWith([expression("zone", "Later", ["b"])]), "replaced"],
  ];
  for (const [at, [api, expected]] of cases.entries()) assertEquals(await ask(api), expected, `case ${at}`);
});

Deno.test("whyLeaving() takes lost rights for the end, and an API server that does not answer for what fails closed (CNI-046)", async () => {
  for (const status of [401, 403]) {
    const api = clusterWith();
    api.fail(new KubeError(status, "Forbidden", "no"), { verb: "get" });
    assertEquals(await ask(api), "uninstalled");
  }
  const away = clusterWith();
  away.fail(new KubeUnreachable("away"), { verb: "get", times: Infinity });
  assertEquals([await ask(away, true), away.calls.length], ["replaced", 3]);
  assertEquals([await ask(away, false), away.calls.length], ["uninstalled", 4]);
  const back = clusterWith();
  back.fail(new KubeError(500, "InternalError", "once"), { verb: "get", times: 2 });
  assertEquals(await ask(back), "replaced");
});
