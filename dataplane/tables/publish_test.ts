import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { AssertionError } from "../../base/assert.ts";
import { MeshError } from "../../base/errors.ts";
import { PolicyScope } from "../../mesh/policy.ts";
import { PlainMeshView } from "../../mesh/plain_view.ts";
import type { Workload } from "../../mesh/workload.ts";
import { createTables, openTables, ownNetwork } from "./handles.ts";
import { SnapshotReader } from "./lookup.ts";
import { SnapshotWriter } from "./publish.ts";
import { ipv4, policyOf, randomOf, SampleMesh, serviceOf, workloadOf } from "./testing.ts";

const SMALL = { pods: 8, identities: 8, flowsPerWorker: 8, connectionsPerWorker: 8, snapshotBytes: 4 * 1024 * 1024 };

function start(workers = 1, sizes: Partial<typeof SMALL> = {}) {
  const tables = openTables(createTables({ ...SMALL, ...sizes, workers }, "net-1"));
  const woken: number[] = [];
  const writer = new SnapshotWriter(tables, (worker) => woken.push(worker), 12345);
  const readers = Array.from({ length: workers }, (_, worker) => {
    writer.admit(worker);
    return new SnapshotReader(tables, worker);
  });
  return { tables, writer, readers, reader: readers[0]!, mesh: new SampleMesh(), woken };
}

Deno.test("a reader sees nothing before the first snapshot, and all of it after", () => {
  const { tables, writer, reader, mesh, woken } = start();
  assertEquals(ownNetwork(tables), "net-1");
  assertEquals(reader.refresh(), false);
  assertEquals(reader.workloadAt("", 0, 0, 0xffff, 1), undefined);
  assertEquals(reader.localWorkload(0), undefined);
  const workload = workloadOf("c//Pod/default/a", { addresses: [ipv4(1)], services: new Map([["default/s.svc", []]]) });
  const service = serviceOf("default", "s.svc", { addresses: [{ network: "", ip: ipv4(100) }] });
  mesh.putWorkload(workload);
  mesh.putService(service);
  mesh.pods.set(3, workload.uid);
  assertEquals(writer.publish(mesh), 1);
  assertEquals(woken, [0]);
  assertEquals(reader.refresh(), true);
  assertEquals(reader.refresh(), false);
  assertEquals(reader.generation, 1);
  assertEquals(reader.workloadAt("", 0, 0, 0xffff, 1), workload);
  assertEquals(reader.serviceAt("", 0, 0, 0xffff, 100, "default"), service);
  assertEquals(reader.endpointsOf(reader.serviceNamed("default", "s.svc")!), [workload]);
  assertStrictEquals(reader.localWorkload(3), reader.workloadAt("", 0, 0, 0xffff, 1));
  assertEquals([reader.localWorkload(2), reader.localWorkload(8)], [undefined, undefined]);
});

Deno.test("publish() waits for every live worker: the slot it rebuilds is read by nobody", () => {
  const { writer, readers, mesh } = start(2);
  writer.publish(mesh);
  assertEquals(writer.canPublish(), false);
  assertThrows(() => writer.publish(mesh), AssertionError, "idle slot");
  readers[0]!.refresh();
  assertEquals(writer.canPublish(), false);
  readers[1]!.refresh();
  assertEquals(writer.canPublish(), true);
  writer.publish(mesh);
  writer.dismiss(1); // It ended without a word; nobody waits for it.
  readers[0]!.refresh();
  assert(writer.canPublish());
  writer.admit(1); // A new thread on the same row may stand at this generation or the next, not further back.
  assert(writer.canPublish());
  writer.publish(mesh);
  readers[0]!.refresh();
  assertEquals(writer.canPublish(), false);
});

