import { assert, assertEquals } from "@std/assert";
import { parseIdentity, principalOf } from "../../mesh/identity.ts";
import { authorize, type ConnectionFacts } from "../../mesh/policy.ts";
import { AUTHORIZATION_TYPE_URL } from "../../mesh/proto/authorization_codec.ts";
import { MTLS_MODES, type MtlsMode } from "../objects.ts";
import { TestMesh } from "./testing.ts";

const STATIC = "istio-system/istio_converted_static_strict";
const OWN = "shop/converted_peer_authentication_own";
const POD = `
apiVersion: v1
kind: Pod
metadata: { name: cart, namespace: shop, labels: { app: cart } }
spec: {}
status: { podIP: 10.0.0.1 }
`;

function peerAuthentication(namespace: string, name: string, spec: string, metadata = ""): string {
  return `---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: ${name}, namespace: ${namespace}${metadata} }
spec: ${spec}
`;
}

const mesh = (...parts: readonly string[]) => new TestMesh([POD, ...parts].join("\n"));
const references = (it: TestMesh) => it.address("c1//Pod/shop/cart")?.authorizationPolicies ?? [];
const meshMode = (mode: string) => peerAuthentication("istio-system", "mesh", `{ mtls: { mode: ${mode} } }`);
const namespaceMode = (mode: string) => peerAuthentication("shop", "namespace", `{ mtls: { mode: ${mode} } }`);
const own = (mode: string, ports: string) =>
  peerAuthentication(
    "shop",
    "own",
    `{ selector: { matchLabels: { app: cart } }, mtls: { mode: ${mode} }, portLevelMtls: { ${ports} } }`,
  );

const strictFirst = (
  ...ports: number[]
) => [[[{ notPrincipals: ["*"] }], ...ports.map((it) => [{ notDestinationPorts: [it] }])]];
const strictLast = (
  ...ports: number[]
) => [[...ports.map((it) => [{ notDestinationPorts: [it] }]), [{ notPrincipals: ["*"] }]]];
const strictPorts = (...ports: number[]) => ports.map((it) => [[{ notPrincipals: ["*"], destinationPorts: [it] }]]);

/** The rows of CP-352, in their order: what stands around and in the workload's PeerAuthentication, and what comes of it. */
const ROWS: readonly { what: string; yaml: string; rules: unknown; references: readonly string[] }[] = [
  {
    what: "STRICT, all ports STRICT",
    yaml: own("STRICT", "80: { mode: STRICT }"),
    rules: undefined,
    references: [STATIC],
  },
  {
    what: "STRICT, some PERMISSIVE or DISABLE",
    yaml: own("STRICT", "9000: { mode: DISABLE }, 80: { mode: PERMISSIVE }, 81: { mode: STRICT }"),
    rules: strictFirst(80, 9000),
    references: [OWN],
  },
  {
    what: "PERMISSIVE, some STRICT",
    yaml: own("PERMISSIVE", "9000: { mode: STRICT }, 80: { mode: STRICT }, 81: { mode: DISABLE }"),
    rules: strictPorts(80, 9000),
    references: [OWN],
  },
  {
    what: "DISABLE, some STRICT",
    yaml: own("DISABLE", "80: { mode: STRICT }"),
    rules: strictPorts(80),
    references: [OWN],
  },
  {
    what: "PERMISSIVE, none STRICT",
    yaml: own("PERMISSIVE", "80: { mode: DISABLE }"),
    rules: undefined,
    references: [],
  },
  {
    what: "UNSET under a STRICT parent, some PERMISSIVE",
    yaml: namespaceMode("STRICT") + own("UNSET", "81: { mode: PERMISSIVE }, 80: { mode: PERMISSIVE }"),
    rules: strictLast(80, 81),
    references: [OWN],
  },
  {
    what: "UNSET under a STRICT parent, DISABLE only (CP-354)",
    yaml: meshMode("STRICT") + own("UNSET", "80: { mode: DISABLE }"),
    rules: strictLast(80),
    references: [OWN],
  },
  {
    what: "UNSET under a STRICT parent, only STRICT",
    yaml: meshMode("STRICT") + own("UNSET", "80: { mode: STRICT }"),
    rules: undefined,
    references: [STATIC],
  },
  {
    what: "UNSET under a parent that is not STRICT, some STRICT",
    yaml: meshMode("STRICT") + namespaceMode("PERMISSIVE") + own("UNSET", "80: { mode: STRICT }"),
    rules: strictPorts(80),
    references: [OWN],
  },
  {
    what: "mesh STRICT, namespace UNSET, workload UNSET with a PERMISSIVE port (CP-355)",
    yaml: meshMode("STRICT") + namespaceMode("UNSET") + own("UNSET", "80: { mode: PERMISSIVE }"),
    rules: strictLast(80),
    references: [OWN],
  },
  {
    what: "ports UNSET are skipped (CP-353)",
    yaml: own("STRICT", "80: { mode: UNSET }"),
    rules: undefined,
    references: [STATIC],
  },
];

for (const row of ROWS) {
  Deno.test(`convertPeerAuthentication(): ${row.what} (CP-352)`, () => {
    const it = mesh(row.yaml);
    assertEquals(it.get(AUTHORIZATION_TYPE_URL, OWN)?.rules, row.rules as undefined);
    assertEquals(references(it), row.references);
    assertEquals(
      it.get(AUTHORIZATION_TYPE_URL, STATIC)?.rules,
      strictFirst() as never,
      "the static policy is always there",
    );
  });
}

