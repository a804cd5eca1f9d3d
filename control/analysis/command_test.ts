/** `ambit analyze` over a folder and over an API server (CP-699). */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { KubeError, KubeUnreachable } from "../../kube/api.ts";
import { AUTHORIZATION_POLICIES, CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, PODS } from "../../kube/resource_types.ts";
import { InMemoryKubeApi } from "../../kube/testing.ts";
import { namespace, pod } from "../cluster/testing.ts";
import { ANALYZE_CONFIG, findingsOf, runAnalyze } from "./command.ts";
import { lineOf } from "./findings.ts";
import { loadCluster } from "./loaded.ts";

const HERE = { systemNamespace: "istio-system", revision: "" };

/** Writes the files to a folder and analyses that. */
async function analyzed(files: Record<string, string>, ...flags: string[]): Promise<{ status: number; text: string }> {
  const folder = await Deno.makeTempDir({ prefix: "analyze-" });
  try {
    for (const [name, text] of Object.entries(files)) await Deno.writeTextFile(`${folder}/${name}`, text);
    const { config } = ANALYZE_CONFIG.parse([`--config-dir=${folder}`, ...flags], () => undefined);
    let text = "";
    const log = new Logger("analyze", { sink: () => {} });
    const status = await runAnalyze(config, { log, write: (more) => text += more });
    return { status, text };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const NAMESPACE = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio.io/use-waypoint: wp}}}";
const POLICY = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: it, namespace: other}
spec: {selector: {matchLabels: {app: x}}}
`;

Deno.test("ambit analyze says what it finds in a folder, and ends with istioctl's status when it is bad enough (CP-699)", async () => {
  const files = { "a.yaml": NAMESPACE, "b.yaml": POLICY };
  const { status, text } = await analyzed(files);
  const error = 'Error [IST0101] (Namespace/shop) Referenced Gateway not found: "shop/wp"\n';
  assertEquals([status, text.slice(0, error.length)], [79, error]);
  assertStringIncludes(text, "Warning [IST0127] (AuthorizationPolicy/other/it)");
  const other = await analyzed(files, "--namespace=other");
  assertEquals([other.status, other.text.includes("shop")], [0, false]);
  assertEquals((await analyzed(files, "--namespace=other", "--failure-threshold=Warning")).status, 79);
  const json = JSON.parse((await analyzed(files, "--output=json")).text);
  assertEquals([json.length, json[0].code, json[0].origin], [2, "IST0101", "Namespace//shop"]);
  assertEquals(await analyzed({}), { status: 0, text: "no issues found\n" });
});

Deno.test("ambit analyze says what the webhook would, and where a file cannot be read (CP-699)", async () => {
  const bad = POLICY.replace("selector: {matchLabels: {app: x}}", "rules: [{from: [{source: {ipBlocks: [nowhere]}}]}]");
  const spelled = POLICY.replace("name: it", "name: two").replace("selector:", "selectr:");
  const { text } = await analyzed({ "a.yaml": `${bad}---${spelled}`, "c.yaml": "a: [" });
  assertStringIncludes(text, "Error [IST0106] (AuthorizationPolicy/other/it) Schema validation error");
  assertStringIncludes(text, "Error [IST0106] (AuthorizationPolicy/other/two) Schema validation error");
  assertStringIncludes(text, "Error [IST0106] (c.yaml) Schema validation error: c.yaml:");
  const unused = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: d, namespace: shop}}";
  assertStringIncludes((await analyzed({ "d.yaml": unused })).text, "Warning [IST0133] (DestinationRule/shop/d)");
});

Deno.test("loadCluster() reads the mesh of an API server, whatever kinds that lacks, and its Gateway API's age (CP-699)", async () => {
  const api = new InMemoryKubeApi();
  api.put(NAMESPACES, namespace("shop"));
  api.put(PODS, pod("shop", "cart", "10.0.0.1"));
  api.put(AUTHORIZATION_POLICIES, {
    metadata: { name: "it", namespace: "shop" },
    spec: { selector: { matchLabels: { app: "nobody" } } },
  });
  const annotations = { "gateway.networking.k8s.io/bundle-version": "v0.8.1" };
  api.put(CUSTOM_RESOURCE_DEFINITIONS, { metadata: { name: "gateways.gateway.networking.k8s.io", annotations } });
  const lines = findingsOf(await loadCluster(api, HERE), HERE).map(lineOf);
  assertEquals(lines.map((line) => line.slice(0, line.indexOf(")") + 1)), [
    "Warning [IST0127] (AuthorizationPolicy/shop/it)",
    "Warning [IST0176] (CustomResourceDefinition/gateways.gateway.networking.k8s.io)",
  ]);
});

Deno.test("loadCluster() says which kind it may not list, or that nobody answers (AMB0831, AMB0841)", async () => {
  const api = new InMemoryKubeApi();
  const list = () => Promise.reject(new KubeError(403, "Forbidden", "pods is forbidden"));
  const error = await assertRejects(() => loadCluster(Object.assign(api, { list }), HERE), MeshError);
  assertEquals([error.code, error.message.includes("namespaces")], ["AMB0831", true]);
  const silent = () => Promise.reject(new KubeUnreachable("asking api.test"));
  const gone = await assertRejects(() => loadCluster(Object.assign(api, { list: silent }), HERE), MeshError);
  assertEquals([gone.code, gone.remedy.includes("--context")], ["AMB0841", true], "rights are not what is missing");
});

Deno.test("ambit analyze says which folder it cannot read (AMB0830)", async () => {
  const { config } = ANALYZE_CONFIG.parse(["--config-dir=/nonexistent"], () => undefined);
  const log = new Logger("analyze", { sink: () => {} });
  const error = await assertRejects(() => runAnalyze(config, { log, write: () => {} }), MeshError, "/nonexistent");
  assertEquals(error.code, "AMB0830");
});

Deno.test("ambit analyze takes files and folders together, and says which cannot be read (CP-699)", async () => {
  const folder = await Deno.makeTempDir({ prefix: "analyze-" });
  const log = new Logger("analyze", { sink: () => {} });
  const lines = async (...paths: string[]) => {
    const { config, operands } = ANALYZE_CONFIG.parse(paths, () => undefined);
    let text = "";
    const status = await runAnalyze(config, { log, write: (more) => text += more, paths: operands });
    return { status, text };
  };
  try {
    await Deno.mkdir(`${folder}/more`);
    await Deno.writeTextFile(`${folder}/one.yaml`, POLICY);
    await Deno.writeTextFile(`${folder}/more/two.yaml`, POLICY.replace("name: it", "name: other"));
    assertEquals(
      (await lines(`${folder}/one.yaml`, `${folder}/more`, "-o", "json")).text.match(
        /AuthorizationPolicy\/other\/(it|other)"/g,
      )?.length,
      2,
    );
    assertStringIncludes((await lines(`${folder}/one.yaml`)).text, "AuthorizationPolicy/other/it");
    await assertRejects(() => lines(`${folder}/one.yaml`, `${folder}/none.yaml`), MeshError, `${folder}/none.yaml`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
