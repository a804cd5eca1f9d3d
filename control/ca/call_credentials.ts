/** What a call presents to be known by. */
import * as x509 from "@peculiar/x509";
import type { GrpcCall } from "../grpc/call.ts";
import type { Credentials } from "./caller.ts";

/** A client certificate counts only if TLS verified it against the mesh's roots, as that of a call's peer was. */
export function credentialsOf(call: GrpcCall): Credentials {
  const { peer } = call;
  return {
    certificateUris: peer.certificate === undefined ? undefined : uriNamesOf(peer.certificate),
    certificateChain: peer.certificate === undefined ? [] : [peer.certificate, ...peer.issuers],
    authorization: call.values("authorization"),
    clusterId: call.values("clusterid"),
    forwardedCertificate: call.values("x-forwarded-client-cert"),
    peerAddress: peer.host,
  };
}

function uriNamesOf(der: Uint8Array): string[] {
  const names = new x509.X509Certificate(new Uint8Array(der)).getExtension(x509.SubjectAlternativeNameExtension);
  return names?.names.items.filter((name) => name.type === "url").map((name) => name.value) ?? [];
}
