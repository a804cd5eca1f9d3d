/** `deno task demo`: a mesh of two nodes on this machine, shown at work, put to the test, and taken away again. */
import { ConfigDefinition, defineConfig, oneOf, toggle } from "../base/config.ts";
import { chain, ignore, MeshError } from "../base/errors.ts";
import { type CheckMaker, Checks } from "./checks.ts";
import {
  canBuildHere,
  fetchImports,
  hasNetnsFolder,
  removeNetnsFolder,
  runInUserNamespace,
  settleInside,
} from "./footing.ts";
import { sweepLeftovers } from "./lab/network.ts";
import { pause } from "./lab/until.ts";
import { checkLeftovers, interfaceNames, takeInventory } from "./leftovers.ts";
import { Observer } from "./observer.ts";
import { checkLine } from "./screen.ts";
import { Shop } from "./shop.ts";
import { Terminal, wantsColor } from "./terminal.ts";
import { CHAPTERS } from "./walk/chapters.ts";
import { Stage } from "./walk/stage.ts";

const EXIT_INTERRUPTED = 130, EXIT_USAGE = 64;
// What a person needs to read a line, and a chapter's story.
const READING_MS = 2_500, STORY_MS = 6_000;

export const DEMO_CONFIG = defineConfig("deno task demo", {
  once: { kind: toggle(), flag: "once", default: false, help: "make the walk once, without the live screen, and end" },
  output: {
    kind: oneOf("text", "json"),
    flag: "output",
    short: "o",
    default: "text",
    help: "json: the checks alone",
  },
});

/** Announces a chapter, and leaves time to read it. */
type Announce = (number: number, title: string, story: string) => Promise<void>;

/** Somebody wants it to end, which is no failure. */
class Interruption extends Error {}

function print(text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
}

/** Rejects when the signal aborts; never resolves. */
function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) return reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

async function walk(stage: Stage, announce: Announce): Promise<void> {
  for (const [index, { title, story, run }] of CHAPTERS.entries()) {
    await announce(index + 1, title, story);
    try {
      await run(stage);
    } catch (error) {
      // The chapters stand alone: what one could not go through with is a check that does not hold.
      await stage.checks.check(`the chapter "${title}" runs to its end`, () => ({ ok: false, detail: chain(error) }));
    }
  }
}

/** The walk with lines of text, or in silence for `-o json`. */
async function runOnce(shop: Shop, checks: CheckMaker, quiet: boolean): Promise<void> {
  const say = quiet ? () => {} : print;
  const tell = (text: string) => Promise.resolve(say(`  ▸ ${text}\n`));
  await walk(new Stage(shop, checks, tell), (number, title, story) => {
    return Promise.resolve(say(`\n${number} of ${CHAPTERS.length}: ${title}\n${story}\n`));
  });
}

/** The walk on the live screen, at a reader's pace; then the screen stays until somebody quits. */
async function runLive(shop: Shop, checks: Checks, observer: Observer, quit: () => void, signal: AbortSignal) {
  const startedAtMs = performance.now();
  let chapter = "", story = "", now = "", done = false;
  using terminal = new Terminal(() => ({
    seconds: Math.floor((performance.now() - startedAtMs) / 1_000),
    roles: [
      { name: "istiod", pid: shop.mesh.istiod.pid, up: !shop.mesh.istiod.ended },
      ...Object.values(shop.mesh.nodes).flatMap(({ place, ztunnel, cni }) => [
        { name: `ztunnel ${place.node}`, pid: ztunnel.pid, up: !ztunnel.ended },
        { name: `cni ${place.node}`, pid: cni.pid, up: !cni.ended },
      ]),
    ],
    edges: observer.edges,
    report: shop.reports.at(-1),
    chapter,
    story,
    now,
    results: checks.results,
    footer: done
      ? "The walk is over; the shop stays open. q ends it, and nothing is left."
      : "q ends it, and nothing is left.",
  }), quit);
  const stage = new Stage(shop, checks.until(signal), async (text) => {
    now = text;
    terminal.draw();
    await pause(READING_MS);
  });
  await walk(stage, async (number, title, text) => {
    [chapter, story, now] = [`${number} of ${CHAPTERS.length}: ${title}`, text, ""];
    terminal.draw();
    await pause(STORY_MS);
  });
  [done, now] = [true, ""];
  await aborted(signal);
}

