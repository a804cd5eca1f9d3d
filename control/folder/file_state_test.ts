import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { EMPTY_FILE, FILE_BYTES_MAX, type FileState, readFileState } from "./file_state.ts";
import { pod } from "./testing.ts";

function read(text: string | Uint8Array, file = "f.yaml", previous: FileState = EMPTY_FILE): FileState {
  return readFileState(file, typeof text === "string" ? new TextEncoder().encode(text) : text, previous);
}

/** `line field: reason` of the only refusal. */
function refusalOf(text: string, file?: string): string {
  const { refusals: [refusal, ...others] } = read(text, file);
  assertEquals(others, []);
  return refusal === undefined ? "accepted" : `${refusal.line} ${refusal.field}: ${refusal.reason}`;
}

const repeat = (count: number, text: (at: number) => string) =>
  Array.from({ length: count }, (_, at) => text(at)).join("");
const bomb = (open: string, item: (name: string) => string, close: string) =>
  `kind: Pod\na0: &a0 ${open}x: y${close}\n`.replace("x: y", item("y")) +
  repeat(
    30,
    (at) =>
      `a${at + 1}: &a${at + 1} ${open}${repeat(9, (it) => item(`*a${at}`).replace("k", `k${it}`) + ", ")}${close}\n`,
  );

/** Texts made to exhaust a reader. None may take long, or be accepted. */
const HOSTILE: readonly (readonly [name: string, text: string | Uint8Array, reason: string])[] = [
  ["flow lists nested without end", "[".repeat(1_000_000), "nested too deeply"],
  ["flow maps nested without end", "{a: ".repeat(500_000), "nested too deeply"],
  ["block lists nested without end", "- ".repeat(500_000), "nested too deeply"],
  ["complex keys nested without end", "? ".repeat(500_000), "nested too deeply"],
  [
    "nesting that parses but is too deep",
    `kind: Pod\na: ${"[".repeat(200)}${"]".repeat(200)}`,
    "nested deeper than 64 levels",
  ],
  ["aliases that multiply in lists", bomb("[", (name) => name, "]"), "values once its aliases are expanded"],
  ["aliases that multiply in maps", bomb("{", (name) => `k: ${name}`, "}"), "values once its aliases are expanded"],
  ["an alias within itself", "kind: Pod\na: &a\n  b: *a\n", "nested deeper than 64 levels"],
  ["a key that is a nest of aliases", `${bomb("[", (name) => name, "]")}? *a30\n: x\n`, ""],
  [
    "merge keys",
    `base: &b { ${repeat(5_000, (at) => `k${at}: 1, `)} }\n${repeat(5_000, (at) => `m${at}: { <<: *b }\n`)}`,
    "merge key",
  ],
  ["tags of other languages", "kind: !!js/function 'x'\n", "unknown tag"],
  ["not UTF-8", Uint8Array.of(0x6b, 0x3a, 0x20, 0xff, 0xfe), "is not UTF-8 text"],
  ["UTF-16", Uint8Array.of(0xff, 0xfe, 0x6b, 0, 0x3a, 0), "is not UTF-8 text"],
  ["NUL bytes", "kind: \0\0\0", "end of the stream"],
  ["too large", new Uint8Array(FILE_BYTES_MAX + 1).fill(0x20), "is larger than"],
  [
    "a scalar that fills the file",
    `apiVersion: v1\nkind: Pod\nmetadata:\n  name: ${"x".repeat(3_000_000)}\n`,
    "must be 1 to 253",
  ],
  ["documents without end", "--- a\n".repeat(100_000), "holds more than 20000 documents"],
  ["directives without end", `${"%A\n".repeat(500_000)}`, ""],
  ["an unended quote", `kind: "${"x\n ".repeat(500_000)}`, "double quoted scalar"],
  ["nothing", "", "is empty"],
  ["blanks", " \n\n", "is empty"],
];

