import { assertEquals } from "@std/assert";
import { PlainMeshView } from "./plain_view.ts";
import { inboundService } from "./service_label.ts";
import { service, serving, workload } from "./testing.ts";

Deno.test("inboundService() is the one that the client named, else the first that leads to the port (ZT-098)", () => {
  const view = new PlainMeshView({
    services: [service("a", "", "80:8080"), service("b", "", "80:8080 81:0"), service("other", "", "80:8080")],
  });
  const local = workload("w", "10.0.0.1", {
    services: serving({
      "ns1/unknown.example": "1:9090",
      "ns1/a.example": "80:8080",
      "ns1/b.example": "80:8080 81:9090",
    }),
  });
  const label = (host: string | undefined, port: number) => inboundService(view, local, host, port)?.name;
  assertEquals(label("b.example", 8080), "b");
  assertEquals(label("b.example", 1), "b");
  assertEquals(label("other.example", 8080), "a");
  assertEquals(label(undefined, 8080), "a");
  assertEquals(label(undefined, 9090), "b");
  assertEquals(label(undefined, 80), undefined);
  assertEquals(label(undefined, 0), undefined);
});
