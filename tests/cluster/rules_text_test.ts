import { assertEquals } from "@std/assert";
import { nftRules, savedRules } from "./rules_text.ts";

const EMPTY =
  "table ip nat {\n\tchain OUTPUT {\n\t\ttype nat hook output priority -100; policy accept;\n\t}\n\n\tchain PREROUTING {\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n\t}\n}\n";
const OWN = "table inet ours {\n\tchain out {\n\t\ttype nat hook output priority -100; policy accept;\n\t}\n}\n";

Deno.test("nftRules() leaves out what iptables leaves empty, and nothing else", () => {
  assertEquals(nftRules(EMPTY), "");
  assertEquals(nftRules(OWN + EMPTY), OWN.trimEnd());
  const rule = EMPTY.replace("dstnat; policy accept;", "dstnat; policy accept;\n\t\tjump ISTIO_PRERT");
  assertEquals(nftRules(rule), rule.replace(/\tchain OUTPUT [^}]*\}\n\n/, "").trimEnd());
  assertEquals(nftRules(EMPTY.replace("-100; policy accept", "-100; policy drop")).includes("policy drop"), true);
  const chain = "table ip nat {\n\tchain ISTIO_OUTPUT {\n\t}\n}\n";
  assertEquals(nftRules(chain), chain.trimEnd());
});

Deno.test("savedRules() keeps rules and chains of somebody's, without counters", () => {
  assertEquals(
    savedRules("# x\n*nat\n:OUTPUT ACCEPT [1:2]\n:ISTIO_OUTPUT - [3:4]\n-A OUTPUT -j ISTIO_OUTPUT\nCOMMIT\n"),
    ":ISTIO_OUTPUT -\n-A OUTPUT -j ISTIO_OUTPUT",
  );
});
