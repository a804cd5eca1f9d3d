/**
 * Our config dump, read by Istio's own `istioctl ztunnel-config` (ZT-215). Needs AMBIT_PEER_ISTIOCTL, the path of its
 * program; without the variable the test is shown as ignored. Its subcommand `log` reaches a pod through the cluster's
 * API server alone; what it sends is held by dataplane/agent/admin_test.ts.
 */
import { assertEquals } from "@std/assert";
import type { IpWords } from "../../base/address.ts";
import { configDump } from "../../dataplane/agent/config_dump.ts";
import { applyLocal, parseLocal } from "../../dataplane/agent/local_file.ts";
import { MeshState } from "../../dataplane/agent/state.ts";
import { createTables, openTables, type Tables } from "../../dataplane/tables/handles.ts";
import { CONNECTION, ConnectionKind, ConnectionState, Direction } from "../../dataplane/tables/layout.ts";
import { ipv4 } from "../../dataplane/tables/testing.ts";

const ISTIOCTL = Deno.env.get("AMBIT_PEER_ISTIOCTL");

const MESH = `
workloads:
- { uid: c//Pod/shop/cart-1, name: cart-1, namespace: shop, serviceAccount: cart, workloadIps: [10.0.0.1, "fd00::1"],
    protocol: HBONE, node: node-a, waypoint: { destination: shop/waypoint.shop.svc, hboneMtlsPort: 15008 },
    applicationTunnel: { protocol: PROXY, port: 15088 }, locality: { region: r, zone: z, subzone: "" },
    services: { shop/cart.shop.svc: { 80: 8080 } } }
- { uid: c//Pod/shop/cart-2, name: cart-2, namespace: shop, workloadIps: [10.0.0.2], protocol: HBONE, node: node-b,
    waypoint: { destination: /10.96.0.9, hboneMtlsPort: 15008 }, status: Unhealthy,
    services: { shop/cart.shop.svc: { 80: 8080 } } }
- { uid: c//ServiceEntry/web/db, name: db, namespace: web, hostname: db.example, workloadIps: [], services: {} }
services:
- { name: cart, namespace: shop, hostname: cart.shop.svc, vips: [/10.96.0.1, "/fd00:96::1"], ports: { 80: 8080 },
    waypoint: { destination: shop/waypoint.shop.svc, hboneMtlsPort: 15008 },
    loadBalancer: { routingPreferences: [Network, Zone], mode: Failover, healthPolicy: AllowAll }, ipFamilies: Dual }
- { name: waypoint, namespace: shop, hostname: waypoint.shop.svc, vips: [/10.96.0.9], ports: { 15008: 15008 } }
- { name: sets, namespace: web, hostname: sets.web.svc, vips: [], ports: { 80: 0 },
    cidrVips: [{ network: "", cidr: 10.97.0.0/16 }] }
policies:
- { name: only-cart, namespace: shop, scope: WorkloadSelector, action: Allow, dryRun: false,
    rules: [[[{ principals: [!Exact cluster.local/ns/shop/sa/cart], notSourceIps: [10.9.0.0/16], destinationPorts: [80],
      serviceAccounts: [{ namespace: shop, serviceAccount: cart }], namespaces: [!Presence []] }]]] }
- { name: nobody, namespace: web, scope: Namespace, action: Deny, rules: [], dryRun: true }
`;

const WANTED: Readonly<Record<string, string>> = {
  workload: `NAMESPACE POD NAME ADDRESS          NODE   WAYPOINT PROTOCOL
shop      cart-1   10.0.0.1,fd00::1 node-a waypoint HBONE
shop      cart-2   10.0.0.2         node-b waypoint HBONE
web       db       db.example              None     TCP
`,
  service: `NAMESPACE SERVICE NAME SERVICE VIP          WAYPOINT ENDPOINTS
shop      cart         10.96.0.1,fd00:96::1 waypoint 1/2
shop      waypoint     10.96.0.9            None     0/0
web       sets                              None     0/0
`,
  policy: `NAMESPACE POLICY NAME ACTION SCOPE
shop      only-cart   Allow  WorkloadSelector
web       nobody      Deny   Namespace
`,
  certificate:
    `CERTIFICATE NAME                           TYPE             STATUS           VALID CERT     SERIAL NUMBER     NOT AFTER                NOT BEFORE
spiffe://cluster.local/ns/shop/sa/cart     Leaf             Available        true           fe2a386           2099-01-01T00:00:00Z     2026-01-01T00:00:00Z
spiffe://cluster.local/ns/shop/sa/cart     Intermediate     Available        true           1                 2099-01-01T00:00:00Z     2026-01-01T00:00:00Z
spiffe://cluster.local/ns/shop/sa/cart     Root             Available        true           dead              2099-01-01T00:00:00Z     2026-01-01T00:00:00Z
spiffe://cluster.local/ns/shop/sa/late     NA               Initializing     false          NA                NA                       NA
spiffe://cluster.local/ns/shop/sa/none     NA               Unavailable      false          NA                NA                       NA
`,
  connections: `WORKLOAD    DIRECTION LOCAL             REMOTE            REMOTE TARGET    PROTOCOL
cart-1.shop Inbound   cart-1.shop:8080  cart-2.shop:40000 cart.shop.svc    HBONE
cart-1.shop Inbound   cart-1.shop:8080  cart-2.shop:40001                  TCP
cart-1.shop Outbound  cart-1.shop:40002 cart-2.shop:15008 cart.shop.svc:80 HBONE
cart-1.shop Outbound  cart-1.shop:40003 cart-2.shop:15008 cart.shop.svc:80 DOUBLEHBONE
`,
};