Deno.test("a reader that has not refreshed goes on with its own generation while the next is built and published", () => {
  const { writer, reader, mesh } = start();
  const before = workloadOf("a", { addresses: [ipv4(1)], canonicalName: "before" });
  mesh.putWorkload(before);
  mesh.putWorkload(workloadOf("b", { addresses: [ipv4(2)] }));
  writer.publish(mesh);
  reader.refresh();
  mesh.putWorkload({ ...before, canonicalName: "after" });
  mesh.removeWorkload("b");
  writer.publish(mesh);
  // Nothing of this was decoded before the publication.
  assertEquals(reader.workloadAt("", 0, 0, 0xffff, 1)?.canonicalName, "before");
  assertEquals(reader.workloadAt("", 0, 0, 0xffff, 2)?.uid, "b");
  reader.refresh();
  assertEquals(reader.workloadAt("", 0, 0, 0xffff, 1)?.canonicalName, "after");
  assertEquals(reader.workloadAt("", 0, 0, 0xffff, 2), undefined);
});

Deno.test("an unchanged resource keeps its object across generations, a changed one gets another", () => {
  const { writer, reader, mesh } = start();
  const service = serviceOf("default", "s", { addresses: [{ network: "", ip: ipv4(100) }] });
  mesh.putService(service);
  mesh.putPolicy(policyOf("default/p"));
  for (const uid of ["a", "b"]) {
    mesh.putWorkload(
      workloadOf(uid, { addresses: [ipv4(uid.charCodeAt(0))], services: new Map([["default/s", []]]) }),
    );
  }
  const look = () => {
    const held = reader.serviceNamed("default", "s")!, a = reader.workloadAt("", 0, 0, 0xffff, 97)!;
    return { held, a, list: reader.endpointsOf(held), policies: reader.policiesFor(a) };
  };
  writer.publish(mesh);
  reader.refresh();
  const first = look();
  writer.publish(mesh);
  reader.refresh();
  const second = look();
  for (const key of ["held", "a", "list", "policies"] as const) assertStrictEquals(second[key], first[key], key);

  mesh.putWorkload(workloadOf("b", { addresses: [ipv4(98)], services: new Map([["default/s", []]]), capacity: 7 }));
  writer.publish(mesh);
  reader.refresh();
  const third = look();
  assertStrictEquals(third.a, first.a);
  assertStrictEquals(third.held, first.held);
  assertEquals(third.list.map(({ uid, capacity }) => [uid, capacity]), [["a", 1], ["b", 7]]);
  assertStrictEquals(third.list[0], first.a);
  // Whoever kept an older service object means the service of that name.
  mesh.putService({ ...service, canonical: true });
  writer.publish(mesh);
  reader.refresh();
  assertEquals(reader.endpointsOf(first.held).length, 2);
  assert(reader.serviceNamed("default", "s") !== first.held);
});

Deno.test("publish() keeps the last generation in force when the mesh does not fit", () => {
  const { writer, reader, mesh } = start(1, { snapshotBytes: 256 * 1024 });
  mesh.putWorkload(workloadOf("a", { addresses: [ipv4(1)] }));
  writer.publish(mesh);
  reader.refresh();
  for (let at = 0; at < 2000; at++) mesh.putWorkload(workloadOf(`large-${at}`, { canonicalName: "x".repeat(100) }));
  const error = assertThrows(() => writer.publish(mesh), MeshError, "a snapshot has 262144");
  assertEquals(error.code, "AMB2003");
  assertEquals([writer.generation, reader.refresh()], [1, false]);
  assertEquals(reader.workloadAt("", 0, 0, 0xffff, 1)?.uid, "a");
  for (let at = 0; at < 2000; at++) mesh.removeWorkload(`large-${at}`);
  mesh.putWorkload(workloadOf("b", { addresses: [ipv4(2)] }));
  assertEquals(writer.publish(mesh), 2, "what was removed makes room again");
  assertEquals(reader.refresh(), true);
  assertEquals(reader.workloadAt("", 0, 0, 0xffff, 2)?.uid, "b");
});

