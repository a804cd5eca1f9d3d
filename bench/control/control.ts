/** `deno task bench control`: fills a real API server, runs each control plane against it in turn, and reports. */
import { chain, MeshError } from "../../base/errors.ts";
import { type ApiServer, startApiServer } from "../../tests/kube/api_server.ts";
import { Cleanup } from "../macro/cleanup.ts";
import { type ForeignLoad, ForeignWatch } from "../macro/foreign_load.ts";
import { describeCommit, describeMachine } from "../macro/machine.ts";
import { killChild } from "../macro/process.ts";
import type { RunFacts } from "../macro/report.ts";
import { ApiWriter } from "../../tests/kube/api_writer.ts";
import { fillCluster, PROXY_POD } from "./cluster.ts";
import { measureCase } from "./measure.ts";
import { type ControlOptions, parseControlOptions } from "./options.ts";
import { choosePeers, type ControlPeer } from "./peers.ts";
import { type ControlSeries, toControlJson, toControlMarkdown, toControlTable } from "./report.ts";

const EXIT_INTERRUPTED = 130; // 128 + SIGINT
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Runs the benchmark. @returns The exit status: 1 when a case failed. */
export async function runControl(args: readonly string[]): Promise<number> {
  const options = parseControlOptions(args), cleanup = new Cleanup();
  const interrupted = () => {
    cleanup.run();
    Deno.exit(EXIT_INTERRUPTED);
  };
  for (const signal of SIGNALS) Deno.addSignalListener(signal, interrupted);
  try {
    return await new Run(options, args, cleanup).run();
  } finally {
    cleanup.run();
    for (const failure of cleanup.failures) progress(`could not clean up: ${failure}`);
    for (const signal of SIGNALS) Deno.removeSignalListener(signal, interrupted);
  }
}

class Run {
  readonly #options: ControlOptions;
  readonly #args: readonly string[];
  readonly #cleanup: Cleanup;
  readonly #series: ControlSeries[] = [];
  readonly #foreign: ForeignLoad[] = [];
  #failed = false;

  constructor(options: ControlOptions, args: readonly string[], cleanup: Cleanup) {
    this.#options = options;
    this.#args = args;
    this.#cleanup = cleanup;
  }

  async run(): Promise<number> {
    const { pods, output, keep } = this.#options;
    const peers = choosePeers(this.#options), commit = describeCommit(); // Now, for it may move on while we measure.
    const folder = Deno.makeTempDirSync({ prefix: "ambit-bench-" });
    if (keep) progress(`configuration and logs: ${folder}`);
    else this.#cleanup.add(`delete ${folder}`, () => Deno.removeSync(folder, { recursive: true }));
    for (const size of pods) await this.#measureSize(size, peers, folder);
    const descriptions = await Promise.all(peers.map(async (peer) => [peer.name, await peer.describe()] as const));
    const facts: RunFacts = {
      date: new Date().toISOString(),
      machine: describeMachine(),
      commit,
      command: ["deno task bench control", ...this.#args.map(withoutPath)].join(" "),
      peers: Object.fromEntries(descriptions),
      othersMax: Math.max(0, ...this.#foreign.map((it) => it.others)),
      stolenMax: Math.max(0, ...this.#foreign.map((it) => it.stolen)),
    };
    const formats = { table: toControlTable, json: toControlJson, markdown: toControlMarkdown };
    await write(formats[output](facts, this.#series));
    return this.#failed ? 1 : 0;
  }

  async #measureSize(pods: number, peers: readonly ControlPeer[], folder: string): Promise<void> {
    progress(`${pods} pods: starting an API server and filling it`);
    const server = await startApiServer({ definitions: ["istio", "gateway"] });
    let gone = false;
    this.#cleanup.add("end the API server", () => {
      if (gone) return;
      for (const part of [server.apiServer, server.etcd]) if (part.child !== undefined) killChild(part.child);
      Deno.removeSync(server.folder, { recursive: true });
    });
    try {
      using api = await ApiWriter.open(server);
      progress(`${pods} pods: filled in ${(await fillCluster(api, pods)).toFixed(0)} s`);
      const nextPod = { value: pods };
      for (let round = 1; round <= this.#options.rounds; round++) {
        for (const proxies of this.#options.proxies) {
          for (const peer of peers) {
            progress(`round ${round}: ${pods} pods, ${proxies} proxies: ${peer.name}`);
            await this.#measure({ pods, proxies, peer, server, api, folder, nextPod });
          }
        }
      }
    } finally {
      gone = true;
      await server[Symbol.asyncDispose]();
    }
  }

  async #measure({ pods, proxies, peer, server, api, folder, nextPod }: {
    pods: number;
    proxies: number;
    peer: ControlPeer;
    server: ApiServer;
    api: ApiWriter;
    folder: string;
    nextPod: { value: number };
  }): Promise<void> {
    const { churnPerSecond, churnMs, signMs } = this.#options, series = this.#seriesOf(peer.name, pods, proxies);
    const token = await proxyToken(server), signing = proxies === this.#options.proxies[0];
    const watch = new ForeignWatch([Deno.pid, server.apiServer.pid!, server.etcd.pid!]);
    try {
      const plan = { peer, pods, proxies, token, churnPerSecond, churnMs, signMs, signing, nextPod };
      const { readings, notes, ownCpuSeconds } = await measureCase(plan, api, {
        server,
        folder,
        cleanup: this.#cleanup,
      });
      series.rounds.push(readings);
      series.notes.push(...notes);
      this.#foreign.push(watch.read(ownCpuSeconds));
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      progress(`${peer.name}: ${error.code}: ${chain(error)}\n  try: ${error.remedy}`);
      series.notes.push(`${error.code}: ${error.message.split("\n")[0]}`);
      this.#failed = true;
    }
  }

  #seriesOf(peer: string, pods: number, proxies: number): ControlSeries {
    const found = this.#series.find((it) => it.peer === peer && it.pods === pods && it.proxies === proxies);
    if (found !== undefined) return found;
    const series: ControlSeries = { peer, pods, proxies, rounds: [], notes: [] };
    this.#series.push(series);
    return series;
  }
}

/** As a kubelet would have it minted for the node's proxy: bound to its pod, for the CA's audience. */
async function proxyToken(server: ApiServer): Promise<string> {
  const bound = ["--bound-object-kind=Pod", `--bound-object-name=${PROXY_POD}`, "--audience=istio-ca"];
  return (await server.kubectl(["create", "token", "ztunnel", "-n", "istio-system", "--duration=1h", ...bound])).trim();
}

/** Where a peer's program lies is nobody else's business. */
function withoutPath(argument: string): string {
  return argument.replace(/^(--peer=)?(istiod|before)=.*/, "$1$2=…");
}

function progress(line: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(`${line}\n`));
}

async function write(text: string): Promise<void> {
  await Deno.stdout.write(new TextEncoder().encode(text));
}
