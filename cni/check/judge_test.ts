import { assertEquals } from "@std/assert";
import { judge, type Observation } from "./judge.ts";

const GOOD: Observation = {
  target: "netns/web",
  backend: "nft",
  differences: [],
  dnsCapture: true,
  listening: new Set([15001, 15006, 15008, 15053]),
  unprobed: [],
  trials: [{ ip: "192.0.2.1", outcome: "connected" }],
  problems: [],
};
const verdict = (change: Partial<Observation>) => {
  const { captured, proof, findings, notes } = judge({ ...GOOD, ...change });
  return [captured, proof, ...findings.map(({ check, cause }) => `${check}: ${cause}`), ...notes];
};

Deno.test("judge() says captured only where rules, listeners and the connection agree, and what each lacks (CNI-097)", () => {
  assertEquals(verdict({}), [true, "yes"]);
  assertEquals(verdict({ backend: undefined }), [false, "yes", "rules: there are no redirection rules"]);
  assertEquals(verdict({ differences: ["a", "b"] }), [false, "yes", "rules: a", "rules: b"]);
  assertEquals(verdict({ listening: new Set([15001, 15006, 15008]) }), [
    false,
    "yes",
    "listeners: nothing listens on 15053",
  ]);
  assertEquals(verdict({ listening: new Set([15001, 15006, 15008]), dnsCapture: false }), [true, "yes"]);
  assertEquals(verdict({ listening: undefined }), [
    true,
    "yes",
    "listeners could not be looked at: the kernel lacks sock_diag",
  ]);
  assertEquals(verdict({ problems: ["it is enrolling"] }), [false, "yes", "agent: it is enrolling"]);
});

Deno.test("judge() takes a silent connection for one that got out, a refused one for captured, and none without a route for no proof", () => {
  const trial = (outcome: Observation["trials"][number]["outcome"]) => ({ ip: "192.0.2.1", outcome });
  assertEquals(verdict({ trials: [trial("silent")] }), [
    false,
    "no",
    "proof: a connection to 192.0.2.1 was not answered by ztunnel",
  ]);
  assertEquals(verdict({ trials: [trial("refused")] }), [true, "yes"]);
  assertEquals(verdict({ trials: [trial("unreachable")] }), [
    true,
    "not tried",
    "no proof by 192.0.2.1: there is no route to it",
  ]);
  assertEquals(verdict({ trials: [trial("connected"), { ip: "2001:db8::1", outcome: "silent" }] }).slice(0, 2), [
    false,
    "no",
  ]);
  assertEquals(verdict({ trials: [] }), [true, "not tried"]);
});

Deno.test("judge() names addresses that probes do not reach, though nothing escapes by that (CNI-084, CNI-181)", () => {
  assertEquals(verdict({ unprobed: ["10.0.0.2"] }), [
    true,
    "yes",
    "probes: the node's probes of 10.0.0.2 are captured, and may fail",
  ]);
  assertEquals(verdict({ unprobed: undefined }), [true, "yes"]);
});