Deno.test("an address of several workloads belongs to the pod in the mesh, then the pod, then HBONE, then the newest (ZT-024)", () => {
  const { writer, reader, mesh } = start();
  const uids: [string, 0 | 1][] = [["c//Pod/d/in", 1], ["c//Pod/d/out", 0], ["c/se/in", 1], ["c/se/b", 0], [
    "c/se/a",
    0,
  ]];
  const owner = () => {
    writer.publish(mesh);
    reader.refresh();
    return reader.workloadAt("", 0, 0, 0xffff, 1)?.uid;
  };
  for (const [uid, tunnelProtocol] of uids) mesh.putWorkload(workloadOf(uid, { addresses: [ipv4(1)], tunnelProtocol }));
  const seen: (string | undefined)[] = [];
  for (let at = 0; at <= uids.length; at++) {
    const uid = owner();
    seen.push(uid);
    if (uid !== undefined) mesh.removeWorkload(uid);
  }
  assertEquals(seen, ["c//Pod/d/in", "c//Pod/d/out", "c/se/in", "c/se/a", "c/se/b", undefined]);
  mesh.putWorkload(workloadOf("host", { addresses: [ipv4(1)], hostNetwork: true }));
  assertEquals(owner(), undefined, "never one on the host's network (ZT-023)");
});

Deno.test("a CIDR VIP: the client's namespace beats a longer prefix, an invisible exact match falls through (ZT-018)", () => {
  const { writer, reader, mesh } = start();
  const cidr = (number: number, prefixLength: number) => [{ network: "", ip: ipv4(number), prefixLength }];
  mesh.putService(serviceOf("a", "wide", { addresses: cidr(0x0a0000ff, 8) })); // bits beyond the prefix do not count
  mesh.putService(serviceOf("b", "narrow", { addresses: cidr(0x0a010000, 16) }));
  mesh.putService(serviceOf("b", "exact", { addresses: [{ network: "", ip: ipv4(0x0a010203) }], namespaceOnly: true }));
  mesh.putService(serviceOf("c", "all", { addresses: cidr(0, 0) }));
  writer.publish(mesh);
  reader.refresh();
  const at = (number: number, namespace?: string) => reader.serviceAt("", 0, 0, 0xffff, number, namespace)?.hostname;
  assertEquals(at(0x0a010203, "b"), "exact");
  assertEquals(at(0x0a010203), "exact");
  assertEquals(at(0x0a010203, "a"), "wide");
  assertEquals(at(0x0a010203, "x"), "narrow");
  assertEquals(at(0x0a020203, "x"), "wide");
  assertEquals(at(0xf0000000, "x"), "all");
  assertEquals(reader.serviceAt("", 0x20010db8, 0, 0, 1, "x"), undefined);
  assertEquals(reader.serviceAt("other", 0, 0, 0xffff, 0x0a010203, "x"), undefined);
});

