import { assertEquals } from "@std/assert";
import { judgeShared, type SharedSubject } from "./shared.ts";

const UNIT: SharedSubject = {
  target: "unit/web.service",
  pod: "shop/web-0",
  outboundPort: 15103,
  plaintextPort: 15303,
  dnsPort: 15503,
  problems: [],
};
const CHAINS = [
  "ambit-node-nat workload-3",
  "ambit-node-nat dns-3",
  "ambit-node-raw dns-3",
  "ambit-node-mangle output",
];
const PORTS = [15103, 15303, 15503, 15008];

Deno.test("judgeShared() goes by the unit's own chains and ports, each of which has its cause (CNI-294)", () => {
  const judged = (
    change: { unit?: Partial<SharedSubject>; chains?: string[]; listening?: number[] | "unknown" } = {},
  ) => {
    const { unit = {}, chains = CHAINS, listening = PORTS } = change;
    const { captured, findings, notes } = judgeShared({ ...UNIT, ...unit }, {
      chains: new Set(chains),
      listening: listening === "unknown" ? undefined : new Set(listening),
    });
    return { captured, causes: findings.map(({ cause }) => cause), notes: notes.length };
  };
  assertEquals(judged(), { captured: true, causes: [], notes: 1 });
  for (const chain of CHAINS) {
    const { captured, causes } = judged({ chains: CHAINS.filter((it) => it !== chain) });
    assertEquals([captured, causes], [false, [`chain ${chain} is missing`]]);
  }
  for (const port of PORTS) {
    const { captured, causes } = judged({ listening: PORTS.filter((it) => it !== port) });
    assertEquals([captured, causes], [false, [`nothing listens on ${port}`]]);
  }
  assertEquals(judged({ listening: "unknown" }), { captured: true, causes: [], notes: 2 });
  assertEquals(judged({ unit: { problems: ["it is waiting"] } }).causes, ["it is waiting"]);
  // What only connects out, and asks whom it asked, has one chain and one port.
  const plain = { plaintextPort: undefined, dnsPort: undefined };
  assertEquals(judged({ unit: plain, chains: [CHAINS[0]!, CHAINS[3]!], listening: [15103] }).captured, true);
});