for (const [name, text, reason] of HOSTILE) {
  Deno.test(`readFileState() refuses hostile text in bounded time and keeps what was there: ${name}`, () => {
    const previous = read(pod("a")), startMs = performance.now();
    const { held, refusals } = read(text, "f.yaml", previous);
    const tookMs = performance.now() - startMs;
    assert(tookMs < 30_000, `took ${tookMs} ms`);
    assertEquals(held.size, name.startsWith("directives") ? 0 : 1);
    if (reason !== "") assertStringIncludes(refusals[0]?.reason ?? "accepted", reason);
    assert(refusals.length <= 100 && refusals.every((it) => it.reason.length < 400), "refusals are short and few");
  });
}

Deno.test("readFileState() refuses hostile JSON too", () => {
  assertStringIncludes(refusalOf("[".repeat(1_000_000), "f.json"), "");
  assertStringIncludes(
    refusalOf(`{"kind": ${"[".repeat(100)}${"]".repeat(100)}}`, "f.json"),
    "nested deeper than 64 levels",
  );
  assertStringIncludes(refusalOf('{\n "kind": "Pod",\n "a": oops\n}', "f.json"), "3 : ");
});

Deno.test("readFileState() takes keys named as parts of objects for what they are", () => {
  const { held, refusals } = read(
    `apiVersion: v1\nkind: Namespace\nmetadata:\n  name: n\n  labels: { __proto__: p, constructor: c }\n`,
  );
  assertEquals(refusals, []);
  const labels = held.get("Namespace//n")?.object.meta.labels;
  assertEquals([labels?.get("__proto__"), labels?.get("constructor"), labels?.get("toString")], ["p", "c", undefined]);
  assertEquals(refusalOf("apiVersion: v1\nkind: constructor\n"), "accepted", "a kind that is no kind of ours");
});

const metadata = "metadata: { name: x, namespace: n }";
const of = (apiVersion: string, kind: string) => (rest: string) => `apiVersion: ${apiVersion}\nkind: ${kind}\n${rest}`;
const aPod = of("v1", "Pod"), aService = of("v1", "Service"), aSlice = of("discovery.k8s.io/v1", "EndpointSlice");
const anEntry = of("networking.istio.io/v1", "ServiceEntry"), aWorkload = of("networking.istio.io/v1", "WorkloadEntry");
const aPolicy = of("security.istio.io/v1", "AuthorizationPolicy"),
  aPeer = of("security.istio.io/v1", "PeerAuthentication");

