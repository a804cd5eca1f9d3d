/** One soak from the building of the mesh to the last look at it. */
import { chain, ignore } from "../../base/errors.ts";
import { Mesh } from "../../demo/lab/mesh.ts";
import { NODE_NAMES, WIRE } from "../../demo/lab/network.ts";
import { PATTERN_MARKER } from "../../demo/lab/pattern.ts";
import { pause, until } from "../../demo/lab/until.ts";
import { isHbone, Wiretap } from "../../demo/lab/wiretap.ts";
import { type Inventory, takeInventory } from "../../demo/leftovers.ts";
import { Chance } from "../sim/chance.ts";
import { type Churn, CHURNS } from "./churn/churn.ts";
import { currentOf, plugIn } from "./churn/roots.ts";
import { Findings } from "./findings.ts";
import { Gauges, lifeLine, memoryGrowth, mib, QUANTITIES } from "./gauges.ts";
import { LogWatch } from "./log_watch.ts";
import { trendOf } from "./samples.ts";
import { Stage } from "./stage.ts";

const CALM_WITHIN_MS = 60_000;
const DESCRIPTORS_MORE_MAX = 8; // sockets of the agent's own that come and go: a page being read, a certificate asked for
// What a person has who may look at nothing else: load that fills the mesh and leaves room for its churn.
const LOAD = { lanes: 16, pauseMs: 40, bulkBytesMax: 8_000_000, longMs: 20_000 };

export interface SoakOptions {
  readonly minutes: number;
  readonly seed: number;
  readonly interval: number;
  readonly takeover: number;
}

interface Surroundings {
  readonly say: (line: string) => void;
  readonly interrupted: AbortSignal;
}

export class Soak implements AsyncDisposable {
  readonly findings: Findings;
  readonly #options: SoakOptions;
  readonly #say: (line: string) => void;
  readonly #interrupted: AbortSignal;
  readonly #over = new AbortController();
  readonly #logs = new LogWatch();
  readonly #cleanup = new AsyncDisposableStack();
  #inventory: Inventory | undefined;
  #stage: Stage | undefined;
  #gauges: Gauges | undefined;
  #wiretap: Wiretap | undefined;
  #churn: Promise<void> = Promise.resolve();
  #startedAtMs = 0;
  #last = { connections: 0, open: 0, bytes: 0, failures: 0, good: {} as Record<string, number> };

  constructor(options: SoakOptions, { say, interrupted }: Surroundings) {
    this.#options = options;
    this.#say = say;
    this.#interrupted = interrupted;
    this.findings = new Findings((finding) => say(`FOUND after ${this.#seconds()} s: ${finding}`));
  }

  /** What the mesh occupies, once it stands. */
  get inventory(): Inventory | undefined {
    return this.#inventory;
  }

  /** Builds, presses, churns, looks, and calms down. @returns What was carried, in words. Throws when interrupted. */
  async run(): Promise<string> {
    const { minutes, seed } = this.#options;
    this.#say(`Building the mesh; then ${minutes} min of load and churn, seed ${seed} …`);
    await this.#build(new Chance(seed));
    const stage = this.#stage!, gauges = this.#gauges!;
    const descriptorsBefore = await this.#descriptorsAtCalm(), kindsBefore = this.#kinds();
    this.#startedAtMs = performance.now();
    await stage.press();
    this.#churn = Promise.all(CHURNS.map((churn) => this.#keep(churn))).then(() => {});
    const endAtMs = this.#startedAtMs + minutes * 60_000;
    while (performance.now() < endAtMs) {
      await this.#wait(Math.min(this.#options.interval, endAtMs - performance.now()));
      await this.#look();
    }
    this.#over.abort();
    await this.#churn;
    await stage.rest();
    await this.#look();
    await this.#judgeCalm(descriptorsBefore, kindsBefore);
    for (const life of gauges.lives) {
      const growth = memoryGrowth(life);
      if (growth !== undefined) this.findings.add("memory grows", growth);
    }
    this.#sayResult();
    return `${this.#last.connections} connections, ${(this.#last.bytes / 1e9).toFixed(2)} GB compared`;
  }

