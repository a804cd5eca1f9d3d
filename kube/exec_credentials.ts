/** Credentials of a program, as kubeconfig's `exec` names it (client.authentication.k8s.io v1 and v1beta1). */
import { ignore, MeshError } from "../base/errors.ts";
import type { Credential, Credentials, KeyPair } from "./access.ts";
import { isToken } from "./file_credentials.ts";
import type { ExecPlugin } from "./kubeconfig.ts";
import { keyPairProblem } from "./pem_files.ts";

const RUN_LIMIT_MS = 60_000;
const OUTPUT_GRACE_MS = 1_000; // from the program's end to that of its output
const OUTPUT_BYTES_MAX = 1 << 20;
const COMPLAINT_LETTERS_MAX = 300;
/** Renewed so long before it ends, so that no request meets the end under way. */
const EARLY_MS = 30_000;

/** What the program is told of the cluster, if it asks. */
export interface ExecCluster {
  readonly server: string;
  readonly ca: string | undefined;
  readonly serverName: string | undefined;
  readonly insecure: boolean;
  /** As the kubeconfig has it: the program may have to pass it, too. */
  readonly proxyUrl?: string;
}

interface ExecOptions {
  readonly cluster: ExecCluster;
  /** For relative commands: the kubeconfig's folder. */
  readonly folder: string;
  /** For errors: file and context. */
  readonly source: string;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
  /** For tests; {@link RUN_LIMIT_MS} otherwise. */
  readonly runLimitMs?: number;
}

export class ExecCredentials implements Credentials {
  readonly #plugin: ExecPlugin;
  readonly #options: ExecOptions;
  readonly #now: () => number;
  #held: { readonly credential: Credential; readonly untilMs: number } | undefined;
  #running: Promise<Credential> | undefined;

  constructor(plugin: ExecPlugin, options: ExecOptions) {
    this.#plugin = plugin;
    this.#options = options;
    this.#now = options.now ?? Date.now;
  }

  current(): Promise<Credential> {
    if (this.#held !== undefined && this.#now() < this.#held.untilMs) return Promise.resolve(this.#held.credential);
    // One run for all who ask meanwhile.
    this.#running ??= this.#run().finally(() => this.#running = undefined);
    return this.#running;
  }

  refused(credential: Credential): void {
    if (this.#held?.credential === credential) this.#held = undefined;
  }

  #fail(wrong: string, cause?: unknown): never {
    const { command, installHint } = this.#plugin;
    const remedy = installHint === ""
      ? "run the command by hand, and see that it prints an ExecCredential"
      : installHint;
    throw new MeshError("AMB0804", `asking ${command} for credentials (${this.#options.source}, exec): ${wrong}`, {
      remedy,
      cause,
    });
  }

  async #run(): Promise<Credential> {
    const { credential, untilMs } = this.#read(await this.#output());
    this.#held = { credential, untilMs };
    return credential;
  }

  async #output(): Promise<string> {
    const { command, args, env } = this.#plugin, hasFolder = command.includes("/");
    const path = hasFolder && !command.startsWith("/") ? `${this.#options.folder}/${command}` : command;
    let child: Deno.ChildProcess;
    try {
      child = new Deno.Command(path, {
        args: [...args],
        env: { ...env, KUBERNETES_EXEC_INFO: JSON.stringify(this.#info()) },
        stdin: "null",
        stdout: "piped",
        stderr: "piped",
      }).spawn();
    } catch (error) {
      return this.#fail("it cannot be started", error);
    }
    const enough = new AbortController(), limitMs = this.#options.runLimitMs ?? RUN_LIMIT_MS;
    const timer = setTimeout(() => kill(child), limitMs);
    let grace: ReturnType<typeof setTimeout> | undefined;
    try {
      const reading = Promise.all(
        [child.stdout, child.stderr].map((it) => readBounded(it, enough.signal, () => kill(child))),
      );
      const { success, code, signal } = await child.status;
      // What it has started, and left, may hold its output open for as long as it likes.
      grace = setTimeout(() => enough.abort(), OUTPUT_GRACE_MS);
      const [output, complaint] = await reading;
      if (output === undefined || complaint === undefined) {
        return this.#fail(`it printed more than ${OUTPUT_BYTES_MAX} bytes`);
      }
      if (success) return output;
      const said = complaint.replace(/\p{Cc}+/gu, " ").trim().slice(-COMPLAINT_LETTERS_MAX);
      return this.#fail(
        signal === null
          ? `it ended with ${code}: ${said}`
          : `it was ended by ${signal}, or took more than ${limitMs / 1_000} s`,
      );
    } finally {
      clearTimeout(timer);
      clearTimeout(grace);
    }
  }

