import { assert, assertEquals } from "@std/assert";
import { encodeAuthorization } from "../../mesh/proto/authorization_codec.ts";
import { encodeServiceAddress, encodeWorkloadAddress } from "../../mesh/proto/workload_codec.ts";
import { createTables, openTables } from "../tables/handles.ts";
import { SnapshotReader } from "../tables/lookup.ts";
import { SnapshotWriter } from "../tables/publish.ts";
import { ipv4, policyOf, randomOf, serviceOf, workloadOf } from "../tables/testing.ts";
import { MeshState, type ReceivedResource } from "./state.ts";

const WORKLOAD = encodeWorkloadAddress(workloadOf("c//Pod/a/w", {
  addresses: [ipv4(1), [1, 2, 3, 4]],
  hostname: "w.example",
  waypoint: { hostname: { namespace: "a", hostname: "wp.svc" }, hboneMtlsPort: 15008 },
  services: new Map([["a/s.svc", [{ servicePort: 80, targetPort: 8080 }]]]),
  authorizationPolicies: ["a/p"],
}));
const SERVICE = encodeServiceAddress(serviceOf("a", "s.svc", {
  addresses: [{ network: "", ip: ipv4(9) }, { network: "n", ip: ipv4(0x0a000000), prefixLength: 8 }],
  ports: [{ servicePort: 80, targetPort: 8080 }],
}));
const POLICY = encodeAuthorization(policyOf("a/p", { scope: 1, rules: [{ clauses: [[]] }] }));

for (const seed of [1, 2, 3]) {
  Deno.test(`whatever bytes the control plane sends are refused or served, never thrown at us, seed ${seed}`, () => {
    const random = randomOf(seed), state = new MeshState("");
    const tables = openTables(
      createTables({
        pods: 1,
        identities: 1,
        flowsPerWorker: 4,
        connectionsPerWorker: 4,
        snapshotBytes: 8 * 1024 * 1024,
      }),
    );
    const writer = new SnapshotWriter(tables, () => {}, seed), reader = new SnapshotReader(tables, 0);
    writer.admit(0);
    const mutated = (bytes: Uint8Array): Uint8Array => {
      const copy = bytes.slice(0, random(6) === 0 ? random(bytes.length) : bytes.length);
      for (let changes = random(4); changes > 0 && copy.length > 0; changes--) copy[random(copy.length)] = random(256);
      return copy;
    };
    let refused = 0, accepted = 0;
    for (let round = 0; round < 40; round++) {
      const addresses: ReceivedResource[] = Array.from({ length: 50 }, (_, at) => ({
        name: `r${at}`,
        bytes: mutated(at % 2 ? WORKLOAD : SERVICE),
      }));
      const policies = Array.from({ length: 20 }, (_, at) => ({ name: `a/p${at}`, bytes: mutated(POLICY) }));
      const names = [...state.workloads.keys(), ...state.services.keys()].filter(() => random(4) === 0);
      const { rejections } = state.applyAddresses(addresses, names);
      const refusedPolicies = state.applyPolicies(policies, [`a/p${random(20)}`]);
      refused += rejections.length + refusedPolicies.length;
      accepted += 70 - rejections.length - refusedPolicies.length;
      assert(rejections.every(({ reason }) => reason !== ""));
      writer.publish(state);
      reader.refresh();
      for (const { resource } of state.workloads.values()) {
        reader.policiesFor(resource);
        for (const ip of resource.hostNetwork ? [] : resource.addresses) {
          assert(reader.workloadAt(resource.network, ...ip) !== undefined, "what was accepted is found");
        }
      }
      for (const { resource } of state.services.values()) {
        const service = reader.serviceNamed(resource.namespace, resource.hostname);
        assertEquals(service, resource);
        reader.endpointsOf(service!);
        for (const { network, ip } of resource.addresses) reader.serviceAt(network, ...ip, resource.namespace);
      }
    }
    assert(refused > 100 && accepted > 100, `both happen: ${refused} refused, ${accepted} accepted`);
  });
}

Deno.test("a policy whose name no Kubernetes object can have is refused", () => {
  const state = new MeshState("");
  const [rejection] = state.applyPolicies([{ name: "x".repeat(100_000), bytes: POLICY }], []);
  assertEquals(rejection?.reason, "the name has 100000 characters");
});
