/** What holds for any stream, whatever else is asked on it. */
import { assert, assertEquals } from "@std/assert";
import { AUTHORIZATION_TYPE_URL } from "../../mesh/proto/authorization_codec.ts";
import {
  decodeDeltaDiscoveryRequest,
  type DeltaDiscoveryRequest,
  encodeDeltaDiscoveryRequest,
  REQUEST_BYTES_MAX,
} from "../../mesh/proto/discovery_codec.ts";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { TestMesh } from "../ambient/testing.ts";
import { ServedView } from "./served_view.ts";
import { DeltaSession } from "./session.ts";

function pod(name: string, node: string, ip: string, labels = "app: a"): string {
  return `
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: shop, labels: { ${labels} } }
spec: { nodeName: ${node} }
status: { podIP: ${ip} }
---`;
}

const POLICY = (name: string) => `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ${name}, namespace: shop }
spec: { rules: [{}] }
---`;

/** A stream to the node n1's proxy, over a mesh of two nodes. */
class Rig {
  readonly mesh = new TestMesh(pod("one", "n1", "10.0.0.1") + pod("two", "n2", "10.0.0.2") + POLICY("p1"));
  readonly session: DeltaSession;
  #nonces = 0;

  constructor() {
    const view = new ServedView(this.mesh.index);
    this.session = new DeltaSession({ view, nextNonce: () => `n${++this.#nonces}`, node: "n1" });
    this.mesh.index.subscribe((change) => this.session.push(change));
  }

  ask(typeUrl: string, versions: ReadonlyMap<string, string> = new Map(), responseNonce = ""): void {
    const none: readonly string[] = [];
    this.session.receive({
      typeUrl,
      resourceNamesSubscribe: none,
      resourceNamesUnsubscribe: none,
      initialResourceVersions: versions,
      responseNonce,
    } as DeltaDiscoveryRequest);
  }

  /** The next response, acknowledged. */
  next() {
    const out = this.session.next();
    if (out !== undefined) this.ask(out.typeUrl, undefined, out.nonce);
    return out;
  }
}

Deno.test("each type of a stream has its own watch, and each response a nonce of its own (CP-403, CP-412)", () => {
  const rig = new Rig();
  rig.ask(ADDRESS_TYPE_URL);
  rig.ask(AUTHORIZATION_TYPE_URL);
  const answers = [rig.next(), rig.next()];
  assertEquals(new Set(answers.map((it) => it!.typeUrl)), new Set([ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL]));
  assertEquals(new Set(answers.map((it) => it!.nonce)).size, 2);
  rig.mesh.set(POLICY("p2"));
  assertEquals(rig.next()!.typeUrl, AUTHORIZATION_TYPE_URL);
  assertEquals(rig.next(), undefined);
});

Deno.test("a node's proxy that asks for all gets the whole mesh, and no name of it is kept for it (CP-417, CP-432)", () => {
  const rig = new Rig();
  rig.ask(ADDRESS_TYPE_URL);
  assertEquals(
    rig.next()!.resources.map(({ name }) => name).sort(),
    [
      "Kubernetes//Pod/shop/one",
      "Kubernetes//Pod/shop/two",
    ].map((name) => name.replace("Kubernetes", "c1")),
  );
  rig.mesh.set(pod("three", "n3", "10.0.0.3"));
  rig.next();
  assertEquals(rig.session.status().map(({ names }) => names), [0]);
});

Deno.test("a policy that a client holds in its version is not sent again (CP-425)", () => {
  const first = new Rig();
  first.ask(AUTHORIZATION_TYPE_URL);
  const held = new Map(first.next()!.resources.map(({ name, version }) => [name, version]));
  assert([...held.values()].every((version) => version !== ""));
  const again = new Rig();
  again.mesh.set(POLICY("p2"));
  again.ask(AUTHORIZATION_TYPE_URL, new Map([...held, ["shop/gone", "1"]]));
  const answer = again.next()!;
  assertEquals([answer.resources.map(({ name }) => name), answer.removed], [["shop/p2"], ["shop/gone"]]);
});

Deno.test("what changes before, between and after a stream's first answers reaches it (CP-445)", () => {
  const rig = new Rig();
  rig.mesh.set(pod("one", "n1", "10.0.0.11")); // Before anything was asked.
  rig.ask(ADDRESS_TYPE_URL);
  rig.mesh.set(pod("two", "n2", "10.0.0.12")); // Asked, and not answered.
  const seen = new Map<string, string>();
  const take = () => {
    for (let out = rig.next(); out !== undefined; out = rig.next()) {
      for (const { name, version } of out.resources) seen.set(name, version);
      for (const name of out.removed) seen.delete(name);
    }
  };
  take();
  rig.mesh.set(pod("three", "n3", "10.0.0.13"));
  rig.mesh.remove("Pod/shop/one");
  take();
  const now = [...rig.mesh.index.all(ADDRESS_TYPE_URL)].map(({ name, version }) => [name, version] as const);
  assertEquals(seen, new Map(now));
});

Deno.test("a reconnect that names a mesh of 150,000 with versions is under what is taken (CP-452)", () => {
  const versions = new Map(
    Array.from(
      { length: 150_000 },
      (_, at) => [`Kubernetes//Pod/namespace-${at % 500}/workload-${at}-7d9c-x2x4z`, "0123456789abcdef"],
    ),
  );
  const bytes = encodeDeltaDiscoveryRequest({
    typeUrl: ADDRESS_TYPE_URL,
    resourceNamesSubscribe: [],
    resourceNamesUnsubscribe: [],
    initialResourceVersions: versions,
    responseNonce: "",
  } as DeltaDiscoveryRequest);
  assert(bytes.length > 4 * 1024 * 1024 && bytes.length < REQUEST_BYTES_MAX / 4, `${bytes.length} bytes`);
  assertEquals(decodeDeltaDiscoveryRequest(bytes).initialResourceVersions.size, versions.size);
});
