/** `deno task bench l4`: sets every peer up, measures them in turn, round by round, and reports. */
import { chain, MeshError } from "../../base/errors.ts";
import { Cleanup } from "./cleanup.ts";
import type { ForeignLoad } from "./foreign_load.ts";
import { LoadProcess } from "./load_process.ts";
import { describeCommit, describeMachine, descriptorsMax } from "./machine.ts";
import { measureAll, type Path, readMemory, warmUp } from "./measure.ts";
import { HANDSHAKE_HELPERS, IDLE_CONNECTIONS, type Readings } from "./metrics.ts";
import { type Options, parseOptions, type PeerName } from "./options.ts";
import { Direct } from "./peers/direct.ts";
import { Envoy, findEnvoy } from "./peers/envoy.ts";
import { Haproxy } from "./peers/haproxy.ts";
import { Ours } from "./peers/ours.ts";
import type { Peer } from "./peers/peer.ts";
import { Ztunnel } from "./peers/ztunnel.ts";
import { pin, planCores } from "./pinning.ts";
import { type CaseProfile, profileCases } from "./profile.ts";
import { profileJson, profileTable } from "./profile_text.ts";
import { type RunFacts, seriesLabel, toJson, toMarkdown, toTable } from "./report.ts";
import type { SeriesResult } from "./summary.ts";
import { createTopology, sweepLeftovers } from "./topology.ts";

// Descriptors that a proxy needs besides its connections.
const DESCRIPTORS_SPARE = 200;
const EXIT_INTERRUPTED = 130; // 128 + SIGINT

interface Series extends SeriesResult {
  readonly workers: number | undefined;
  readonly path: Path;
  readonly rounds: Readings[];
  readonly notes: string[];
}

/** Runs the benchmark. @returns The exit status: 1 when a peer that was asked for failed. */
export async function runL4(args: readonly string[]): Promise<number> {
  const options = parseOptions(args);
  const cleanup = new Cleanup();
  const interrupted = () => {
    cleanup.run();
    Deno.exit(EXIT_INTERRUPTED);
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) Deno.addSignalListener(signal, interrupted);
  try {
    return await new Run(options, args, cleanup).run();
  } finally {
    cleanup.run();
    for (const failure of cleanup.failures) progress(`could not clean up: ${failure}`);
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) Deno.removeSignalListener(signal, interrupted);
  }
}

class Run {
  readonly #options: Options;
  readonly #args: readonly string[];
  readonly #cleanup: Cleanup;
  readonly #peers: Record<string, string> = {};
  readonly #series: Series[] = [];
  readonly #foreign: ForeignLoad[] = [];
  #failed = false;

  constructor(options: Options, args: readonly string[], cleanup: Cleanup) {
    this.#options = options;
    this.#args = args;
    this.#cleanup = cleanup;
  }

