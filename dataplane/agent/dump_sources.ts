/** Gathers what `/config_dump` shows from the parts of the agent that hold it. */
import * as x509 from "@peculiar/x509";
import type { ZtunnelConfig } from "../config.ts";
import type { Tables } from "../tables/handles.ts";
import type { Certificates, CertificateStatus } from "./certificates.ts";
import { type CertificateDetails, configDump, type DumpedCertificate } from "./config_dump.ts";
import type { Pods } from "./pods.ts";
import { shownSettings } from "./shown_settings.ts";
import type { LocalResources } from "./local_file.ts";
import type { MeshState, PodFacts } from "./state.ts";

/** The dump as pretty JSON (ZT-208). */
export function dumpOf(sources: {
  config: ZtunnelConfig;
  state: MeshState;
  certificates: Certificates;
  pods: Pods;
  tables: Tables;
  version: string;
  local: LocalResources | undefined;
  /** Pods that could not be started yet. */
  pending: Iterable<{ readonly uid: string; readonly info: PodFacts }>;
}): string {
  const { config, state, certificates, pods, tables, version, local, pending } = sources;
  return configDump({
    state,
    version: { version, gitRevision: "unknown", buildStatus: "ambit", gitTag: version },
    config: shownSettings(config),
    certificates: certificates.status().map(dumpedCertificate),
    staticConfig: local?.shown,
    pods: config.proxyMode === "dedicated" ? undefined : [
      ...[...pods.list()].map(([uid, running]) => ({ uid, podRow: running.row, up: true, facts: running.pod.info })),
      ...[...pending].map(({ uid, info }) => ({ uid, podRow: -1, up: false, facts: info })),
    ],
    tables,
  });
}

function dumpedCertificate(status: CertificateStatus): DumpedCertificate {
  const { identity, certificate, error } = status;
  const state = certificate !== undefined
    ? "Available"
    : error !== undefined
    ? `Unavailable: ${error}`
    : "Initializing";
  if (certificate === undefined) return { identity, state, certChain: [], rootCerts: [] };
  return {
    identity,
    state,
    certChain: detailsOf(certificate.leafAndIntermediatesPem),
    rootCerts: detailsOf(certificate.rootsPem),
  };
}

function detailsOf(pem: string): CertificateDetails[] {
  return x509.PemConverter.decode(pem).map((der) => {
    const certificate = new x509.X509Certificate(der);
    return {
      pem: certificate.toString("pem"),
      serialNumber: BigInt(`0x${certificate.serialNumber}`).toString(),
      validFromMs: certificate.notBefore.getTime(),
      expirationTimeMs: certificate.notAfter.getTime(),
    };
  });
}
