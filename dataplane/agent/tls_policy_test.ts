/** What COMPLIANCE_POLICY asks for, and what is refused. */
import { assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { tlsPolicyOf } from "./tls_policy.ts";

Deno.test("tlsPolicyOf() knows pqc, and refuses a policy that nobody here would keep (ZT-080)", () => {
  const nothing = { postQuantumOnly: false, revocation: false, tls12: false };
  assertEquals(tlsPolicyOf({ compliancePolicy: "", crlPath: "", tls12: false }), nothing);
  const all = { postQuantumOnly: true, revocation: true, tls12: true };
  assertEquals(tlsPolicyOf({ compliancePolicy: "pqc", crlPath: "/x", tls12: true }), all); // ZT-079
  // [quirk] Istio's passes over every other value, and is then less strict than whoever set it believes.
  for (const compliancePolicy of ["PQC", "fips-140-2", "pqc "]) {
    assertEquals(
      assertThrows(() => tlsPolicyOf({ compliancePolicy, crlPath: "", tls12: false }), MeshError).code,
      "AMB2415",
    );
  }
});