/** Builds, shows, takes down, and checks that nothing is left. @returns The exit status. */
async function run(config: { once: boolean; output: "text" | "json" }, stop: AbortController): Promise<number> {
  const json = config.output === "json";
  const live = !config.once && !json && Deno.stdout.isTerminal() && Deno.stdin.isTerminal();
  const color = Deno.stdout.isTerminal() && wantsColor((name) => Deno.env.get(name));
  const showLine = json || live ? () => {} : (line: string) => print(`  ${line}\n`);
  const checks = new Checks((result) => showLine(checkLine(result, color ? Deno.consoleSize().columns - 2 : 400)));
  const folderBefore = hasNetnsFolder(), interfacesBefore = interfaceNames();
  sweepLeftovers();
  let note = (_: string) => {};
  let shop: Shop | undefined;
  const startedAtMs = performance.now();
  if (!json) print("Building two nodes, a control plane and a shop …\n");
  await checks.check("two nodes, istiod and six pods are up", async () => {
    shop = await Shop.open({ key: "demo", onLine: (role, line) => role.startsWith("ztunnel") && note(line) });
    return { ok: true, detail: `after ${Math.round(performance.now() - startedAtMs)} ms` };
  });
  if (shop !== undefined) {
    const inventory = takeInventory(shop.mesh);
    try {
      await using observer = new Observer(shop);
      note = (line) => observer.note(line);
      const working = live
        ? runLive(shop, checks, observer, () => stop.abort(new Interruption("quit")), stop.signal)
        : runOnce(shop, checks.until(stop.signal), json);
      await Promise.race([working, aborted(stop.signal)]);
    } catch (error) {
      if (!stop.signal.aborted || !(error instanceof Interruption)) {
        await checks.check("the walk runs to its end", () => ({ ok: false, detail: chain(error) }));
      }
    } finally {
      if (!json) print("\nTaking everything down …\n");
      await shop[Symbol.asyncDispose]();
      if (!folderBefore) removeNetnsFolder();
      await checkLeftovers(checks, inventory, interfacesBefore);
    }
  }
  if (json) print(checks.toJson() + "\n");
  else summarize(checks, performance.now() - startedAtMs, live);
  return stop.signal.aborted && !live ? EXIT_INTERRUPTED : checks.ok ? 0 : 1;
}

function summarize(checks: Checks, ms: number, live: boolean): void {
  const failed = checks.results.filter((it) => !it.ok);
  if (live) { for (const result of checks.results) print(`${checkLine(result, 400)}\n`); }
  else for (const result of failed) print(`${checkLine(result, 400)}\n`);
  print(
    `\n${checks.results.length - failed.length} of ${checks.results.length} checks hold, after ${
      Math.round(ms / 1_000)
    } s.\n`,
  );
}

async function main(args: readonly string[]): Promise<number> {
  if (ConfigDefinition.wantsHelp(args)) {
    print(
      DEMO_CONFIG.help("A mesh of two nodes on this machine, shown at work, put to the test, and taken away again."),
    );
    return 0;
  }
  const stop = new AbortController();
  addEventListener("unhandledrejection", (event) => {
    event.preventDefault(); // Whatever goes wrong, what was built is taken down first.
    if (stop.signal.aborted) return ignore(event.reason, "questions that were open when it was stopped");
    stop.abort(event.reason);
  });
  const onSignal = () => stop.abort(new Interruption("interrupted"));
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) Deno.addSignalListener(signal, onSignal);
  try {
    const { config } = DEMO_CONFIG.parse(args, () => undefined);
    settleInside();
    if (canBuildHere()) {
      if (Deno.env.get("AMBIT_DEMO_INSIDE") === undefined) await fetchImports();
      return await run(config, stop);
    }
    await fetchImports();
    return await runInUserNamespace(args, stop.signal);
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    Deno.stderr.writeSync(
      new TextEncoder().encode(`error: ${chain(error)}\nfix: ${error.remedy}\ncode: ${error.code}\n`),
    );
    return error.code.startsWith("AMB01") ? EXIT_USAGE : 1;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
