/** Which TLS a listener speaks: versions, and suites below TLS 1.3, under the names that Istio's settings have for them (CP-003). */
import type { TLSSocket } from "node:tls";
import { MeshError } from "../../base/errors.ts";

/** Versions of TLS, by the names that settings have for them. */
export const TLS_VERSIONS = { TLSV1_2: "TLSv1.2", TLSV1_3: "TLSv1.3" } as const;

/** What does not change while it listens. */
export interface TlsRules {
  readonly tlsVersionMin: keyof typeof TLS_VERSIONS;
  /** Suites of TLS 1.2 that are taken; undefined: all that the runtime has. */
  readonly suites?: readonly string[];
  /** For tests; 10 s otherwise. */
  readonly handshakeMsMax?: number;
}

/** What the runtime offers below TLS 1.3; it cannot be told to offer less. */
const OFFERED = ["ECDSA", "RSA"].flatMap((key) =>
  ["AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256"].map((it) => `TLS_ECDHE_${key}_WITH_${it}`)
);

/**
 * Reads the settings. Suites that are not offered anyhow are passed over, as those of TLS 1.3, which nobody chooses.
 * @throws MeshError AMB0270 if none is left for a version that is taken.
 */
export function readTlsRules(
  { tlsVersionMin, tlsSuites }: { tlsVersionMin: keyof typeof TLS_VERSIONS; tlsSuites: readonly string[] },
): TlsRules {
  if (tlsSuites.length === 0 || tlsVersionMin === "TLSV1_3") return { tlsVersionMin };
  const suites = tlsSuites.filter((it) => OFFERED.includes(it));
  if (suites.length > 0) return { tlsVersionMin, suites };
  throw new MeshError("AMB0270", `none of the cipher suites ${tlsSuites.join(", ")} is offered for TLS 1.2`, {
    remedy: `give --tls-cipher-suites one of ${OFFERED.join(", ")}, or --tls-min-version=TLSV1_3`,
  });
}

/** Why a connection is not to be used although its handshake went well; undefined if it may be. */
export function suiteProblem(socket: Pick<TLSSocket, "getCipher">, { suites }: TlsRules): string | undefined {
  if (suites === undefined) return undefined;
  const { standardName, version } = socket.getCipher();
  if (version === TLS_VERSIONS.TLSV1_3 || suites.includes(standardName)) return undefined;
  return `cipher suite ${standardName} is not among --tls-cipher-suites`;
}
