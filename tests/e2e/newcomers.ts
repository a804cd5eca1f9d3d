/** A pod that opens a new connection and asks for a name, by UDP and by TCP, every so often: what of it failed, and when. */
import { parseIp } from "../../base/address.ts";
import { askNodeAgent } from "../../cli/enrol_client.ts";
import { PodUpstreamSockets } from "../../dataplane/agent/dns/upstream_sockets.ts";
import { queryBytes, recordsOf } from "../../dataplane/agent/dns/testing.ts";
import { serviceYaml } from "../../demo/lab/yaml.ts";
import { Poller } from "../../os/poller.ts";
import type { Rig } from "./mesh.ts";

const PORT = 7300, NAME = "server.e2e.svc.cluster.local", SERVICE_IPS = ["10.96.7.7", "fd00:96::7"];
const CONNECTION_INTERVAL_MS = 10, QUERY_INTERVAL_MS = 20;
/** As long as nobody answers somebody waits: whatever is slow is seen as slow. */
const PATIENCE_MS = 60_000;
/** Shorter: a datagram that died with the ztunnel that had read it is never answered, and the end waits for all. */
const DATAGRAM_PATIENCE_MS = 25_000;

export type Kind = "connection" | "udp" | "tcp";

/** One try. Times are those of `performance.now()`. */
export interface Try {
  readonly kind: Kind;
  readonly startedAtMs: number;
  endedAtMs: number;
  /** undefined: it was answered as it should. */
  failure: string | undefined;
}

export class Newcomers implements AsyncDisposable {
  readonly #rig: Rig;
  readonly #poller = new Poller();
  readonly #stop = new AbortController();
  readonly #tries: Try[] = [];
  readonly #running = new Set<Promise<void>>();
  /** By which a datagram is given up whose answer nobody will send. */
  readonly #datagrams = new Map<Try, AbortController>();
  readonly #timers: ReturnType<typeof setInterval>[] = [];

  private constructor(rig: Rig) {
    this.#rig = rig;
  }

  /** Enrols the client with DNS capture, and begins once all three kinds are answered. */
  static async start(rig: Rig): Promise<Newcomers> {
    const { mesh, client, server } = rig;
    await server.probe.do("listen", { port: PORT, kind: "line" });
    const ports = { port: 80, targetPort: PORT };
    mesh.writeConfig(
      "service.yaml",
      serviceYaml({ name: "server", namespace: "e2e", addresses: SERVICE_IPS, ...ports }),
    );
    await mesh.seen("the service", (dump) => JSON.stringify(dump).includes(NAME));
    const { name, namespace, serviceAccount } = client.spec, target = `netns/${client.place.name}`;
    const body = { target, namespace, serviceAccount, name, dnsCapture: true };
    await askNodeAgent(client.node.enrolSocket, { method: "POST", path: "/enrol", body });
    const newcomers = new Newcomers(rig);
    for (const kind of ["connection", "udp", "tcp"] as const) await newcomers.#try(kind);
    const wrong = newcomers.#tries.find(({ failure }) => failure !== undefined);
    if (wrong !== undefined) throw new Error(`${wrong.kind}: ${wrong.failure}`);
    newcomers.#every(CONNECTION_INTERVAL_MS, "connection");
    newcomers.#every(QUERY_INTERVAL_MS, "udp");
    newcomers.#every(QUERY_INTERVAL_MS, "tcp");
    return newcomers;
  }

  /** Begins nothing more. @returns All tries, once each has its outcome. */
  async end(): Promise<readonly Try[]> {
    for (const timer of this.#timers.splice(0)) clearInterval(timer);
    await Promise.all(this.#running);
    return this.#tries;
  }

  /** Gives up datagrams sent before then: whoever had read them is dead, and nobody sends them again. */
  giveUp(beforeMs: number): void {
    for (const [{ startedAtMs }, controller] of this.#datagrams) if (startedAtMs < beforeMs) controller.abort();
  }

  /** Whether one of each kind, begun since, was answered. */
  servedSince(sinceMs: number): boolean {
    return (["connection", "udp", "tcp"] as const).every((kind) =>
      this.#tries.some((it) =>
        it.kind === kind && it.startedAtMs > sinceMs && it.endedAtMs > 0 && it.failure === undefined
      )
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.end();
    await this.#poller[Symbol.asyncDispose]();
  }

  #every(intervalMs: number, kind: Kind): void {
    this.#timers.push(setInterval(() => {
      const running = this.#try(kind).finally(() => this.#running.delete(running));
      this.#running.add(running);
    }, intervalMs));
  }

  async #try(kind: Kind): Promise<void> {
    const it: Try = { kind, startedAtMs: performance.now(), endedAtMs: 0, failure: undefined };
    this.#tries.push(it);
    const controller = new AbortController();
    if (kind === "udp") this.#datagrams.set(it, controller);
    it.failure = kind === "connection" ? await this.#connect() : await this.#ask(kind, controller.signal);
    this.#datagrams.delete(it);
    it.endedAtMs = performance.now();
  }

  async #connect(): Promise<string | undefined> {
    const { client, server } = this.#rig;
    const order = { host: server.ipv4, port: PORT, text: "newcomer", timeoutMs: PATIENCE_MS };
    const tried = await client.probe.attempt("line", order);
    if (tried.failure !== undefined) return tried.failure;
    return tried.output.reply.endsWith(" newcomer") ? undefined : `it heard ${tried.output.reply}`;
  }

  async #ask(transport: "udp" | "tcp", givenUp: AbortSignal): Promise<string | undefined> {
    const sockets = new PodUpstreamSockets({ netns: this.#rig.client.place.netns, mark: 0, poller: this.#poller });
    const nobody = parseIp("10.255.255.1")!, query = queryBytes(NAME, "A");
    const options = {
      timeoutMs: transport === "udp" ? DATAGRAM_PATIENCE_MS : PATIENCE_MS,
      accept: () => ({ code: 0, truncated: false, records: [] }),
      signal: AbortSignal.any([this.#stop.signal, givenUp]),
    };
    const exchanged = transport === "udp"
      ? await sockets.exchangeUdp(nobody, query, options)
      : await sockets.exchangeTcp(nobody, query, options);
    if (exchanged === undefined) return "no answer";
    const said = recordsOf(exchanged.bytes).join();
    return said === `${NAME} A ${SERVICE_IPS[0]}` ? undefined : `the answer was ${said}`;
  }
}

/** Failures by kind and text, with how many. */
export function failuresOf(tries: readonly Try[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { kind, failure } of tries) {
    if (failure !== undefined) counts[`${kind}: ${failure}`] = (counts[`${kind}: ${failure}`] ?? 0) + 1;
  }
  return counts;
}

/** The longest that a try of this kind took, in milliseconds. */
export function longestOf(tries: readonly Try[], kind: Kind): number {
  return Math.round(Math.max(0, ...tries.filter((it) => it.kind === kind).map((it) => it.endedAtMs - it.startedAtMs)));
}