Deno.test("staticStrictPolicy() comes with the first PeerAuthentication and goes with the last (CP-350)", () => {
  const it = mesh();
  assertEquals(it.set(namespaceMode("PERMISSIVE")), [`+${STATIC}`]);
  assertEquals(it.get(AUTHORIZATION_TYPE_URL, STATIC), {
    name: "istio_converted_static_strict",
    namespace: "istio-system",
    scope: "WORKLOAD_SELECTOR",
    action: "DENY",
    dryRun: false,
    rules: [[[{ notPrincipals: ["*"] }]]],
  });
  assertEquals(it.remove("PeerAuthentication/shop/namespace"), [`-${STATIC}`]);
});

Deno.test("peerAuthenticationReferences(): workload before namespace before mesh; UNSET inherits (CP-351)", () => {
  const workloadMode = (mode: string) =>
    peerAuthentication("shop", "workload", `{ selector: { matchLabels: { app: cart } }, mtls: { mode: ${mode} } }`);
  assertEquals(references(mesh(meshMode("STRICT"))), [STATIC]);
  assertEquals(references(mesh(meshMode("STRICT"), namespaceMode("PERMISSIVE"))), []);
  assertEquals(references(mesh(meshMode("STRICT"), namespaceMode("UNSET"))), [STATIC]);
  assertEquals(references(mesh(meshMode("PERMISSIVE"), namespaceMode("STRICT"))), [STATIC]);
  assertEquals(references(mesh(namespaceMode("STRICT"), workloadMode("PERMISSIVE"))), []);
  assertEquals(references(mesh(namespaceMode("STRICT"), workloadMode("UNSET"))), [STATIC]);
  assertEquals(references(mesh(namespaceMode("PERMISSIVE"), workloadMode("STRICT"))), [STATIC]);
  assertEquals(references(mesh(namespaceMode("DISABLE"))), []);
  assertEquals(references(mesh()), []);
});

Deno.test("peerAuthenticationReferences(): the oldest counts, then the first by name; selectors in the root namespace do not (CP-351)", () => {
  const at = (name: string, mode: string, year: number) =>
    peerAuthentication("shop", name, `{ mtls: { mode: ${mode} } }`, `, creationTimestamp: "${year}-01-01T00:00:00Z"`);
  assertEquals(references(mesh(at("a", "PERMISSIVE", 2026), at("b", "STRICT", 2025))), [STATIC]);
  assertEquals(references(mesh(at("b", "PERMISSIVE", 2025), at("a", "STRICT", 2025))), [STATIC]);
  const inRoot = peerAuthentication(
    "istio-system",
    "picky",
    "{ selector: { matchLabels: { app: cart } }, mtls: { mode: STRICT } }",
  );
  assertEquals(references(mesh(inRoot)), []);
});

Deno.test("a change of a namespace's or the mesh's PeerAuthentication converts those under it anew (CP-353)", () => {
  const it = mesh(meshMode("STRICT"), own("UNSET", "80: { mode: PERMISSIVE }"));
  assertEquals(references(it), [OWN]);
  assertEquals(it.set(meshMode("PERMISSIVE")), ["+c1//Pod/shop/cart", `-${OWN}`]);
  assertEquals(references(it), []);
  assertEquals(it.set(namespaceMode("STRICT")), [`+${OWN}`, "+c1//Pod/shop/cart"]);
});

Deno.test("converted PeerAuthentications, as evaluated, let plaintext in just where the modes say, for every combination (CP-351 to CP-355)", () => {
  const identity = parseIdentity("spiffe://cluster.local/ns/a/sa/b")!;
  const facts = (mtls: boolean, destinationPort: number): ConnectionFacts => ({
    identity: mtls ? identity : undefined,
    principal: mtls ? principalOf(identity) : undefined,
    source0: 0,
    source1: 0,
    source2: 0xffff,
    source3: 1,
    destination0: 0,
    destination1: 0,
    destination2: 0xffff,
    destination3: 2,
    destinationPort,
  });
  const firstSet = (...modes: readonly MtlsMode[]) => modes.find((mode) => mode !== "UNSET") ?? "PERMISSIVE";
  let combinations = 0;
  for (const ofMesh of MTLS_MODES) {
    for (const ofNamespace of MTLS_MODES) {
      for (const ofWorkload of MTLS_MODES) {
        for (const of80 of MTLS_MODES) {
          for (const of81 of MTLS_MODES) {
            const it = mesh(
              meshMode(ofMesh),
              namespaceMode(ofNamespace),
              own(ofWorkload, `80: { mode: ${of80} }, 81: { mode: ${of81} }`),
            );
            const { policies, workloads } = it.index.graph;
            const keys = workloads.get("c1//Pod/shop/cart")!.authorizationPolicies;
            const enforced = keys.map((key) => policies.get(key)!);
            assert(enforced.every((policy) => policy !== undefined), "no reference dangles");
            for (const port of [80, 81, 82]) {
              const inherited = [ofWorkload, ofNamespace, ofMesh];
              const mode = port === 82 ? firstSet(...inherited) : firstSet(port === 80 ? of80 : of81, ...inherited);
              const label = `${ofMesh} ${ofNamespace} ${ofWorkload} ${of80} ${of81} on ${port}`;
              assertEquals(authorize(enforced, facts(false, port)).allowed, mode !== "STRICT", label);
              assertEquals(authorize(enforced, facts(true, port)).allowed, true, label);
              combinations++;
            }
          }
        }
      }
    }
  }
  assertEquals(combinations, 4 ** 5 * 3);
});
