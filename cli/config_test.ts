/** `ambit config`: tables of a dump, and what is said where there is none. */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { MeshError } from "../base/errors.ts";
import { runConfig } from "./config.ts";
import { formatSection } from "./config_tables.ts";

/** As a ztunnel writes it: the form is held by dataplane/agent/config_dump_test.ts, and by istioctl (ZT-215). */
const DUMP = {
  workloads: [
    {
      namespace: "shop",
      name: "cart-1",
      workloadIps: ["10.0.0.1", "fd00::1"],
      node: "node-a",
      protocol: "HBONE",
      status: "Healthy",
      waypoint: { destination: "shop/waypoint.shop.svc", hboneMtlsPort: 15008 },
    },
    { namespace: "web", name: "db", workloadIps: [], hostname: "db.example", protocol: "TCP", status: "Unhealthy" },
  ],
  services: [{
    namespace: "shop",
    name: "cart",
    hostname: "cart.shop.svc",
    vips: ["/10.96.0.1", "net/fd00:96::1"],
    endpoints: { a: { status: "Healthy" }, b: { status: "Unhealthy" } },
  }],
  policies: [{ namespace: "shop", name: "only-cart", action: "Allow", scope: "WorkloadSelector", rules: [[], []] }],
  certificates: [
    {
      identity: "spiffe://cluster.local/ns/shop/sa/cart",
      state: "Available",
      certChain: [{ serialNumber: "266511238", expirationTime: "2026-01-02T12:30:00Z" }],
      rootCerts: [{ serialNumber: "1", expirationTime: "2025-12-31T00:00:00Z" }],
    },
    {
      identity: "spiffe://cluster.local/ns/web/sa/db",
      state: "Unavailable: the CA says no",
      certChain: [],
      rootCerts: [],
    },
  ],
  workloadState: {
    p1: {
      state: "Up",
      info: { namespace: "shop", name: "cart-1", serviceAccount: "cart" },
      connections: {
        inbound: [{ src: "[fd00::9]:4000", originalDst: "evil\x1b[2J", actualDst: "10.0.0.1:8080", protocol: "HBONE" }],
        outbound: [{
          src: "10.0.0.1:40002",
          originalDst: "10.96.0.1:80",
          actualDst: "10.0.0.2:15008",
          protocol: "HBONE",
        }],
      },
    },
  },
};

const NOW = { namespace: undefined, nowMs: Date.parse("2026-01-01T00:00:00Z") };

Deno.test("formatSection() shows each part of a dump by names, with what is left of certificates (UX-029)", () => {
  const tables = {
    workloads: `NAMESPACE   NAME     ADDRESS            NODE     WAYPOINT            PROTOCOL   STATUS
shop        cart-1   10.0.0.1,fd00::1   node-a   waypoint.shop.svc   HBONE      Healthy
web         db       db.example         -        -                   TCP        Unhealthy
`,
    services: `NAMESPACE   NAME   ADDRESS                WAYPOINT   ENDPOINTS
shop        cart   10.96.0.1,fd00:96::1   -          1/2
`,
    policies: `NAMESPACE   NAME        ACTION   SCOPE              RULES   DRY RUN
shop        only-cart   Allow    WorkloadSelector   2       no
`,
    certificates:
      `IDENTITY                                 TYPE   STATE                         SERIAL NUMBER   NOT AFTER              EXPIRES IN
spiffe://cluster.local/ns/shop/sa/cart   leaf   Available                     fe2a386         2026-01-02T12:30:00Z   1d12h
spiffe://cluster.local/ns/shop/sa/cart   root   Available                     1               2025-12-31T00:00:00Z   expired
spiffe://cluster.local/ns/web/sa/db      -      Unavailable: the CA says no   -               -                      -
`,
    connections: `WORKLOAD      DIRECTION   LOCAL               REMOTE           TARGET             PROTOCOL
shop/cart-1   inbound     shop/cart-1:8080    [fd00::9]:4000   evil?[2J           HBONE
shop/cart-1   outbound    shop/cart-1:40002   10.0.0.2:15008   cart.shop.svc:80   HBONE
`,
  } as const;
  for (const [section, wanted] of Object.entries(tables)) {
    assertEquals(formatSection(DUMP, section as keyof typeof tables, NOW), wanted);
  }
  const shop = formatSection(DUMP, "workloads", { ...NOW, namespace: "shop" });
  assertEquals([shop.includes("cart-1"), shop.includes("db.example")], [true, false]);
  assertEquals(formatSection(DUMP, "policies", { ...NOW, namespace: "web" }), "no policies\n");
  assertEquals(formatSection({ workloads: "x", certificates: [7] }, "connections", NOW), "no connections\n");
});

Deno.test("runConfig() says which words there are, where nothing answers, and what is no dump (UX-014)", async () => {
  const refusal = async (...args: string[]) => await assertRejects(() => runConfig(args), MeshError);
  assertEquals((await refusal("workload", "services")).code, "AMB0292");
  assertStringIncludes((await refusal("polices")).remedy, "ambit config policies");
  assertEquals((await refusal()).code, "AMB0292");
  const closed = Deno.listen({ hostname: "127.0.0.1", port: 0 }), { port } = closed.addr;
  closed.close();
  const silent = await refusal("workloads", `--admin-address=127.0.0.1:${port}`);
  assertEquals([silent.code, silent.remedy.includes("ztunnel that runs")], ["AMB0293", true]);
  const file = await Deno.makeTempFile({ prefix: "dump-" });
  try {
    for (const text of ["{", "[]", "{}"]) {
      await Deno.writeTextFile(file, text);
      assertEquals((await refusal("workload", "-f", file)).code, "AMB0293", text);
    }
  } finally {
    await Deno.remove(file);
  }
});
