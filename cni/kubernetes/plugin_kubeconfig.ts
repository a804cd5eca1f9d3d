/** The plugin's kubeconfig as it should be now: its token is renewed under us, and must never run out (CNI-045). */
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { pause } from "../../base/waiting.ts";
import type { KubeAccess } from "../../kube/access.ts";
import { KubeError, KubeUnreachable } from "../../kube/api.ts";
import { formatPluginKubeconfig } from "../kubeconfig_file.ts";

const LOOK_MS = 60_000; // The kubelet renews a token when a fifth of its time is left, twelve minutes at the least.
const AHEAD_S = 600;

export interface PluginKubeconfigOptions {
  /** Whether the API server takes this token; rejects when it does not, or does not answer. */
  readonly verify: (access: KubeAccess, token: string, signal: AbortSignal) => Promise<void>;
  readonly log: Logger;
  readonly nowMs?: () => number;
  readonly lookMs?: number;
}

export class PluginKubeconfig {
  readonly #access: KubeAccess;
  readonly #options: PluginKubeconfigOptions;
  #token: string;

  private constructor(access: KubeAccess, token: string, options: PluginKubeconfigOptions) {
    this.#access = access;
    this.#token = token;
    this.#options = options;
  }

  /** With the token of now, whatever the API server says of it: there is none before. Throws MeshError. */
  static async open(
    access: KubeAccess,
    options: PluginKubeconfigOptions,
    signal: AbortSignal,
  ): Promise<PluginKubeconfig> {
    const { token = "" } = await access.credentials.current(signal);
    return new PluginKubeconfig(access, token, options);
  }

  /** The file's text. */
  get text(): string {
    const server = this.#access.server.href.replace(/\/$/, "");
    return formatPluginKubeconfig({ server, ca: this.#access.ca ?? "", token: this.#token });
  }

  /** Until the token ends, below zero once it has; undefined for one that does not say. */
  expiresInS(): number | undefined {
    const endS = tokenEndS(this.#token);
    return endS === undefined ? undefined : Math.round(endS - this.#nowMs() / 1_000);
  }

  /** Takes up a new token as long as the API server takes it; the one before stays otherwise. */
  async look(signal: AbortSignal): Promise<void> {
    const { verify, log } = this.#options;
    try {
      const { token = "" } = await this.#access.credentials.current(signal);
      if (token !== this.#token) {
        await verify(this.#access, token, signal);
        this.#token = token;
        log.info("the plugin's token was renewed", { expiresInS: this.expiresInS() });
      }
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof MeshError || error instanceof KubeError || error instanceof KubeUnreachable)) throw error;
      log.warn("the plugin's token was not renewed", { error: chain(error), expiresInS: this.expiresInS() });
      return;
    }
    const leftS = this.expiresInS();
    if (leftS !== undefined && leftS < AHEAD_S) log.warn("the plugin's token ends soon", { expiresInS: leftS });
  }

  /** Looks again and again until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    while (await pause(this.#options.lookMs ?? LOOK_MS, signal)) await this.look(signal);
  }

  #nowMs(): number {
    return (this.#options.nowMs ?? Date.now)();
  }
}

/** `exp` of a JWT, in seconds since 1970. It is not verified: that is the API server's affair. */
export function tokenEndS(token: string): number | undefined {
  try {
    const claims = JSON.parse(
      new TextDecoder().decode(Uint8Array.fromBase64(token.split(".")[1] ?? "", { alphabet: "base64url" })),
    );
    const end: unknown = (claims as { exp?: unknown } | null)?.exp;
    return typeof end === "number" && Number.isFinite(end) ? end : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined; // Neither base64 nor JSON: no such token.
    throw error;
  }
}