/** A document, and the beginning of what is said of it: line, field, reason. */
const REFUSED: readonly (readonly [text: string, said: string])[] = [
  ["just text", "1 (document): must be a map"],
  ["- a\n- b\n", "1 (document): must be a map, is a list"],
  ["kind: Pod\n", "1 apiVersion: is required"],
  ["apiVersion: v1\n", "1 kind: is required"],
  ["apiVersion: v1\nkind: 7\n", "2 kind: must be a string, is number 7"],
  [aPod("spec: {}"), "1 metadata: is required"],
  [aPod("metadata:\n  namespace: n\n"), "3 metadata.name: is required"],
  [aPod("metadata:\n  name: Upper\n"), "4 metadata.name: must be 1 to 253 lower-case"],
  [aPod("metadata:\n  name: x\n  namespace: a.b\n"), "5 metadata.namespace: must be 1 to 63"],
  [of("v1", "Node")("metadata:\n  name: x\n  namespace: n\n"), "5 metadata.namespace: must be absent"],
  [
    aPod("metadata:\n  name: x\n  labels:\n    a: 1\nspec: {}\n"),
    "6 metadata.labels.a: must be a string, is number 1; put it in quotes",
  ],
  [
    aPod("metadata:\n  name: x\n  labels:\n    app.kubernetes.io/name: true\nspec: {}\n"),
    '6 metadata.labels["app.kubernetes.io/name"]: must be',
  ],
  [
    aPod("metadata:\n  name: x\n  creationTimestamp: yesterday\nspec: {}\n"),
    "5 metadata.creationTimestamp: must be a time",
  ],
  [aPod(metadata), "1 spec: is required"],
  [aPod(`${metadata}\nspec:\n  hostNetwork: "yes"\n`), "5 spec.hostNetwork: must be true or false"],
  [
    aPod(`${metadata}\nspec: {}\nstatus:\n  podIPs:\n  - ip: 10.0.0.1\n  - ip: 10.0.0.999\n`),
    "8 status.podIPs[1].ip: must be an IPv4 or IPv6 address",
  ],
  [
    aPod(
      `${metadata}\nspec:\n  containers:\n    - name: c\n      ports:\n        - name: p\n          containerPort: 70000\n`,
    ),
    "9 spec.containers[0].ports[0].containerPort: must be a whole number of 1 to 65535",
  ],
  [aPod(`${metadata}\nspec: {}\nstatus: { phase: Sleeping }\n`), "5 status.phase: must be one of"],
  [aService(`${metadata}\nspec:\n  clusterIP: 10.0.0\n`), "5 spec.clusterIP: must be an IPv4"],
  [
    aService(`${metadata}\nspec:\n  ports:\n  - port: 80\n  - port: 0\n`),
    "7 spec.ports[1].port: must be a whole number",
  ],
  [
    aService(`${metadata}\nspec:\n  ports:\n  - port: 80\n    protocol: tcp\n`),
    "7 spec.ports[0].protocol: must be one of TCP, UDP, SCTP",
  ],
  [aService(`${metadata}\nspec:\n  ipFamilies:\n  - ipv4\n`), "6 spec.ipFamilies[0]: must be one of"],
  [aSlice(metadata), "1 addressType: is required"],
  [
    aSlice(`${metadata}\naddressType: IPv4\nendpoints:\n- addresses: []\n`),
    "6 endpoints[0].addresses: must hold at least one address",
  ],
  [aWorkload(`${metadata}\nspec:\n  address: unix:///run/x\n`), "5 spec.address: must not be a Unix domain socket"],
  [aWorkload(`${metadata}\nspec:\n  weight: 1\n`), "4 spec.address: is required unless a network is set"],
  [anEntry(`${metadata}\nspec:\n  hosts: []\n`), "5 spec.hosts: must hold at least one host"],
  [anEntry(`${metadata}\nspec:\n  hosts:\n  - "a*b.com"\n`), "6 spec.hosts[0]: must be a DNS name"],
  [
    anEntry(`${metadata}\nspec:\n  hosts: [a.com]\n  resolution: GUESS\n`),
    "6 spec.resolution: must be one of NONE, STATIC",
  ],
  [
    anEntry(`${metadata}\nspec:\n  hosts: [a.com]\n  addresses: [10.0.0.0/40]\n`),
    "6 spec.addresses[0]: must be an IP address or a prefix",
  ],
  [
    anEntry(`${metadata}\nspec:\n  hosts: [a.com]\n  workloadSelector: {}\n  endpoints: [{ address: 1.1.1.1 }]\n`),
    "7 spec.endpoints: must be absent when",
  ],
  [aPolicy(`${metadata}\nspec:\n  action: allow\n`), "5 spec.action: must be one of ALLOW, DENY, AUDIT, CUSTOM"],
  [aPolicy(`${metadata}\nspec:\n  rule: []\n`), "5 spec.rule: is not a field known here"],
  [
    aPolicy(`${metadata}\nspec:\n  rules:\n  - form:\n    - source: { namespaces: [a] }\n`),
    "6 spec.rules[0].form: is not a field known here",
  ],
  [aPolicy(`${metadata}\nspec:\n  rules:\n  - from:\n`), "6 spec.rules[0].from: has no value"],
  [aPolicy(`${metadata}\nspec:\n  rules:\n`), "5 spec.rules: has no value"],
  [aPolicy(`${metadata}\nspec:\n  rules:\n  - from: []\n`), "6 spec.rules[0].from: must hold at least one entry"],
  [
    aPolicy(`${metadata}\nspec:\n  rules:\n  - from:\n    - source: {}\n`),
    "7 spec.rules[0].from[0].source: must hold at least one field",
  ],
  [
    aPolicy(`${metadata}\nspec:\n  rules:\n  - from:\n    - source:\n        namespaces: []\n`),
    "8 spec.rules[0].from[0].source.namespaces: must hold at least one value",
  ],
  [
    aPolicy(`${metadata}\nspec:\n  rules:\n  - to:\n    - operation:\n        ports: [80]\n`),
    "8 spec.rules[0].to[0].operation.ports[0]: must be a string, is number 80; put it in quotes",
  ],
  [
    aPolicy(`${metadata}\nspec:\n  rules:\n  - to:\n    - operation:\n        ports: ["http"]\n`),
    "8 spec.rules[0].to[0].operation.ports[0]: must be a port",
  ],
  [
    aPolicy(`${metadata}\nspec:\n  rules:\n  - from:\n    - source:\n        ipBlocks:\n        - 10.0.0.0/33\n`),
    "9 spec.rules[0].from[0].source.ipBlocks[0]: must be an IP address or a prefix",
  ],
  [
    aPolicy(`${metadata}\nspec:\n  rules:\n  - when:\n    - key: source.ip\n      values: [here]\n`),
    "8 spec.rules[0].when[0].values[0]: must be an IP address",
  ],
  [
    aPolicy(`${metadata}\nspec:\n  rules:\n  - when:\n    - key: source.ip\n`),
    "7 spec.rules[0].when[0]: must have values or notValues",
  ],
  [
    aPolicy(`${metadata}\nspec:\n  selector: {}\n  targetRef: { kind: Service, name: s }\n`),
    "5 spec.selector: must be absent when the policy has a targetRef",
  ],
  [
    aPeer(`${metadata}\nspec:\n  mtls:\n    mode: strict\n`),
    "6 spec.mtls.mode: must be one of UNSET, DISABLE, PERMISSIVE, STRICT",
  ],
  [aPeer(`${metadata}\nspec:\n  portLevelMtls:\n    80: { mode: STRICT }\n`), "5 spec.portLevelMtls: needs a selector"],
  [
    aPeer(`${metadata}\nspec:\n  selector: { matchLabels: { a: b } }\n  portLevelMtls:\n    http: { mode: STRICT }\n`),
    "7 spec.portLevelMtls.http: must be named by a port",
  ],
  [
    "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: { name: A }\n",
    "6 items[0].metadata.name: must be",
  ],
];