  async run(): Promise<number> {
    for (const name of sweepLeftovers()) progress(`deleted the namespace ${name} that a killed run left behind`);
    const commit = describeCommit(); // Now, for it may move on while we measure.
    const folder = Deno.makeTempDirSync({ prefix: "ambit-bench-" });
    if (this.#options.keep) progress(`configuration and logs: ${folder}`);
    else this.#cleanup.add(`delete ${folder}`, () => Deno.removeSync(folder, { recursive: true }));
    await this.#setUp(folder);
    if (this.#series.length === 0) return 1;
    if (this.#options.profile) {
      await this.#profile(folder);
      return this.#failed ? 1 : 0;
    }
    for (let round = 1; round <= this.#options.rounds; round++) await this.#round(round);
    const facts: RunFacts = {
      date: new Date().toISOString(),
      machine: describeMachine(),
      commit,
      command: ["deno task bench l4", ...this.#args.map(withoutPath)].join(" "),
      peers: this.#peers,
      othersMax: Math.max(0, ...this.#foreign.map((it) => it.others)),
      stolenMax: Math.max(0, ...this.#foreign.map((it) => it.stolen)),
    };
    const formats = { table: toTable, json: toJson, markdown: toMarkdown };
    await write(formats[this.#options.output](facts, this.#series));
    return this.#failed ? 1 : 0;
  }

  async #setUp(folder: string): Promise<void> {
    for (const name of this.#options.peers) {
      try {
        const peer = choosePeer(name, this.#options);
        if (peer === undefined) continue;
        this.#peers[name] = await peer.describe();
        for (const workers of peer.hasWorkers ? this.#options.workers : [undefined]) {
          this.#series.push(await this.#startSeries(peer, workers, folder));
        }
      } catch (error) {
        if (!(error instanceof MeshError)) throw error;
        this.#fail(name, error);
      }
    }
  }

  /** A peer that is simply not here is left out; one that was asked for by name is a failure. */
  #fail(name: PeerName, error: MeshError): void {
    progress(`${name} is left out: ${error.code}: ${chain(error)}\n  try: ${error.remedy}`);
    if (this.#options.required.includes(name)) this.#failed = true;
  }

  async #startSeries(peer: Peer, workers: number | undefined, folder: string): Promise<Series> {
    const label = seriesLabel({ peer: peer.name, workers });
    progress(`${label}: set up`);
    const topology = createTopology(label.replace(" ", ""), folder, this.#cleanup, this.#options.congestion);
    const server = LoadProcess.start(`${label} server`, topology.server, this.#cleanup);
    const client = LoadProcess.start(`${label} client`, topology.client, this.#cleanup);
    await server.command({ do: "listen" });
    const running = await peer.setup(topology, workers ?? 1, this.#cleanup);
    const need = IDLE_CONNECTIONS * peer.descriptorsPerConnection + DESCRIPTORS_SPARE, limit = descriptorsMax();
    const idleFits = need <= limit;
    const notes: string[] = idleFits
      ? []
      : [`${IDLE_CONNECTIONS} idle connections need ${need} open files in one process; the limit is ${limit}`];
    const helpers = Array.from(
      { length: running.tls === undefined ? 0 : HANDSHAKE_HELPERS },
      (_, at) => LoadProcess.start(`${label} helper ${at}`, topology.client, this.#cleanup),
    );
    const path: Path = { running, client, server, helpers, idleFits };
    if (this.#options.pin) {
      const plan = planCores(navigator.hardwareConcurrency, workers ?? 1);
      if (plan === undefined) notes.push("there are too few cores to pin processes to");
      else pin(path, plan);
    }
    const fresh: Readings = new Map();
    readMemory(fresh, running.processes, "fresh");
    await warmUp(path, this.#options.timing);
    return { peer: peer.name, workers, path, rounds: [fresh], notes };
  }

  async #profile(folder: string): Promise<void> {
    const profiles = new Map<string, CaseProfile[]>(), { cases, timing } = this.#options;
    for (const series of this.#series) {
      progress(`profile: ${seriesLabel(series)}`);
      const options = { cases, timing, folder, cleanup: this.#cleanup };
      profiles.set(seriesLabel(series), await profileCases(series.path, options));
    }
    if (this.#options.output === "json") await write(profileJson(profiles));
    else for (const [label, cases] of profiles) await write(profileTable(label, cases));
  }

  async #round(round: number): Promise<void> {
    for (const series of this.#series) {
      progress(`round ${round} of ${this.#options.rounds}: ${seriesLabel(series)}`);
      const { readings, notes, foreign } = await measureAll(series.path, this.#options.timing, this.#options.cases);
      this.#foreign.push(foreign);
      series.rounds.push(readings);
      series.notes.push(...notes.map((note) => `round ${round}: ${note}`));
    }
  }
}

/** @returns undefined for a peer that needs a path which was not given, and was not asked for by name. */
function choosePeer(name: PeerName, options: Options): Peer | undefined {
  switch (name) {
    case "direct":
      return new Direct();
    case "haproxy":
      return new Haproxy();
    case "envoy":
      return new Envoy(findEnvoy(options.paths.envoy));
    case "ztunnel":
      if (options.paths.ztunnel === undefined && !options.required.includes("ztunnel")) return undefined;
      return new Ztunnel(options.paths.ztunnel ?? "ztunnel", options.workloads);
    case "ours":
      return new Ours("ours", options);
    case "before":
      return options.paths.before === undefined ? undefined : new Ours("before", options, options.paths.before);
  }
}

/** A command is repeated elsewhere, where programs lie at other places. */
function withoutPath(argument: string): string {
  const match = /^(--peer=)?(ztunnel|envoy|before)=/.exec(argument);
  return match === null ? argument : `${match[0]}PATH`;
}

function progress(line: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(`${line}\n`));
}

async function write(text: string): Promise<void> {
  const writer = Deno.stdout.writable.getWriter();
  await writer.write(new TextEncoder().encode(text));
  writer.releaseLock();
}
