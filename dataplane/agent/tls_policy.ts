/** What the operator's settings ask of every TLS connection (ZT-079, ZT-080, ZT-087). */
import { MeshError } from "../../base/errors.ts";
import type { TlsPolicy } from "../../os/api.ts";

/** @throws MeshError AMB2415 for a compliance policy that nobody here can keep. */
export function tlsPolicyOf(settings: {
  readonly compliancePolicy: string;
  readonly crlPath: string;
  readonly tls12: boolean;
}): TlsPolicy {
  const { compliancePolicy, crlPath, tls12 } = settings;
  if (compliancePolicy !== "" && compliancePolicy !== "pqc") {
    // Istio's ztunnel passes over what it does not know; an operator would believe in a protection that is not there.
    throw new MeshError("AMB2415", `COMPLIANCE_POLICY is ${JSON.stringify(compliancePolicy)}, and only pqc is known`, {
      remedy: "set COMPLIANCE_POLICY=pqc for post-quantum key exchange alone, or unset it",
    });
  }
  return { postQuantumOnly: compliancePolicy === "pqc", revocation: crlPath !== "", tls12 };
}
