import { assert, assertEquals } from "@std/assert";
import {
  DEFAULT_SELECTORS,
  DEFAULT_SELECTORS_WRITTEN,
  type Enablement,
  isEnabledNamespace,
  parseEnablement,
  type Texts,
  wantsMesh,
} from "./enablement.ts";

const DEFAULT: Enablement = { selectors: DEFAULT_SELECTORS, excludedNamespaces: ["kube-system"] };
const MODE = "istio.io/dataplane-mode";

function mode(value: string | undefined): Texts {
  return value === undefined ? {} : { [MODE]: value };
}

function parsed(selectors: unknown): Enablement {
  const enablement = parseEnablement(selectors, []);
  if ("wrong" in enablement) throw new Error(enablement.wrong);
  return enablement;
}

Deno.test("wantsMesh() follows the pod's label, then its namespace's (CNI-070)", () => {
  const rows: readonly (readonly [pod: string | undefined, namespace: string | undefined, wanted: boolean])[] = [
    [undefined, undefined, false],
    [undefined, "ambient", true],
    [undefined, "none", false],
    ["ambient", undefined, true],
    ["ambient", "none", true],
    ["none", "ambient", false],
    ["other", "ambient", true],
    ["other", undefined, false],
  ];
  for (const [pod, namespace, wanted] of rows) {
    const facts = {
      namespace: "shop",
      namespaceLabels: mode(namespace),
      labels: mode(pod),
      annotations: {},
      hostNetwork: false,
    };
    assertEquals(wantsMesh(facts, DEFAULT), wanted, `${pod} in ${namespace}`);
    // What rules a pod out, whatever its labels.
    assert(!wantsMesh({ ...facts, hostNetwork: true }, DEFAULT));
    assert(!wantsMesh({ ...facts, annotations: { "sidecar.istio.io/status": "" } }, DEFAULT));
    assert(!wantsMesh({ ...facts, namespace: "kube-system" }, DEFAULT));
  }
});

Deno.test("wantsMesh() takes no label from the prototype of an object", () => {
  const enablement = parsed([{ podSelector: { matchExpressions: [{ key: "toString", operator: "Exists" }] } }]);
  const facts = { namespace: "a", namespaceLabels: {}, labels: {}, annotations: {}, hostNetwork: false };
  assert(!wantsMesh(facts, enablement));
});

Deno.test("an empty namespace selector enables no namespace by itself (CNI-071)", () => {
  assert(isEnabledNamespace({ [MODE]: "ambient" }, DEFAULT));
  assert(!isEnabledNamespace({}, DEFAULT));
});

Deno.test("the default selectors are written into the plugin's configuration as what they are (CNI-006, CNI-070)", () => {
  const written = JSON.parse(JSON.stringify(DEFAULT_SELECTORS_WRITTEN));
  assertEquals(parseEnablement(written, []), { selectors: DEFAULT_SELECTORS, excludedNamespaces: [] });
});

Deno.test("parseEnablement() reads label selectors, and says of which kind a bad one should be (CNI-006, CNI-070)", () => {
  const selectors = [{
    podSelector: { matchLabels: { mesh: "on" } },
    namespaceSelector: { matchExpressions: [{ key: "env", operator: "In", values: ["test"] }] },
  }];
  const enablement = parsed(selectors);
  const facts = { namespace: "a", namespaceLabels: { env: "test" }, annotations: {}, hostNetwork: false };
  assert(wantsMesh({ ...facts, labels: { mesh: "on" } }, enablement));
  assert(!wantsMesh({ ...facts, labels: {} }, enablement));
  assertEquals(parseEnablement(undefined, []), { selectors: DEFAULT_SELECTORS, excludedNamespaces: [] });
  const bad: readonly unknown[] = [
    {},
    ["a"],
    [{ podSelector: [] }],
    [{ podSelector: { matchLabels: { a: 1 } } }],
    [{ podSelector: { matchExpressions: [{ key: "a", operator: "In", values: [] }] } }],
    [{ podSelector: { matchExpressions: [{ key: "a", operator: "Exists", values: ["b"] }] } }],
  ];
  for (const value of bad) assert("wrong" in parseEnablement(value, []), JSON.stringify(value));
});