for (const seed of [11, 22, 33, 44]) {
  Deno.test(`SnapshotReader answers as PlainMeshView through random updates, seed ${seed}`, () => {
    const random = randomOf(seed), { writer, readers, mesh } = start(2);
    const namespaces = ["a", "a-b", "ü"], networks = ["", "n2"];
    const pick = <T>(items: readonly T[]): T => items[random(items.length)]!;
    const serviceKeys = namespaces.flatMap((ns) => ["s1.svc", "s2.svc", "s3.svc"].map((host) => `${ns}/${host}`));
    const keptByUid = new Map<string, Workload>();
    let revision = 0;
    const changeOne = () => {
      const what = random(10), uid = `c/${pick(["/Pod", "se"])}/${random(12)}`;
      if (what < 5) {
        mesh.putWorkload(workloadOf(uid, {
          namespace: pick(namespaces),
          addresses: Array.from(
            { length: random(3) },
            () => random(3) ? ipv4(random(6)) : [1, 2, 3, random(4)] as const,
          ),
          network: pick(networks),
          hostname: random(3) === 0 ? pick(["h1", "h2"]) : "",
          tunnelProtocol: random(2) as 0 | 1,
          hostNetwork: random(6) === 0,
          healthy: random(4) > 0,
          services: new Map(Array.from({ length: random(3) }, () => [pick(serviceKeys), []])),
          authorizationPolicies: Array.from({ length: random(3) }, () => `a/selected${random(3)}`)
            .filter((key, at, keys) => keys.indexOf(key) === at),
          canonicalName: `v${revision++}`, // tells every content apart
        }));
      } else if (what < 6) mesh.removeWorkload(uid);
      else if (what < 8) {
        const [namespace, hostname] = pick(serviceKeys).split("/") as [string, string];
        if (random(4) === 0) mesh.removeService(`${namespace}/${hostname}`);
        else {
          mesh.putService(serviceOf(namespace, hostname, {
            addresses: Array.from({ length: random(4) }, () => ({
              network: pick(networks),
              ip: ipv4(random(6)),
              ...(random(3) === 0 ? { prefixLength: pick([0, 29, 30, 31]) } : {}),
            })),
            canonical: random(3) === 0,
            namespaceOnly: random(3) === 0,
            loadBalancing: random(3) === 0 ? { routingPreference: [], mode: 0, allowUnhealthy: true } : undefined,
          }));
        }
      } else {
        const scope = random(3) as PolicyScope;
        const key = scope === PolicyScope.WORKLOAD_SELECTOR
          ? `a/selected${random(3)}`
          : `${pick(namespaces)}/p${scope}`;
        if (random(3) === 0) mesh.removePolicy(key);
        else mesh.putPolicy(policyOf(key, { scope, action: random(2) as 0 | 1, dryRun: random(2) === 0 }));
      }
    };
    for (let round = 0; round < 150; round++) {
      for (let change = random(8); change > 0; change--) changeOne();
      writer.publish(mesh);
      const reader = readers[round % 2]!;
      for (const each of readers) each.refresh();
      const plain = new PlainMeshView({
        workloads: [...mesh.workloads.values()].map(({ resource }) => resource), // the newest last
        services: [...mesh.services.values()].map(({ resource }) => resource),
        policies: [...mesh.policies.values()].map(({ resource }) => resource),
      });
      for (const network of [...networks, "none"]) {
        for (let number = 0; number < 10; number++) {
          const ip = number < 6 ? ipv4(number) : [1, 2, 3, number - 6] as const;
          assertEquals(reader.workloadAt(network, ...ip), plain.workloadAt(network, ...ip), `round ${round}`);
          for (const client of [undefined, ...namespaces, "z"]) {
            assertEquals(
              reader.serviceAt(network, ...ip, client),
              plain.serviceAt(network, ...ip, client),
              `round ${round}`,
            );
          }
        }
      }
      for (const key of serviceKeys) {
        const [namespace, hostname] = key.split("/") as [string, string];
        const service = reader.serviceNamed(namespace, hostname), expected = plain.serviceNamed(namespace, hostname);
        assertEquals(service, expected);
        assertEquals(reader.servicesOfHostname(hostname), plain.servicesOfHostname(hostname));
        if (service === undefined || expected === undefined) continue;
        const uids = (list: readonly Workload[]) => list.map((it) => `${it.uid} ${it.canonicalName}`).sort();
        assertEquals(uids(reader.endpointsOf(service)), uids(plain.endpointsOf(expected)), `round ${round}`);
      }
      for (const namespace of namespaces) {
        for (const host of ["h1", "h2"]) {
          assertEquals(reader.workloadNamed(namespace, host), plain.workloadNamed(namespace, host));
        }
      }
      for (const { resource } of mesh.workloads.values()) {
        assertEquals(reader.policiesFor(resource), plain.policiesFor(resource));
        const ip = resource.addresses[0];
        const object = ip && reader.workloadAt(resource.network, ...ip);
        if (object?.uid !== resource.uid) continue;
        const kept = keptByUid.get(`${round % 2} ${object.uid}`);
        if (kept?.canonicalName === object.canonicalName) assertStrictEquals(object, kept);
        keptByUid.set(`${round % 2} ${object.uid}`, object);
      }
    }
  });
}

