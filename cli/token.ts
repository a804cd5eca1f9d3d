/** `ambit token`: mints a service account token for a node without Kubernetes. */
import { type ConfigOf, defineConfig, duration, text } from "../base/config.ts";

const HOUR_MS = 3_600_000;

export const TOKEN_CONFIG = defineConfig("ambit token", {
  stateDir: {
    kind: text("DIR"),
    flag: "state-dir",
    env: "AMBIT_STATE_DIR",
    help: "istiod's state folder, which holds the issuer's key",
  },
  namespace: { kind: text("NAME"), flag: "namespace", help: "namespace of the service account and the pod" },
  serviceAccount: { kind: text("NAME"), flag: "service-account", help: "service account the token speaks for" },
  pod: { kind: text("NAME"), flag: "pod", help: "pod the token is bound to" },
  podUid: { kind: text("UID"), flag: "pod-uid", default: "", help: "the pod's uid, if it has an object with one" },
  node: { kind: text("NAME"), flag: "node", help: "node the pod runs on" },
  ttlMs: {
    kind: duration(60_000, 365 * 24 * HOUR_MS),
    flag: "ttl",
    default: 24 * HOUR_MS,
    help: "how long the token is good for",
  },
}, {
  examples: [
    "ambit token --state-dir /var/lib/ambit/istiod --namespace istio-system --service-account ztunnel \\",
    "  --pod ztunnel-node-a --node node-a > token-node-a",
  ],
});

export type TokenConfig = ConfigOf<typeof TOKEN_CONFIG.table>;

/** What mints tokens: the control role's issuer, opened on the state folder. */
export interface TokenMint {
  mint(
    subject: { namespace: string; serviceAccount: string; pod: string; podUid: string; node: string },
    options: { ttlMs: number; nowMs: number },
  ): Promise<string>;
}

/** What the command needs of its surroundings. */
export interface TokenHost {
  readonly env: (name: string) => string | undefined;
  readonly openMint: (stateDir: string) => Promise<TokenMint>;
  readonly write: (text: string) => void;
  /** Whether a person reads the output: then it ends in a newline, which a token file must not (ZT-123). */
  readonly interactive: boolean;
}

/** Writes the token that the flags describe, and nothing else. @throws MeshError for bad flags or names. */
export async function runToken(args: readonly string[], host: TokenHost): Promise<void> {
  const { config } = TOKEN_CONFIG.parse(args, host.env);
  const { ttlMs, stateDir, ...subject } = config;
  const mint = await host.openMint(stateDir);
  host.write(await mint.mint(subject, { ttlMs, nowMs: Date.now() }) + (host.interactive ? "\n" : ""));
}
