/** The trust bundle in the namespaces of a cluster. */
import { assert, assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { KubeError } from "../../kube/api.ts";
import { CLUSTER_TRUST_BUNDLES, CONFIG_MAPS, NAMESPACES } from "../../kube/resource_types.ts";
import { InMemoryKubeApi } from "../../kube/testing.ts";
import { Metrics } from "../../base/metrics.ts";
import type { Labels } from "../objects.ts";
import { ControllerMetrics } from "../status/controller_metrics.ts";
import { BundleDistributor } from "./bundle_distributor.ts";
import { keepClusterTrustBundle } from "./cluster_trust_bundle.ts";
import { TrustBundle } from "./trust_bundle.ts";

const ROOT = "istio-ca-root-cert", CRL = "istio-ca-crl";

/** A leader at work; dispose it to end its term. */
class Rig implements AsyncDisposable {
  readonly api = new InMemoryKubeApi();
  readonly bundle = new TrustBundle({ rootsPem: "roots 1", revocationsPem: "" });
  readonly lines: string[] = [];
  selects: (labels: Labels) => boolean = () => true;
  selectorsChanged: () => void = () => {};
  readonly #stop = new AbortController();
  #done: Promise<void> = Promise.resolve();

  namespace(name: string, part: object = {}): void {
    this.api.put(NAMESPACES, { metadata: { name }, ...part });
  }

  lead({ revocations = true } = {}): void {
    const log = new Logger("ca", { sink: (line) => this.lines.push(line) });
    this.#done = new BundleDistributor({
      api: this.api,
      bundle: this.bundle,
      selects: (labels) => this.selects(labels),
      onSelectors: (listener) => {
        this.selectorsChanged = listener;
        return () => void (this.selectorsChanged = () => {});
      },
      revocations,
      metrics: new ControllerMetrics(new Metrics()),
      log,
    }).run(this.#stop.signal);
  }

  /** What each namespace holds: `namespace/map=text`. */
  held(name = ROOT): string[] {
    const maps = this.api.objects(CONFIG_MAPS).filter(({ metadata }) => metadata.name === name);
    return maps.map(({ metadata, data }) => `${metadata.namespace}=${Object.values(data as object).join("+")}`).sort();
  }

  /** Polls until that is what they hold. */
  async holds(expected: string[], name = ROOT): Promise<void> {
    const deadlineMs = performance.now() + 60_000;
    while (JSON.stringify(this.held(name)) !== JSON.stringify(expected)) {
      if (performance.now() > deadlineMs) assertEquals(this.held(name), expected, this.lines.join("\n"));
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  writes(): number {
    return this.api.calls.filter(({ verb }) => verb === "create" || verb === "replace").length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#done;
    assertEquals(this.api.watching(CONFIG_MAPS), 0, "nothing is watched after its term");
  }
}

Deno.test("BundleDistributor writes the roots into every namespace, those to come too, and leaves some of Kubernetes' own out (CP-510)", async () => {
  await using rig = new Rig();
  for (const name of ["shop", "kube-system", "kube-public", "kube-node-lease", "local-path-storage"]) {
    rig.namespace(name);
  }
  rig.namespace("ending", { metadata: { name: "ending", deletionTimestamp: "2026-01-31T12:00:00Z" } });
  rig.lead();
  await rig.holds(["kube-system=roots 1", "shop=roots 1"]);
  const made = rig.api.object(CONFIG_MAPS, "shop", ROOT)!;
  assertEquals([made.data, made.metadata.labels], [{ "root-cert.pem": "roots 1" }, { "istio.io/config": "true" }]);
  rig.namespace("late");
  await rig.holds(["kube-system=roots 1", "late=roots 1", "shop=roots 1"]);
  assertEquals([rig.held(CRL), rig.writes()], [[], 3], "no list, no ConfigMap for it");
});

Deno.test("BundleDistributor heals what is removed or edited, and leaves what is not ours (CP-510)", async () => {
  await using rig = new Rig();
  rig.namespace("shop");
  const theirs = { metadata: { name: ROOT, namespace: "shop", labels: { mine: "1" } }, data: { other: "kept" } };
  rig.api.put(CONFIG_MAPS, theirs);
  rig.lead();
  await rig.holds(["shop=kept+roots 1"]);
  assertEquals(rig.api.object(CONFIG_MAPS, "shop", ROOT)!.metadata.labels, { mine: "1", "istio.io/config": "true" });
  rig.api.put(CONFIG_MAPS, { ...theirs, data: { "root-cert.pem": "forged" } });
  await rig.holds(["shop=roots 1"]);
  rig.api.remove(CONFIG_MAPS, "shop", ROOT);
  await rig.holds(["shop=roots 1"]);
});

Deno.test("BundleDistributor writes a new bundle everywhere, and revocation lists once there are any (CP-505, CP-511)", async () => {
  await using rig = new Rig();
  for (const name of ["a", "b"]) rig.namespace(name);
  rig.lead();
  await rig.holds(["a=roots 1", "b=roots 1"]);
  rig.bundle.set({ rootsPem: "roots 2" });
  await rig.holds(["a=roots 2", "b=roots 2"]);
  rig.bundle.set({ revocationsPem: "list" });
  await rig.holds(["a=list", "b=list"], CRL);
  assertEquals(rig.api.object(CONFIG_MAPS, "a", CRL)!.data, { "ca-crl.pem": "list" });
  rig.api.remove(CONFIG_MAPS, "a", CRL);
  await rig.holds(["a=list", "b=list"], CRL);
  rig.bundle.set({ revocationsPem: "" });
  await rig.holds(["a=", "b="], CRL);
  await using without = new Rig();
  without.bundle.set({ revocationsPem: "list" });
  without.namespace("a");
  without.lead({ revocations: false });
  await without.holds(["a=roots 1"]);
  assertEquals(without.held(CRL), []);
});

Deno.test("BundleDistributor keeps to the discovery selectors, as they are now (CP-510)", async () => {
  await using rig = new Rig();
  rig.selects = (labels) => labels.get("mesh") === "on";
  rig.namespace("in", { metadata: { name: "in", labels: { mesh: "on" } } });
  rig.namespace("out");
  rig.lead();
  await rig.holds(["in=roots 1"]);
  rig.namespace("out", { metadata: { name: "out", labels: { mesh: "on" } } });
  await rig.holds(["in=roots 1", "out=roots 1"]);
  rig.namespace("third");
  rig.selects = () => true;
  rig.selectorsChanged();
  await rig.holds(["in=roots 1", "out=roots 1", "third=roots 1"]);
});

Deno.test("BundleDistributor is quiet where it may not write, and comes back where another was quicker (CP-510)", async () => {
  await using rig = new Rig();
  for (const name of ["shut", "shop"]) rig.namespace(name);
  rig.api.admit((verb, type, object) =>
    verb === "create" && type === CONFIG_MAPS && object.metadata.namespace === "shut"
      ? new KubeError(403, "Forbidden", "namespace shut is being terminated")
      : undefined
  );
  rig.api.fail(new KubeError(409, "AlreadyExists", "quicker"), { verb: "create", type: CONFIG_MAPS });
  rig.lead();
  await rig.holds(["shop=roots 1"]);
  rig.bundle.set({ rootsPem: "roots 2" });
  await rig.holds(["shop=roots 2"]);
  assertEquals(rig.lines.filter((line) => line.includes("not written")).length, 1, rig.lines.join("\n"));
  assert(!rig.lines.some((line) => line.includes("\terror\t")));
});

Deno.test("keepClusterTrustBundle() makes the object, heals it and follows the roots (CP-512)", async () => {
  const api = new InMemoryKubeApi(), bundle = new TrustBundle({ rootsPem: "roots 1", revocationsPem: "" });
  const stop = new AbortController(), metrics = new ControllerMetrics(new Metrics());
  const log = new Logger("ca", { sink: () => {} });
  const done = keepClusterTrustBundle({ api, bundle, metrics, log }, stop.signal);
  const holds = async (trustBundle: string) => {
    const expected = { signerName: "istio.io/istiod-ca", trustBundle };
    const spec = () => api.object(CLUSTER_TRUST_BUNDLES, "", "istio.io:istiod-ca:root-cert")?.spec;
    const deadlineMs = performance.now() + 60_000;
    while (JSON.stringify(spec()) !== JSON.stringify(expected)) {
      if (performance.now() > deadlineMs) assertEquals(spec(), expected);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  };
  await holds("roots 1");
  bundle.set({ rootsPem: "roots 2" });
  await holds("roots 2");
  api.remove(CLUSTER_TRUST_BUNDLES, "", "istio.io:istiod-ca:root-cert");
  await holds("roots 2");
  stop.abort();
  await done;
});