  /** For `-o json`. */
  report(): Record<string, unknown> {
    const lives = (this.#gauges?.lives ?? []).map((life) => ({
      role: life.role,
      pid: life.pid,
      samples: life.samples.length,
      ...Object.fromEntries(QUANTITIES.map((quantity) => [quantity, trendOf(life.samples, quantity)])),
    }));
    return {
      ...this.#options,
      findings: this.findings.lines,
      traffic: this.#last,
      churn: this.#stage?.counts ?? {},
      refusals: Object.fromEntries(this.#logs.refusals),
      warnings: Object.fromEntries(this.#logs.warnings),
      lives,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#over.abort();
    await this.#cleanup.disposeAsync(); // Whose deed is not done finds that the mesh takes nothing more.
  }

  async #build(chance: Chance): Promise<void> {
    const caFolder = Deno.makeTempDirSync({ prefix: `ambit-lab-${Deno.pid}-ca-` });
    this.#cleanup.defer(() => Deno.remove(caFolder, { recursive: true }));
    await plugIn(caFolder);
    const mesh = this.#cleanup.use(
      await Mesh.start({
        key: "soak",
        caFolder: currentOf(caFolder),
        ztunnelEnvironment: { SECRET_TTL: "1m" },
        onLine: (role, line) => this.#logs.take(role, line),
      }),
    );
    this.#wiretap = this.#cleanup.use(new Wiretap(mesh.network.nodes["node-a"].netns, WIRE, PATTERN_MARKER));
    this.#stage = await Stage.open(
      { mesh, chance, findings: this.findings, load: LOAD, caFolder, takeoverMs: this.#options.takeover },
      this.#over.signal,
    );
    this.#gauges = new Gauges(mesh);
    this.#inventory = takeInventory(mesh);
  }

  async #keep(churn: Churn): Promise<void> {
    try {
      await churn.run(this.#stage!);
    } catch (error) {
      if (this.#interrupted.aborted) ignore(error, "the mesh was taken away under it");
      else this.findings.add(`the churn of ${churn.name} broke off`, chain(error));
    }
  }

  /** Waits, or throws when interrupted. */
  async #wait(ms: number): Promise<void> {
    let stop = () => {};
    const stopped = new Promise<void>((resolve) => stop = resolve);
    this.#interrupted.addEventListener("abort", stop);
    if (!this.#interrupted.aborted) await Promise.race([pause(ms), stopped]);
    this.#interrupted.removeEventListener("abort", stop);
    if (this.#interrupted.aborted) throw new Error("interrupted");
  }

  /** What is looked at every interval. */
  async #look(): Promise<void> {
    const stage = this.#stage!, gauges = this.#gauges!, before = this.#last;
    this.#last = await stage.look();
    await this.#lookAtWire();
    for (const line of this.#logs.unexpected) this.findings.add("an error in the log", line.slice(0, 500));
    for (const node of NODE_NAMES) {
      const { opened, closed } = await gauges.books(node);
      const carried = stage.carried.get(node) ?? 0; // Opened under a ztunnel before this one.
      if (closed > opened + carried) {
        this.findings.add("more connections closed than opened", `${node}: ${closed} of ${opened}`);
      }
    }
    const seen = gauges.sample(performance.now() - this.#startedAtMs);
    const { connections, open, bytes, failures } = this.#last;
    const roles = seen.map(({ role, sample }) =>
      `${role} ${mib(sample.rssBytes)} (${mib(sample.pssBytes)}) ${sample.descriptors}`
    );
    this.#say(
      `${this.#seconds().padStart(5)} s  ${connections} connections (+${
        connections - before.connections
      }, ${open} open, ` +
        `${failures} to guests cut), ${(bytes / 1e9).toFixed(2)} GB; RSS (PSS) and descriptors: ${roles.join(", ")}`,
    );
  }

  async #lookAtWire(): Promise<void> {
    for (const direction of await this.#wiretap!.seen()) {
      const { source, sourcePort, destination, destinationPort, bytes, markers } = direction;
      const between = `${source} port ${sourcePort} to ${destination} port ${destinationPort}`;
      if (markers > 0) this.findings.add("plaintext on the wire", between);
      else if (!isHbone(direction) && bytes > 0) this.findings.add("bytes beside HBONE on the wire", between);
      else if (direction.tls?.broken) this.findings.add("no TLS on the HBONE port", between);
    }
  }

  /** Without load: nothing is open, all that was opened is closed, and descriptors are back where they were. */
  async #judgeCalm(descriptorsBefore: Record<string, number>, kindsBefore: Record<string, string>): Promise<void> {
    for (const node of NODE_NAMES) {
      try {
        await until(`the books of ${node} balance`, CALM_WITHIN_MS, async () => {
          const { opened, closed, open } = await this.#gauges!.books(node);
          const carried = this.#stage!.carried.get(node) ?? 0;
          // Who was taken over ends here and began elsewhere, as long as the totals of his workload are kept: five minutes
          // after its last word those of one that left are forgotten.
          if (open === 0 && opened <= closed && closed <= opened + carried) return true;
          throw new Error(`${opened} opened, ${carried} taken over, ${closed} closed, ${open} open`);
        });
      } catch (error) {
        this.findings.add("the metrics do not add up", chain(error));
      }
    }
    const after = await this.#descriptorsAtCalm();
    for (const [role, count] of Object.entries(after)) {
      const before = descriptorsBefore[role] ?? 0;
      if (count > before + DESCRIPTORS_MORE_MAX) {
        const kinds = `before ${kindsBefore[role]}, after ${this.#kinds()[role]}`;
        this.findings.add("descriptors are left open", `${role}: ${before} before, ${count} after; ${kinds}`);
      }
    }
  }

  /** What each role has open, by kind, to be read where there is too much of it. */
  #kinds(): Record<string, string> {
    const gauges = new Gauges(this.#stage!.mesh), roles = gauges.sample(0).map(({ role }) => role);
    return Object.fromEntries(roles.map((role) => [role, JSON.stringify(gauges.kinds(role))]));
  }

  /** Open descriptors of each role less those of sessions, which live on for a while. */
  async #descriptorsAtCalm(): Promise<Record<string, number>> {
    const sessions = Object.fromEntries(
      await Promise.all(
        NODE_NAMES.map(async (node) =>
          [`ztunnel ${node.slice(-1)}`, (await this.#gauges!.books(node)).sessions] as const
        ),
      ),
    );
    const seen = new Gauges(this.#stage!.mesh).sample(0);
    return Object.fromEntries(seen.map(({ role, sample }) => [role, sample.descriptors - (sessions[role] ?? 0)]));
  }

  #sayResult(): void {
    const list = (counts: Iterable<readonly [string, number]>) =>
      [...counts].map(([name, count]) => `${count} ${name}`).join(", ");
    this.#say(`\nchurn: ${list(Object.entries(this.#stage!.counts))}`);
    this.#say(`connections that went as they should, by kind: ${list(Object.entries(this.#last.good))}`);
    this.#say(`failures in the access log: ${list(this.#logs.refusals)}`);
    this.#say(`warnings: ${list(this.#logs.warnings)}`);
    this.#say(`frames that the listener on the wire missed: ${this.#wiretap!.droppedCount}`);
    this.#say("first/median/last and slope:");
    for (const life of this.#gauges!.lives) if (life.samples.length > 2) this.#say(`  ${lifeLine(life)}`);
  }

  #seconds(): string {
    return String(Math.round((performance.now() - this.#startedAtMs) / 1_000));
  }
}