Deno.test("publish() reuses what removed resources left: a mesh that churns does not grow", () => {
  const { writer, reader, mesh, tables } = start(1, { snapshotBytes: 8 * 1024 * 1024 });
  for (let round = 0; round < 60; round++) {
    for (let at = 0; at < 500; at++) {
      mesh.removeWorkload(`w-${round - 1}-${at}`);
      mesh.putWorkload(workloadOf(`w-${round}-${at}`, { addresses: [ipv4(at)], canonicalName: "x".repeat(100) }));
    }
    writer.publish(mesh);
    reader.refresh();
    assertEquals(reader.workloadAt("", 0, 0, 0xffff, 499)?.uid, `w-${round}-499`);
  }
  // 500 workloads of 150 bytes; without compaction the heap would hold 30,000 of them.
  assert(
    new Uint8Array(tables.handles.slots[0]).subarray(3 * 1024 * 1024, 7 * 1024 * 1024).every((byte) => byte === 0),
  );
});

Deno.test("publish() of 10,000 workloads and of one change among them", () => {
  const { writer, reader, mesh } = start(1, { snapshotBytes: 64 * 1024 * 1024 });
  for (let at = 0; at < 200; at++) mesh.putService(serviceOf("default", `s${at}.default.svc.cluster.local`));
  for (let at = 0; at < 10_000; at++) {
    mesh.putWorkload(workloadOf(`cluster1//Pod/default/w${at}-7d4b9c`, {
      name: `w${at}-7d4b9c`,
      addresses: [ipv4(0x0a000000 + at)],
      tunnelProtocol: 1,
      canonicalName: `w${at}`,
      workloadName: `w${at}`,
      node: `node-${at % 100}`,
      services: new Map([[`default/s${at % 200}.default.svc.cluster.local`, [{ servicePort: 80, targetPort: 8080 }]]]),
    }));
  }
  const source = indexed(mesh);
  let startedMs = performance.now();
  writer.publish(source);
  const allMs = performance.now() - startedMs;
  reader.refresh();
  const { resource } = mesh.workloads.get("cluster1//Pod/default/w77-7d4b9c")!;
  let oneMs = Infinity; // The least of some: others may have had the processor in any of them.
  for (const canonicalName of ["a", "b", "c", "d", "changed"]) {
    mesh.putWorkload({ ...resource, canonicalName });
    startedMs = performance.now();
    writer.publish(source);
    oneMs = Math.min(oneMs, performance.now() - startedMs);
    if (canonicalName !== "changed") reader.refresh();
  }
  startedMs = performance.now();
  reader.refresh();
  assertEquals(reader.workloadAt("", 0, 0, 0xffff, 0x0a000000 + 77)?.canonicalName, "changed");
  const seenMs = performance.now() - startedMs;
  Deno.stdout.writeSync(new TextEncoder().encode(
    `    10,000 workloads: ${allMs.toFixed(1)} ms; one change: ${oneMs.toFixed(2)} ms, seen in ${
      seenMs.toFixed(2)
    } ms\n`,
  ));
  assert(oneMs < allMs / 2, "a change costs a part of the whole"); // A twentieth, where it was measured.
});

/** The sample mesh finds endpoints by scanning; for a timing they are looked up, as the product's state does. */
function indexed(mesh: SampleMesh): SampleMesh {
  const members = new Map<string, string[]>();
  for (const { resource } of mesh.workloads.values()) {
    for (const key of resource.services.keys()) members.set(key, [...members.get(key) ?? [], resource.uid]);
  }
  mesh.endpointsOf = function* (key: string) {
    yield* members.get(key) ?? [];
  };
  return mesh;
}
