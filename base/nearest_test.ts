/** Suggestions for misspelt words. */
import { assertEquals } from "@std/assert";
import { nearest } from "./nearest.ts";

Deno.test("nearest() finds the word that was meant, and the nearer of two", () => {
  const known = ["install", "uninstall", "enroll", "unenroll", "status", "ztunnel", "cni", "istiod"];
  const cases: Record<string, string | undefined> = {
    enrol: "enroll",
    isitod: "istiod",
    instal: "install",
    unenrol: "unenroll",
    statsu: "status",
    zunnel: "ztunnel",
    cn: "cni",
    // Too far, or so short that anything would be near.
    proxy: undefined,
    x: undefined,
    "": undefined,
  };
  for (const [word, meant] of Object.entries(cases)) assertEquals(nearest(word, known), meant, word);
});