  /** What the program learns by its environment. */
  #info(): object {
    const { server, ca, serverName, insecure, proxyUrl } = this.#options.cluster;
    const cluster = {
      server,
      ...(ca === undefined ? {} : { "certificate-authority-data": new TextEncoder().encode(ca).toBase64() }),
      ...(serverName === undefined ? {} : { "tls-server-name": serverName }),
      ...(insecure ? { "insecure-skip-tls-verify": true } : {}),
      ...(proxyUrl === undefined ? {} : { "proxy-url": proxyUrl }),
    };
    const spec = { interactive: false, ...(this.#plugin.provideClusterInfo ? { cluster } : {}) };
    return { apiVersion: this.#plugin.apiVersion, kind: "ExecCredential", spec };
  }

  #read(output: string): { credential: Credential; untilMs: number } {
    const wrong = (field: string): never => this.#fail(`its answer's ${field} cannot be used`);
    let answer: { apiVersion?: unknown; kind?: unknown; status?: Record<string, unknown> };
    try {
      answer = JSON.parse(output);
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      return this.#fail("its answer is no JSON"); // The parser's message would quote it.
    }
    if (typeof answer !== "object" || answer === null || answer.kind !== "ExecCredential") return wrong("kind");
    if (answer.apiVersion !== this.#plugin.apiVersion) return wrong("apiVersion");
    const status = answer.status;
    if (typeof status !== "object" || status === null) return wrong("status");
    const { token, clientCertificateData: certificate, clientKeyData: key, expirationTimestamp } = status;
    if (token !== undefined && (typeof token !== "string" || !isToken(token))) return wrong("status.token");
    let keyPair: KeyPair | undefined;
    if (certificate !== undefined || key !== undefined) {
      if (typeof certificate !== "string" || typeof key !== "string") return wrong("status.clientCertificateData");
      const problem = keyPairProblem(keyPair = { certificate, key });
      if (problem !== undefined) return this.#fail(problem);
    }
    if (token === undefined && keyPair === undefined) {
      return this.#fail("its answer holds neither token nor certificate");
    }
    const untilMs = expirationTimestamp === undefined ? Infinity : Date.parse(String(expirationTimestamp)) - EARLY_MS;
    if (Number.isNaN(untilMs)) return wrong("status.expirationTimestamp");
    return { credential: { token, keyPair }, untilMs };
  }
}

function kill(child: Deno.ChildProcess): void {
  try {
    child.kill("SIGKILL");
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    ignore(error, "it has ended by itself");
  }
}

/**
 * The text of a stream until its end or the signal; undefined if it is longer than the bound: then it is read on and
 * thrown away.
 */
async function readBounded(
  stream: ReadableStream<Uint8Array>,
  signal: AbortSignal,
  onOverflow: () => void,
): Promise<string | undefined> {
  const decoder = new TextDecoder(), reader = stream.getReader();
  signal.addEventListener("abort", () => void reader.cancel(), { once: true });
  let text = "", bytes = 0;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return bytes > OUTPUT_BYTES_MAX ? undefined : text + decoder.decode();
    bytes += value.length;
    if (bytes <= OUTPUT_BYTES_MAX) text += decoder.decode(value, { stream: true });
    else onOverflow();
  }
}
