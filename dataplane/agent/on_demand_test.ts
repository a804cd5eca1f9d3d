import { assertEquals } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { OnDemandResources } from "./on_demand.ts";

function rig(request: (name: string) => Promise<boolean>, published = true) {
  const asked: string[] = [], lines: string[] = [], order: string[] = [];
  const resources = new OnDemandResources({
    xds: {
      request(name) {
        asked.push(name);
        return request(name).finally(() => order.push("answered"));
      },
    },
    publisher: {
      published() {
        order.push("published");
        return Promise.resolve(published);
      },
    },
    clusterId: "c1",
    log: new Logger("xds", { sink: (line) => lines.push(line) }),
  });
  return { resources, asked, lines, order };
}

Deno.test("find() answers once workers can see what istiod said, and not before (ZT-131)", async () => {
  const { resources, order, lines } = rig(() => Promise.resolve(true));
  assertEquals(await resources.find("/10.0.0.1"), "known");
  assertEquals([order, lines], [["answered", "published"], []]);
});

Deno.test("find() says that nothing is known where istiod is silent, too much is asked, or the mesh does not fit", async () => {
  const refusal = new MeshError("AMB0305", "too many names", { remedy: "ask for fewer" });
  for (const it of [rig(() => Promise.resolve(false)), rig(() => Promise.reject(refusal))]) {
    assertEquals(await it.resources.find("/10.0.0.1"), "unsupported");
    assertEquals(await it.resources.find("/10.0.0.2"), "unsupported");
    assertEquals(it.lines.length, 1, "said once a minute");
    assertEquals(it.order.includes("published"), false);
  }
  assertEquals(await rig(() => Promise.resolve(true), false).resources.find("/10.0.0.1"), "unsupported");
});

Deno.test("expectPod() asks for an enrolled pod's own workload by its uid (ZT-016)", () => {
  const { resources, asked } = rig(() => Promise.resolve(true));
  resources.expectPod({ namespace: "shop", name: "cart-1", serviceAccount: "cart" });
  assertEquals(asked, ["c1//Pod/shop/cart-1"]);
});
