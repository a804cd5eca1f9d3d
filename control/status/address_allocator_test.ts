/** Addresses on their way into the status of ServiceEntries, against an API server that guards its versions. */
import { assert, assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { SERVICE_ENTRIES } from "../../kube/resource_types.ts";
import { InMemoryKubeApi } from "../../kube/testing.ts";
import { AmbientIndex } from "../ambient/index.ts";
import { Field } from "../decode/field.ts";
import { decodeObject } from "../decode/kinds.ts";
import type { Plain } from "../../base/plain.ts";
import { Metrics } from "../../base/metrics.ts";
import { type ObjectChange, objectKey } from "../objects.ts";
import { AddressAllocator } from "./address_allocator.ts";
import { ControllerMetrics } from "./controller_metrics.ts";
import { StatusMirror } from "./status_mirror.ts";
import { settle, SimulatedClock } from "./testing.ts";

class Rig {
  readonly clock = new SimulatedClock();
  readonly api = new InMemoryKubeApi();
  readonly index = new AmbientIndex();
  readonly mirror = new StatusMirror();
  readonly lines: string[] = [];
  readonly metrics = new ControllerMetrics(new Metrics());
  readonly allocator: AddressAllocator;
  readonly #stop = new AbortController();
  #led: Promise<void> = Promise.resolve();
  #seen = new Set<string>();

  constructor(prefixes = ["240.240.0.0/16", "2001:2::/48"]) {
    this.allocator = new AddressAllocator({
      api: this.api,
      entries: this.index.graph.sources.ServiceEntry,
      mirror: this.mirror,
      prefixes,
      metrics: this.metrics,
      log: new Logger("addresses", { sink: (line) => this.lines.push(line) }),
      clock: this.clock,
    });
  }

  put(name: string, status?: object): void {
    const spec = {
      hosts: [`${name}.test`],
      ports: [{ number: 80, name: "http", protocol: "HTTP" }],
      resolution: "DNS",
    };
    this.api.put(SERVICE_ENTRIES, { metadata: { name, namespace: "shop" }, spec, ...(status && { status }) });
  }

  /** The watch tells of everything as it is now. */
  async see(): Promise<void> {
    const objects = this.api.objects(SERVICE_ENTRIES), names = new Set(objects.map(({ metadata }) => metadata.name));
    const changes: ObjectChange[] = [];
    for (const name of [...names, ...this.#seen]) {
      const given = this.api.object(SERVICE_ENTRIES, "shop", name), kind = "ServiceEntry";
      this.mirror.note(kind, { namespace: "shop", name }, given);
      const object = given && decodeObject(new Field(given as Plain), { kind, namespace: "shop", name });
      changes.push({ kind, key: objectKey(kind, "shop", name), object });
    }
    this.#seen = names;
    this.index.apply(changes);
    this.allocator.changed(changes);
    await settle();
  }

  async lead(): Promise<void> {
    this.#led = this.allocator.lead(this.#stop.signal);
    await settle();
  }

  addresses(name: string): unknown {
    return (this.api.object(SERVICE_ENTRIES, "shop", name)?.["status"] as { addresses?: unknown })?.addresses;
  }

  get patches(): number {
    return this.api.calls.filter(({ verb }) => verb === "patch").length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#led;
  }
}

const one = (name: string, last: number) => [
  { value: `240.240.0.${last}`, host: `${name}.test` },
  { value: `2001:2::${last}`, host: `${name}.test` },
];

Deno.test("AddressAllocator writes addresses whatever the status held before, and nothing beside (CP-240)", async () => {
  await using rig = new Rig();
  const conditions = [{ type: "example.com/Seen", status: "True" }];
  rig.put("none");
  rig.put("other", { conditions });
  rig.put("empty", { addresses: [] });
  await rig.see();
  assertEquals(rig.api.calls.length, 0, "nothing before it leads");
  await rig.lead();
  assertEquals(rig.addresses("none"), one("none", 1));
  assertEquals(rig.addresses("other"), one("other", 2));
  assertEquals(rig.addresses("empty"), one("empty", 3));
  assertEquals(
    (rig.api.object(SERVICE_ENTRIES, "shop", "other")!["status"] as { conditions: unknown }).conditions,
    conditions,
  );
  const service = rig.index.lookup("type.googleapis.com/istio.workload.Address", "shop/none.test");
  assertEquals(service.length > 0, true);
  await rig.see();
  await rig.see();
  assertEquals(rig.patches, 3, "what is written is not written again");
});

Deno.test("AddressAllocator follows entries that come, change and go (CP-240)", async () => {
  await using rig = new Rig();
  await rig.lead();
  rig.put("a");
  await rig.see();
  await rig.see();
  rig.api.remove(SERVICE_ENTRIES, "shop", "a");
  rig.put("b");
  await rig.see();
  assertEquals(rig.addresses("b"), one("b", 2), "not the address that was a's");
});

Deno.test("AddressAllocator looks again when another wrote the status meanwhile (CP-240)", async () => {
  await using rig = new Rig();
  await rig.lead();
  rig.put("a");
  rig.put("b");
  const changes = rig.see();
  rig.put("a", { conditions: [] });
  rig.put("b", { addresses: one("b", 77) });
  await changes;
  assertEquals(rig.addresses("a"), one("a", 1));
  assertEquals(rig.metrics.writes("addresses", "conflict"), 2);
  await rig.see();
  assertEquals(rig.addresses("b"), one("b", 2), "what it decided stands, until its own view has the other's");
});

Deno.test("AddressAllocator says once that nothing is left, and serves on (CP-240)", async () => {
  await using rig = new Rig(["240.240.0.0/30"]);
  await rig.lead();
  for (const name of ["a", "b", "c", "d", "e"]) rig.put(name);
  await rig.see();
  assertEquals(["a", "b", "c"].every((name) => (rig.addresses(name) as unknown[]).length === 1), true);
  assertEquals([rig.addresses("d"), rig.addresses("e")], [undefined, undefined]);
  assertEquals(rig.lines.filter((line) => line.includes("no address is left")).length, 1);
  rig.api.remove(SERVICE_ENTRIES, "shop", "a");
  await rig.see();
  await rig.see();
  assert(rig.addresses("d") !== undefined || rig.addresses("e") !== undefined, "one that was freed goes to who waits");
});
