import { assertEquals, assertStrictEquals } from "@std/assert";
import { encodeAuthorization } from "../../mesh/proto/authorization_codec.ts";
import { encodeServiceAddress, encodeWorkloadAddress } from "../../mesh/proto/workload_codec.ts";
import { type Service, serviceKey } from "../../mesh/service.ts";
import type { Workload } from "../../mesh/workload.ts";
import { createTables, openTables } from "../tables/handles.ts";
import { SnapshotReader } from "../tables/lookup.ts";
import { SnapshotWriter } from "../tables/publish.ts";
import { ipv4, policyOf, serviceOf, workloadOf } from "../tables/testing.ts";
import { MeshState, type ReceivedResource } from "./state.ts";

const KEY = "shop/db.shop.svc";
const DATABASE = workloadOf("c//Pod/shop/db-1", {
  namespace: "shop",
  addresses: [ipv4(1)],
  services: new Map([[KEY, []]]),
});
const SERVICE = serviceOf("shop", "db.shop.svc", { addresses: [{ network: "", ip: ipv4(100) }] });

function ofWorkload(workload: Workload): ReceivedResource {
  return { name: workload.uid, bytes: encodeWorkloadAddress(workload) };
}

function ofService(service: Service): ReceivedResource {
  return { name: serviceKey(service.namespace, service.hostname), bytes: encodeServiceAddress(service) };
}

function uids(workloads: readonly Workload[]): string[] {
  return workloads.map((workload) => workload.uid);
}

Deno.test("applyAddresses() refuses a resource alone, with its reason; the rest of its batch stands (ZT-130, ZT-134)", () => {
  const state = new MeshState("");
  const bad = { name: "bad", bytes: encodeWorkloadAddress({ ...DATABASE, uid: "bad" }) };
  // Address → Workload → addresses: a field of 4 bytes becomes one of 3 and an unknown byte.
  const at = bad.bytes.findIndex((byte, index) => byte === 0x1a && bad.bytes[index + 1] === 4);
  const cut = new Uint8Array([...bad.bytes.slice(0, at), 0x1a, 3, ...bad.bytes.slice(at + 3)]);
  cut[1]!--; // the workload's own length
  const { rejections, inserted } = state.applyAddresses(
    [
      ofService(SERVICE),
      { name: "bad", bytes: cut },
      { name: "empty", bytes: new Uint8Array(0) },
      ofWorkload(DATABASE),
    ],
    [],
  );
  assertEquals(rejections.map(({ name }) => name), ["bad", "empty"]);
  assertEquals(rejections[0]!.reason, "failed to parse address, had 3 bytes");
  assertEquals(uids(inserted), [DATABASE.uid]);
  assertEquals([...state.workloads.keys()], [DATABASE.uid]);
  assertEquals([...state.services.keys()], [KEY]);
});

Deno.test("a refused update leaves the resource as it was", () => {
  const state = new MeshState("");
  state.applyAddresses([ofWorkload(DATABASE)], []);
  assertEquals(
    state.applyAddresses([{ name: DATABASE.uid, bytes: new Uint8Array([0x0a, 9]) }], []).rejections.length,
    1,
  );
  assertEquals(state.workload(DATABASE.uid)?.resource, DATABASE);
  assertEquals(state.applyPolicies([{ name: "shop/p", bytes: new Uint8Array([0x0a]) }], []).length, 1);
});

Deno.test("a workload that becomes somebody else leaves its former identity without a user (ZT-143)", () => {
  const state = new MeshState(""), other = { ...DATABASE, serviceAccount: "other" };
  const moved = { ...other, trustDomain: "moved.example" };
  state.applyAddresses([ofWorkload(DATABASE)], []);
  const steps = [{ ...DATABASE, canonicalRevision: "v9" }, other, moved].map((next) => {
    const { removed } = state.applyAddresses([ofWorkload(next)], []);
    return removed.map((it) => [it.trustDomain, it.serviceAccount, state.isIdentityUnused(it)]);
  });
  const { trustDomain, serviceAccount } = DATABASE;
  assertEquals(steps, [[], [[trustDomain, serviceAccount, true]], [[trustDomain, "other", true]]]);
  assertEquals([...state.workloadNames()], [`${DATABASE.namespace}/${DATABASE.workloadName}`]);
});

