import { assertEquals } from "@std/assert";
import { encodeServiceAddress } from "../../../mesh/proto/workload_codec.ts";
import type { Service } from "../../../mesh/service.ts";
import { service } from "../../../mesh/testing.ts";
import { MeshState } from "../state.ts";

function known(state: MeshState, hostname: string): string[] {
  return [...state.servicesOfHostname(hostname)].map((it) => `${it.namespace}/${it.hostname}`);
}

Deno.test("MeshState finds services by hostname, whatever its case, in the order they became known (ZT-181, ZT-182)", () => {
  const state = new MeshState("");
  const apply = (...services: Service[]) =>
    state.applyAddresses(
      services.map((it) => ({ name: `${it.namespace}/${it.hostname}`, bytes: encodeServiceAddress(it) })),
      [],
    );
  const of = (namespace: string, hostname: string, vip = "10.0.0.1") =>
    service("s", vip, "80:80", { namespace, hostname });
  apply(of("b", "all.example"), of("a", "all.example"), of("a", "Other.Example"));
  assertEquals(known(state, "all.example"), ["b/all.example", "a/all.example"]);
  assertEquals([known(state, "other.example"), known(state, "none.example")], [["a/Other.Example"], []]);
  apply(of("b", "all.example", "10.0.0.2"));
  assertEquals(known(state, "all.example"), ["b/all.example", "a/all.example"], "a change keeps its place");
  state.applyAddresses([], ["b/all.example", "a/Other.Example", "a/none.example"]);
  assertEquals([known(state, "all.example"), known(state, "other.example")], [["a/all.example"], []]);
});
