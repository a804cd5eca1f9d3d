import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { ZTUNNEL_CONFIG } from "../config.ts";
import { MESH_FILE, readMeshFile } from "./proxy_config.ts";
import { checkServers, dedicatedWorkload, SettingsSources } from "./settings_sources.ts";

const MESH = `
defaultConfig:
  statsPort: 15888
  proxyAdminPort: 15099
  holdApplicationUntilProxyStarts: true
  proxyMetadata:
    ISTIO_META_COLOUR: red
    ISTIO_META_SHAPE: round
trustDomain: elsewhere
`;
const PROXY_CONFIG = `{
  "discoveryAddress": "istiod-canary.istio-system:15012",
  "proxyAdminPort": 15999,
  "proxyMetadata": { "ISTIO_META_SIZE": "big", "ISTIO_META_SHAPE": "square", "PLAIN": "kept" }
}`;

/** The settings, and where each that is not a default came from. */
function settings(environment: Record<string, string>, mesh?: string, args: string[] = []) {
  const sources = new SettingsSources(environment, mesh);
  return { sources, ...ZTUNNEL_CONFIG.parse(args, sources.environment, sources.below) };
}

Deno.test("SettingsSources reads ports and metadata of the mesh file (ZT-007)", () => {
  const { config, origins, sources } = settings({}, MESH);
  assertEquals([config.statsPort, config.adminPort, config.readinessPort], [15888, 15099, 15021]);
  assertEquals(origins.statsPort, "proxy config statsPort");
  assertEquals(config.clusterId, "Kubernetes");
  assertEquals(sources.nodeMetadata(), { COLOUR: "red", SHAPE: "round" });
});

Deno.test("SettingsSources prefers flag, variable, PROXY_CONFIG, mesh file in this order, metadata key by key (ZT-007)", () => {
  const environment = {
    PROXY_CONFIG,
    ISTIO_META_SIZE: "huge",
    ISTIO_META_CLUSTER_ID: "c2",
    CLUSTER_ID: "c1",
    AMBIT_STATS_PORT: "15777",
    OTHER: "unseen",
  };
  const { config, sources } = settings(environment, MESH);
  assertEquals([config.statsPort, config.adminPort], [15777, 15999]);
  assertEquals(config.xdsAddress, "istiod-canary.istio-system:15012");
  assertEquals(config.clusterId, "c2");
  assertEquals(sources.nodeMetadata(), {
    COLOUR: "red",
    SHAPE: "square",
    SIZE: "huge",
    PLAIN: "kept",
    CLUSTER_ID: "c2",
  });
  assertEquals(settings(environment, MESH, ["--admin-port=1"]).config.adminPort, 1);
  assertEquals(settings({ CLUSTER_ID: "c1" }).config.clusterId, "c1");
});

Deno.test("SettingsSources takes concurrency for the workers unless ZTUNNEL_WORKER_THREADS is set (ZT-007, ZT-012)", () => {
  const environment = { PROXY_CONFIG: "concurrency: 0" };
  assertEquals(settings(environment).config.workers, { threads: 0 });
  assertEquals(settings({ ...environment, ZTUNNEL_WORKER_THREADS: "40%" }).config.workers, { percent: 40 });
  assertEquals(settings({}).config.workers, undefined);
});

Deno.test("XDS_ADDRESS may be empty, and the cluster's istiod is the default within one (ZT-009)", () => {
  const addresses = (environment: Record<string, string>) => {
    const { config } = settings(environment);
    return [config.xdsAddress, config.caAddress];
  };
  const outside = "https://localhost:15012", inside = "https://istiod.istio-system.svc:15012";
  assertEquals(addresses({}), [outside, outside]);
  assertEquals(addresses({ KUBERNETES_SERVICE_HOST: "10.0.0.1" }), [inside, inside]);
  assertEquals(addresses({ PROXY_CONFIG, XDS_ADDRESS: "", CA_ADDRESS: "" }), ["", outside]);
  assertEquals(addresses({ XDS_ADDRESS: "https://a:1", CA_ADDRESS: "b:2" }), ["https://a:1", "b:2"]);
});

Deno.test("the drain is a little shorter than Kubernetes' grace, unless its deadline is set (ZT section 1)", () => {
  const drain = (environment: Record<string, string>) => settings(environment).config.drainDeadline;
  const seconds = (n: string) => drain({ TERMINATION_GRACE_PERIOD_SECONDS: n });
  assertEquals([seconds("30"), seconds("11"), seconds("10"), seconds("2"), seconds("1"), seconds("0")], [
    25_000,
    6_000,
    9_000,
    1_000,
    1_000,
    1_000,
  ]);
  assertEquals(drain({ TERMINATION_GRACE_PERIOD_SECONDS: "30", CONNECTION_TERMINATION_DEADLINE: "7s" }), 7_000);
  assertEquals(drain({}), 5_000);
});