Deno.test("removal goes by uid, else by namespace/hostname; unknown names are harmless (ZT-135)", () => {
  const state = new MeshState("");
  state.applyAddresses([ofService(SERVICE), ofWorkload(DATABASE)], []);
  state.takeChanges();
  assertEquals(state.applyAddresses([], ["nobody", "a/b", "x/y/z/w"]), { rejections: [], inserted: [], removed: [] });
  assertEquals(state.changed, false);
  assertEquals(uids(state.applyAddresses([], [DATABASE.uid]).removed), [DATABASE.uid]);
  assertEquals([state.workloads.size, state.services.size, state.storedEndpoints(KEY).length], [0, 1, 0]);
  state.applyAddresses([], [KEY]);
  assertEquals(state.services.size, 0);
  const changes = state.takeChanges();
  assertEquals([[...changes.workloads], [...changes.services]], [[DATABASE.uid], [KEY]]);
});

Deno.test("a workload is replaced whole: a service it left loses it (ZT-136)", () => {
  const state = new MeshState("");
  state.applyAddresses([ofService(SERVICE), ofWorkload(DATABASE)], []);
  assertEquals(uids(state.storedEndpoints(KEY)), [DATABASE.uid]);
  state.applyAddresses([ofWorkload({ ...DATABASE, services: new Map() })], []);
  assertEquals(state.storedEndpoints(KEY), []);
});

Deno.test("endpoints are filtered by health unless the service takes all (ZT-137)", () => {
  const state = new MeshState("");
  state.applyAddresses([ofService(SERVICE), ofWorkload({ ...DATABASE, healthy: false })], []);
  assertEquals(state.storedEndpoints(KEY), []);
  const loadBalancing = { routingPreference: [], mode: 0 as const, allowUnhealthy: true };
  state.applyAddresses([ofService({ ...SERVICE, loadBalancing })], []);
  assertEquals(uids(state.storedEndpoints(KEY)), [DATABASE.uid]);
});

Deno.test("endpoints wait for their service, also under its removal and return (ZT-138, ZT-139)", () => {
  const state = new MeshState("");
  state.applyAddresses([ofWorkload(DATABASE)], []);
  assertEquals([...state.stagedEndpoints()].map(([key, members]) => [key, uids(members)]), [[KEY, [DATABASE.uid]]]);
  state.applyAddresses([ofService(SERVICE)], []);
  assertEquals(state.stagedEndpoints().size, 0);
  assertEquals(uids(state.storedEndpoints(KEY)), [DATABASE.uid]);
  state.applyAddresses([ofService({ ...SERVICE, canonical: true })], []);
  assertEquals(uids(state.storedEndpoints(KEY)), [DATABASE.uid]);
  state.applyAddresses([], [KEY]);
  assertEquals(state.storedEndpoints(KEY), []);
  state.applyAddresses([ofService(SERVICE)], []);
  assertEquals(uids(state.storedEndpoints(KEY)), [DATABASE.uid]);
});

Deno.test("a policy is known by its resource name, whatever its message says (ZT-142)", () => {
  const state = new MeshState("");
  const policy = policyOf("shop/allow");
  assertEquals(state.applyPolicies([{ name: "other/name", bytes: encodeAuthorization(policy) }], []), []);
  assertEquals(state.policy("other/name")?.resource.key, "other/name");
  state.applyPolicies([], ["shop/allow", "other/name"]);
  assertEquals(state.policies.size, 0);
});

Deno.test("a resource that came again unchanged changes nothing: its object stands", () => {
  const state = new MeshState("");
  state.applyAddresses([ofWorkload(DATABASE), ofService(SERVICE)], []);
  state.applyPolicies([{ name: "a/p", bytes: encodeAuthorization(policyOf("a/p")) }], []);
  const { resource } = state.workload(DATABASE.uid)!;
  state.takeChanges();
  assertEquals(state.applyAddresses([ofWorkload(DATABASE), ofService(SERVICE)], []).inserted, []);
  state.applyPolicies([{ name: "a/p", bytes: encodeAuthorization(policyOf("a/p")) }], []);
  assertStrictEquals(state.workload(DATABASE.uid)!.resource, resource);
  assertEquals(state.changed, false);
});