function connection(tables: Tables, row: number, direction: number, kind: number, host: string): void {
  const rows = tables.connections[0]!, bytes = new TextEncoder().encode(host);
  const put = (field: typeof CONNECTION.sourceIp, ip: IpWords) =>
    ip.forEach((word, at) => rows.setAt(row, field, at, word));
  const outbound = direction === Direction.OUTBOUND;
  rows.set(row, CONNECTION.podRow, 1);
  rows.set(row, CONNECTION.direction, direction);
  rows.set(row, CONNECTION.kind, kind);
  put(CONNECTION.sourceIp, ipv4(outbound ? 0x0a000001 : 0x0a000002));
  rows.set(row, CONNECTION.sourcePort, 40_000 + row);
  put(CONNECTION.destinationIp, ipv4(outbound ? 0x0a600001 : 0x0a000001));
  rows.set(row, CONNECTION.destinationPort, outbound ? 80 : 8080);
  put(CONNECTION.actualIp, ipv4(outbound ? 0x0a000002 : 0x0a000001));
  rows.set(row, CONNECTION.actualPort, 15008);
  rows.set(row, CONNECTION.hostBytes, bytes.length);
  rows.writeBytes(row, CONNECTION.host, bytes);
  rows.store(row, CONNECTION.state, ConnectionState.OPEN);
}

function dump(): string {
  const state = new MeshState("node-a");
  applyLocal(state, parseLocal(MESH, "mesh.yaml"));
  const tables = openTables(createTables({ workers: 1, pods: 2, connectionsPerWorker: 64 }));
  connection(tables, 0, Direction.INBOUND, ConnectionKind.HBONE, "cart.shop.svc");
  connection(tables, 1, Direction.INBOUND, ConnectionKind.TCP, "");
  connection(tables, 2, Direction.OUTBOUND, ConnectionKind.HBONE, "");
  connection(tables, 3, Direction.OUTBOUND, ConnectionKind.DOUBLE_HBONE, "");
  const times = { validFromMs: Date.UTC(2026, 0, 1), expirationTimeMs: Date.UTC(2099, 0, 1) };
  const identity = "spiffe://cluster.local/ns/shop/sa/";
  return configDump({
    state,
    version: { version: "1" },
    config: { proxyMode: "shared" },
    certificates: [
      {
        identity: `${identity}cart`,
        state: "Available",
        certChain: [{ pem: "P", serialNumber: "266511238", ...times }, { pem: "P", serialNumber: "1", ...times }],
        rootCerts: [{ pem: "P", serialNumber: "57005", ...times }],
      },
      { identity: `${identity}late`, state: "Initializing", certChain: [], rootCerts: [] },
      { identity: `${identity}none`, state: "Unavailable: the CA says no", certChain: [], rootCerts: [] },
    ],
    pods: [
      { uid: "p1", podRow: 1, up: true, facts: { name: "cart-1", namespace: "shop", serviceAccount: "cart" } },
      { uid: "p2", podRow: -1, up: false, facts: { name: "late", namespace: "shop", serviceAccount: "late" } },
    ],
    tables,
  });
}

Deno.test({
  name: "istioctl reads our config dump: every subcommand of ztunnel-config that takes a file (ZT-215)",
  ignore: ISTIOCTL === undefined,
}, async (t) => {
  const folder = await Deno.makeTempDir({ prefix: "ambit-istioctl-" });
  try {
    const file = `${folder}/dump.json`, kubeconfig = `${folder}/kubeconfig.yaml`;
    await Deno.writeTextFile(file, dump());
    // It makes a client of a cluster before it looks at the file, and never uses it.
    await Deno.writeTextFile(
      kubeconfig,
      `{ apiVersion: v1, kind: Config, current-context: c, clusters: [{ name: c, cluster: { server: "http://127.0.0.1:1" } }],
         contexts: [{ name: c, context: { cluster: c, user: u } }], users: [{ name: u, user: {} }] }`,
    );
    const said = async (...args: readonly string[]) => {
      const command = ["ztunnel-config", ...args, "--file", file, "--kubeconfig", kubeconfig];
      const { success, stdout, stderr } = await new Deno.Command(ISTIOCTL!, { args: command }).output();
      if (!success) throw new Error(new TextDecoder().decode(stderr));
      return new TextDecoder().decode(stdout);
    };
    for (const [subcommand, wanted] of Object.entries(WANTED)) {
      await t.step(subcommand, async () => assertEquals(await said(subcommand), wanted));
      await t.step(`${subcommand} as JSON`, async () => {
        const read = JSON.parse(await said(subcommand, "-o", "json")) as unknown[];
        assertEquals(read.length > 0, true);
      });
    }
    await t.step("all", async () => {
      const all = await said("all");
      for (const wanted of Object.values(WANTED)) assertEquals(all.includes(wanted), true, `${all} holds ${wanted}`);
    });
    await t.step("connections of one direction", async () => {
      const [, ...rows] = (await said("connections", "--direction", "outbound")).trimEnd().split("\n");
      assertEquals(rows.map((row) => row.split(/ +/)[1]), ["Outbound", "Outbound"]);
    });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