Deno.test("headers() and nodeMetadata() read XDS_HEADER_, CA_HEADER_ and ISTIO_METAJSON_ (ZT-123, ZT-128, ZT-149)", () => {
  const { sources } = settings({
    XDS_HEADER_Header_Foo: "foo",
    "XDS_HEADER_x-team": "a b",
    CA_HEADER_BAZ: "baz",
    ISTIO_METAJSON_LABELS: `{"app":"ztunnel","n":[1,null]}`,
    ISTIO_META_ZONE: "z",
  });
  assertEquals(sources.headers("xds"), { header_foo: "foo", "x-team": "a b" });
  assertEquals(sources.headers("ca"), { baz: "baz" });
  assertEquals(sources.nodeMetadata(), { LABELS: { app: "ztunnel", n: [1, null] }, ZONE: "z" });
});

Deno.test("what is wrong with a source is told with its name, and nothing starts (ZT-008)", () => {
  const cases: readonly (readonly [environment: Record<string, string>, mesh: string | undefined, told: string])[] = [
    [
      { ZTUNNEL_WORKER_THREADS: "many" },
      undefined,
      "invalid env var ZTUNNEL_WORKER_THREADS=many (is an invalid number)",
    ],
    [{ ZTUNNEL_CPU_LIMIT: "-1" }, undefined, "invalid env var ZTUNNEL_CPU_LIMIT=-1 (must be a positive CPU quantity)"],
    [{ PROXY_MODE: "node" }, undefined, "invalid env var PROXY_MODE=node (is none of shared, dedicated)"],
    [{ SECRET_TTL: "soon" }, undefined, "invalid env var SECRET_TTL=soon (is not a duration"],
    [{ TERMINATION_GRACE_PERIOD_SECONDS: "-1" }, undefined, "invalid env var TERMINATION_GRACE_PERIOD_SECONDS=-1 ("],
    [{ ISTIO_METAJSON_A: "{" }, undefined, "invalid env var ISTIO_METAJSON_A={ ("],
    [{ "XDS_HEADER_a b": "c" }, undefined, "invalid env var XDS_HEADER_a b=c ("],
    [{ XDS_HEADER_A: "b\nc" }, undefined, "invalid env var XDS_HEADER_A="],
    [{ PROXY_CONFIG: "{" }, undefined, "failed parsing proxy config env: "],
    [{ PROXY_CONFIG: "statsPort: 70000" }, undefined, "failed parsing proxy config env: statsPort: is not a whole"],
    [{ PROXY_CONFIG: "proxyMetadata: { A: 1 }" }, undefined, "proxyMetadata.A: is no text: 1"],
    [{}, "defaultConfig: []", "failed parsing mesh config file: defaultConfig: is no object"],
    [{ PROXY_CONFIG: "statsPort: 0" }, undefined, 'proxy config statsPort "0" is not a whole number from 1'],
  ];
  for (const [environment, mesh, told] of cases) {
    const error = assertThrows(() => {
      const { sources } = settings(environment, mesh);
      sources.nodeMetadata();
      sources.headers("xds");
    }, MeshError);
    assertStringIncludes(error.message, told);
    assertEquals(/^AMB0(1|3)/.test(error.code) && error.remedy !== "", true, told);
  }
});

Deno.test("readMeshFile() takes a missing file for none, and refuses one that cannot be read (ZT-007)", () => {
  assertEquals(readMeshFile(`/nonexistent/${MESH_FILE}`), undefined);
  const folder = Deno.makeTempDirSync();
  assertThrows(() => readMeshFile(folder), MeshError, "failed reading mesh config file");
  Deno.removeSync(folder);
  for (const empty of ["", "defaultConfig:", "trustDomain: a"]) {
    assertEquals(settings({}, empty).config.statsPort, 15020);
  }
});

Deno.test("checkServers() refuses what serves nothing, and DNS with on-demand state (ZT-008)", () => {
  checkServers({ proxy: true, dns: false, onDemand: true });
  checkServers({ proxy: false, dns: true, onDemand: false });
  const refused = (settings: Parameters<typeof checkServers>[0]) =>
    assertThrows(() => checkServers(settings), MeshError).message;
  assertEquals(
    refused({ proxy: true, dns: true, onDemand: true }),
    "DNS proxy does not currently support on-demand mode",
  );
  assertEquals(refused({ proxy: false, dns: false, onDemand: false }), "ztunnel run without any servers enabled");
});

Deno.test("dedicatedWorkload() wants namespace, name and service account (ZT-002)", () => {
  assertEquals(dedicatedWorkload("shop/cart-1/cart"), { namespace: "shop", name: "cart-1", serviceAccount: "cart" });
  const refused = (text: string) => assertThrows(() => dedicatedWorkload(text), MeshError).message;
  assertEquals(refused(""), "PROXY_MODE=dedicated requires PROXY_WORKLOAD_INFO to be set");
  for (const text of ["shop", "shop/cart", "shop//cart", "/cart/cart", "shop/cart/", "shop/cart/a/b"]) {
    assertStringIncludes(refused(text), `'namespace/name/service-account' (got ${text})`);
  }
});
