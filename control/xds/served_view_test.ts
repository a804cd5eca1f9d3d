/** Workloads as a type of their own. */
import { assertEquals, assertStrictEquals } from "@std/assert";
import { ADDRESS_TYPE_URL, encodeServiceAddress, encodeWorkloadAddress } from "../../mesh/proto/workload_codec.ts";
import { decodeAddress } from "../../mesh/proto/workload_codec.ts";
import { service, workload } from "../../mesh/testing.ts";
import { type Resource, type ResourceView, WORKLOAD_TYPE_URL } from "./resources.ts";
import { ServedView } from "./served_view.ts";

/** One pod with more than 127 bytes, so that its length is a varint of two, and one service. */
const POD: Resource = {
  name: "pod",
  aliases: ["/10.0.0.1"],
  version: "7",
  bytes: encodeWorkloadAddress(workload("cart", "10.0.0.1", { canonicalName: "x".repeat(200) })),
};
const SERVICE: Resource = {
  name: "ns1/cart.example",
  aliases: ["/10.9.0.1"],
  version: "8",
  bytes: encodeServiceAddress(service("cart", "10.9.0.1", "80:80")),
};

const ADDRESSES: ResourceView = {
  generation: 1,
  all: (typeUrl) => typeUrl === ADDRESS_TYPE_URL ? [SERVICE, POD] : [],
  lookup: (typeUrl, name) =>
    typeUrl !== ADDRESS_TYPE_URL
      ? []
      : [POD, SERVICE].filter((it) => it.name === name || it.aliases.includes(name) || name === SERVICE.name),
  workloadsOnNode: (node) => node === "n1" ? [POD] : [],
};

Deno.test("ServedView serves workloads as the bare message under their address's name and version (CP-421)", () => {
  const view = new ServedView(ADDRESSES);
  const [bare, ...others] = view.all(WORKLOAD_TYPE_URL);
  assertEquals(others, [], "services are no workloads");
  assertEquals({ ...bare!, bytes: undefined }, { ...POD, bytes: undefined });
  const wrapped = new Uint8Array([0x0a, 0x80 | (bare!.bytes.length & 0x7f), bare!.bytes.length >> 7, ...bare!.bytes]);
  assertEquals(decodeAddress(wrapped), decodeAddress(POD.bytes));
  assertStrictEquals(view.lookup(WORKLOAD_TYPE_URL, "pod")[0], bare, "one object for as long as the address is");
  assertEquals(view.lookup(WORKLOAD_TYPE_URL, SERVICE.name), [bare!], "a service's name stands for its workloads");
  assertEquals(view.lookup(WORKLOAD_TYPE_URL, "/10.0.0.9"), []);
  assertEquals(view.workloadsOnNode("n1", WORKLOAD_TYPE_URL), [bare!]);
  assertEquals([...view.all(ADDRESS_TYPE_URL)], [SERVICE, POD]);
});

Deno.test("ServedView.workloadChange() keeps what concerns those who watch workloads (CP-421, CP-423)", () => {
  const view = new ServedView(ADDRESSES);
  const change = view.workloadChange({ typeUrl: ADDRESS_TYPE_URL, updated: [SERVICE, POD], removed: ["gone"] });
  assertEquals([change.typeUrl, change.removed], [WORKLOAD_TYPE_URL, ["gone"]]);
  assertEquals(change.updated, [...view.all(WORKLOAD_TYPE_URL)]);
});
