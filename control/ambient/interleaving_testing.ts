/** For tests: any order of any changes to objects, followed by a client that must end up with what a fresh start has. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { AUTHORIZATION_TYPE_URL } from "../../mesh/proto/authorization_codec.ts";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { keyOf, type KubernetesObject } from "../objects.ts";
import { describeIndex } from "./describe.ts";
import { AmbientIndex } from "./index.ts";
import type { AmbientOptions } from "./options.ts";

/**
 * Sets and removes objects of the pool, which may hold several states of one object, in seeded random batches. After
 * each announcement no workload names a policy that was not announced before; at the end the index, and a client that
 * followed the news, hold what an index has that was given the last state alone, in another order.
 */
export function assertInterleavings(pool: readonly KubernetesObject[], options: Partial<AmbientOptions> = {}): void {
  let state = 7;
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor(state / 2 ** 32 * below);
  };
  for (let round = 0; round < 40; round++) {
    const index = new AmbientIndex({ clusterId: "c1", ...options }), present = new Map<string, KubernetesObject>();
    const client = new Map<string, string>(), told = { policies: new Set<string>() };
    index.subscribe(({ typeUrl, updated, removed }) => {
      for (const name of removed) assert(client.delete(`${typeUrl} ${name}`), `${name} was known`);
      for (const { name, version } of updated) {
        assertNotEquals(client.get(`${typeUrl} ${name}`), version, `${name} has news`);
        client.set(`${typeUrl} ${name}`, version);
      }
      if (typeUrl === AUTHORIZATION_TYPE_URL) {
        for (const { name } of updated) told.policies.add(name);
        for (const name of removed) told.policies.delete(name);
      } else {
        for (const [, workload] of index.graph.workloads.entries()) {
          for (const name of workload.authorizationPolicies) assert(told.policies.has(name), `${name} came before`);
        }
      }
    });
    for (let batch = 0; batch < 25; batch++) {
      const changes = Array.from({ length: 1 + random(4) }, () => {
        const object = pool[random(pool.length)]!, key = keyOf(object), gone = random(3) === 0;
        if (gone) present.delete(key);
        else present.set(key, object);
        return { kind: object.kind, key, object: gone ? undefined : object };
      });
      index.apply(changes);
    }
    const fresh = new AmbientIndex({ clusterId: "c1", ...options });
    fresh.apply([...present.values()].reverse().map((object) => ({ kind: object.kind, key: keyOf(object), object })));
    assertEquals(describeIndex(index), describeIndex(fresh), `round ${round}`);
    const versions = (it: AmbientIndex) =>
      new Map(
        [AUTHORIZATION_TYPE_URL, ADDRESS_TYPE_URL].flatMap((typeUrl) =>
          [...it.all(typeUrl)].map(({ name, version }) => [`${typeUrl} ${name}`, version] as const)
        ),
      );
    assertEquals(versions(index), versions(fresh));
    assertEquals(client, versions(index), "a client that followed the news holds the state");
  }
}