Deno.test("findLocal() wants name, namespace, service account and our node (ZT-016, ZT-144)", () => {
  const pod = { name: "db-1", namespace: "shop", serviceAccount: "db" };
  const workload = { ...DATABASE, ...pod, node: "n1" };
  for (
    const [change, nodeName, found] of [
      [{}, "n1", true],
      [{}, "", true],
      [{}, "n2", false],
      [{ name: "db-2" }, "n1", false],
      [{ namespace: "other" }, "n1", false],
      [{ serviceAccount: "default" }, "n1", false],
    ] as const
  ) {
    const state = new MeshState(nodeName);
    state.applyAddresses([ofWorkload({ ...workload, ...change })], []);
    assertEquals(state.findLocal(pod) !== undefined, found, JSON.stringify([change, nodeName]));
  }
});

Deno.test("a certificate is wanted for local workloads in the mesh, until the last of an identity went (ZT-143)", () => {
  const state = new MeshState("n1");
  const first = { ...DATABASE, node: "n1", tunnelProtocol: 1 as const }, second = { ...first, uid: "c//Pod/shop/db-2" };
  const elsewhere = { ...first, uid: "c//Pod/shop/db-3", node: "n2" };
  const { inserted } = state.applyAddresses([first, second, elsewhere].map(ofWorkload), []);
  assertEquals(uids(inserted), [first.uid, second.uid]);
  assertEquals(
    [first, elsewhere, { ...first, tunnelProtocol: 0 as const }, {
      ...first,
      tunnelProtocol: 0 as const,
      nativeTunnel: true,
    }]
      .map((workload) => state.wantsCertificate(workload)),
    [true, false, false, true],
  );
  state.applyAddresses([], [first.uid, elsewhere.uid]);
  assertEquals(state.isIdentityUnused(first), false);
  assertEquals(uids(state.applyAddresses([], [second.uid]).removed), [second.uid]);
  assertEquals(state.isIdentityUnused(first), true);
});

Deno.test("what a response changes reaches a worker with the next snapshot, the pod's own workload too", () => {
  const tables = openTables(
    createTables({ pods: 4, identities: 1, flowsPerWorker: 4, connectionsPerWorker: 4, snapshotBytes: 1024 * 1024 }),
  );
  const writer = new SnapshotWriter(tables, () => {}, 5),
    reader = new SnapshotReader(tables, 0),
    state = new MeshState("");
  writer.admit(0);
  const step = (act: () => void) => {
    act();
    assertEquals(state.changed, true);
    writer.publish(state);
    reader.refresh();
    assertEquals(state.changed, false);
  };
  const pod = { name: DATABASE.name, namespace: "shop", serviceAccount: "default" };
  step(() => state.setPod(2, pod));
  assertEquals(reader.localWorkload(2), undefined);
  step(() => state.applyAddresses([ofWorkload(DATABASE)], []));
  assertEquals(reader.localWorkload(2)?.uid, DATABASE.uid);
  step(() => state.applyAddresses([ofService(SERVICE)], []));
  assertEquals(uids(reader.endpointsOf(reader.serviceAt("", 0, 0, 0xffff, 100, "shop")!)), [DATABASE.uid]);
  step(() => state.applyAddresses([ofWorkload({ ...DATABASE, healthy: false })], []));
  assertEquals(reader.endpointsOf(reader.serviceNamed("shop", "db.shop.svc")!), []);
  step(() => state.applyPolicies([{ name: "shop/p", bytes: encodeAuthorization(policyOf("shop/p")) }], []));
  assertEquals(reader.policiesFor(reader.localWorkload(2)!).map((policy) => policy.key), ["shop/p"]);
  const selecting = { ...DATABASE, authorizationPolicies: ["shop/p", "shop/missing"] };
  step(() => state.applyAddresses([ofWorkload(selecting)], []));
  assertEquals(reader.unknownPoliciesOf(reader.localWorkload(2)!), ["shop/missing"]); // ZT-106
  step(() => state.removePod(2));
  assertEquals(reader.localWorkload(2), undefined);
  step(() => state.applyAddresses([], [DATABASE.uid, KEY]));
  assertEquals(reader.workloadAt("", 0, 0, 0xffff, 1), undefined);
});