for (const [text, said] of REFUSED) {
  Deno.test(`readFileState() says what is wrong and where: ${said.slice(0, 70)}`, () => {
    const actual = refusalOf(text);
    assertEquals(actual.slice(0, said.length), said, actual);
    // Whatever stands before a document only moves its lines.
    const moved = refusalOf(`# a comment\n\n---\n${text}`), [line, ...rest] = actual.split(" ");
    assertEquals(moved, [Number(line) + 3, ...rest].join(" "));
  });
}

Deno.test("readFileState() finds the line of a field in JSON by the names on its way", () => {
  const text = '{\n  "apiVersion": "v1",\n  "kind": "Pod",\n  "metadata": {\n    "name": "BAD"\n  }\n}\n';
  assertEquals(refusalOf(text, "f.json").split(": ")[0], "5 metadata.name");
});

Deno.test("readFileState() reads a list of very many objects, good or bad, in bounded time", () => {
  for (const name of ["x", "BAD"]) {
    const items = repeat(50_000, (at) => `- {apiVersion: v1, kind: Node, metadata: {name: ${name}${at}}}\n`);
    const startMs = performance.now();
    const { held, refusals } = read(`apiVersion: v1\nkind: List\nitems:\n${items}`);
    assertEquals([held.size, refusals.length], name === "x" ? [50_000, 0] : [0, 100]);
    assertEquals(refusals.map((it) => it.line), refusals.map((_, at) => at + 4));
    const tookMs = performance.now() - startMs;
    assert(tookMs < 60_000, `took ${tookMs} ms`);
  }
});

Deno.test("readFileState() reads Windows line ends, a byte order mark and directives", () => {
  const { held, refusals } = read(`\uFEFF%YAML 1.2\r\n---\r\n${pod("a").replaceAll("\n", "\r\n")}...\r\n`);
  assertEquals([[...held.keys()], refusals], [["Pod/default/a"], []]);
});

Deno.test("readFileState() keeps document markers inside indented scalars as text", () => {
  const { held, refusals } = read(
    `apiVersion: v1\nkind: Namespace\nmetadata:\n  name: n\n  annotations:\n    text: |\n      ---\n      ...\n`,
  );
  assertEquals(refusals, []);
  assertEquals(held.get("Namespace//n")?.object.meta.annotations.get("text"), "---\n...\n");
});
