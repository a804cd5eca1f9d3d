/** No bytes make the reader throw, forget what is in force, or take long. */
import { assert } from "@std/assert";
import { EMPTY_FILE, readFileState } from "./file_state.ts";

const SEED_TEXT = `# everything that is read
apiVersion: v1
kind: Pod
metadata: { name: a, namespace: n, labels: { app: x } }
spec:
  containers:
  - name: c
    ports: [{ name: web, containerPort: 8080 }]
status: { podIP: 10.0.0.1, podIPs: [{ ip: 10.0.0.1 }, { ip: "fd00::1" }] }
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: p
  namespace: n
spec:
  rules:
  - from:
    - source:
        principals: ["*"]
        ipBlocks: &blocks [10.0.0.0/8]
    when:
    - key: source.ip
      values: *blocks
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: { name: s, namespace: n, annotations: { text: "a\\tb", more: 'it''s' } }
spec:
  hosts: ["*.example.com"]
  ports:
  - { number: 443, name: tls, protocol: TLS }
  endpoints:
  - address: |-
      172.16.0.1
`;

Deno.test("readFileState() never throws, and never loses an object to a text that names none, whatever is done to the bytes", () => {
  const seed = new TextEncoder().encode(SEED_TEXT), previous = readFileState("f.yaml", seed, EMPTY_FILE);
  assert(previous.held.size === 3 && previous.refusals.length === 0, "the seed is good");
  let state = 3;
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor(state / 2 ** 32 * below);
  };
  const interesting = [...new TextEncoder().encode("\n :-[]{}&*#|>'\"\\%@!,?~\t\0\xff9")];
  for (let round = 0; round < 4_000; round++) {
    let bytes = seed.slice();
    for (let edit = random(4); edit >= 0; edit--) {
      const at = random(bytes.length), kind = random(4);
      if (kind === 0) bytes[at] = random(256);
      else if (kind === 1) bytes[at] = interesting[random(interesting.length)]!;
      else if (kind === 2) bytes = bytes.slice(0, at + 1);
      else bytes.copyWithin(at, random(bytes.length), random(bytes.length) + 40);
    }
    const startMs = performance.now();
    const { held, refusals } = readFileState(round % 5 === 0 ? "f.json" : "f.yaml", bytes, previous);
    assert(performance.now() - startMs < 10_000, `round ${round} is quick`);
    if (refusals.some((it) => it.key === undefined)) {
      for (const key of previous.held.keys()) assert(held.has(key), `round ${round} keeps ${key}`);
    }
    for (const { line, reason } of refusals) {
      assert(line >= 1 && reason.length < 400, `round ${round} says where and what`);
    }
  }
});
