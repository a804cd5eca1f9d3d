/** Revocation lists that are handed on (CP-511): that they can be read. Whoever uses one checks who signed it. */
import { MeshError } from "../../base/errors.ts";
import { pemBlocks } from "./pem.ts";
import { RevokedCertificates } from "./revoked_certificates.ts";

const BYTES_MAX = 1_000_000; // a ConfigMap holds 1 MiB with all around it

/** @throws MeshError AMB0254 if the text is no bundle of PEM lists that a ConfigMap can hold. An empty one is fine. */
export function checkRevocations(pem: string, folder: string): void {
  const refuse = (what: string) => {
    throw new MeshError("AMB0254", `ca-crl.pem in ${folder} cannot be used: ${what}`, {
      remedy: "put revocation lists in PEM form there, or remove the file",
    });
  };
  if (pem.trim() === "") return;
  if (pem.length > BYTES_MAX) refuse(`it has ${pem.length} bytes, ${BYTES_MAX} are the most`);
  const blocks = pemBlocks(pem);
  if (blocks.length === 0) refuse("it holds no PEM block");
  for (const { label } of blocks) {
    if (label !== "X509 CRL") refuse(`it holds a block of type ${label}`);
  }
  if (!new RevokedCertificates().take(pem)) refuse("a list in it cannot be read");
}
