import { assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../base/errors.ts";
import { enrolmentOf } from "./oci_hook.ts";

const ANNOTATIONS = { "ambit.mesh/name": "web-0", "ambit.mesh/namespace": "shop", "ambit.mesh/service-account": "web" };
const state = (change: Record<string, unknown>) =>
  JSON.stringify({ ociVersion: "1.0.2", id: "c", status: "creating", pid: 4711, annotations: ANNOTATIONS, ...change });

Deno.test("enrolmentOf() makes a container of the mesh what its annotations say, and leaves others alone (CNI-277)", () => {
  assertEquals(enrolmentOf(state({})), ["pid/4711", "--name=web-0", "--namespace=shop", "--service-account=web"]);
  for (const annotations of [undefined, {}, { "ambit.mesh/namespace": "shop" }]) {
    assertEquals(enrolmentOf(state({ annotations })), undefined);
  }
});

Deno.test("enrolmentOf() stops a container of the mesh that is not wholly described: it must not start outside (CNI-277)", () => {
  const half = { "ambit.mesh/name": "web-0", "ambit.mesh/namespace": "shop" };
  for (const text of ["", "[", "1", state({ pid: undefined }), state({ pid: 0 }), state({ annotations: half })]) {
    assertEquals(assertThrows(() => enrolmentOf(text), MeshError).code, "AMB7178", text);
  }
});
