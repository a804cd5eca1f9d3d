/** A parent that starts ztunnel again in the moment it dies, where whoever else would do it takes seconds: process 1 of a container. */
import { ConfigDefinition } from "../base/config.ts";
import { ignore } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { pause } from "../base/waiting.ts";

/** Names the parent to its child, which is not to become one itself. */
const PARENT = "AMBIT_SUPERVISOR_PID";
/** Who dies sooner has not come to serve: what ails it is there in the next start, too. */
const SERVED_MS = 2_000;
/** So many starts in a row that came to nothing; then the end is whoever's who started us, with their back-off. */
const FUTILE_MAX = 3, FUTILE_PAUSE_MS = 100;
const EXIT_USAGE = 64;

/** How a child ended. */
export interface End {
  readonly code: number;
  readonly signal: string | null;
  readonly ranMs: number;
}

/** What is done after an end: `futile` counts the starts in a row that came to nothing, this one included. */
export interface Next {
  readonly again: boolean;
  readonly waitMs: number;
  readonly futile: number;
}

/** Decides. One that ends by itself with status 0, or for its settings, is not started again. */
export function afterEnd({ code, signal, ranMs }: End, futileBefore: number): Next {
  if (signal === null && (code === 0 || code === EXIT_USAGE)) return { again: false, waitMs: 0, futile: 0 };
  if (ranMs >= SERVED_MS) return { again: true, waitMs: 0, futile: 0 };
  const futile = futileBefore + 1;
  return { again: futile < FUTILE_MAX, waitMs: FUTILE_PAUSE_MS, futile };
}

/** Whether this process is to be a parent: it is asked for, by flag or by environment, and is no child of one. */
export function isParent(args: readonly string[]): boolean {
  const asked = args.some((it) => it === "--supervised" || it === "--supervised=true") ||
    Deno.env.get("AMBIT_SUPERVISED") === "true";
  return asked && !ConfigDefinition.wantsHelp(args) && Deno.env.get(PARENT) !== `${Deno.ppid}`;
}

/** Runs this very command as a child, again and again, until it is told to end or gives up. @returns The exit status. */
export async function supervise(log: Logger): Promise<number> {
  const stop = new AbortController(), signal = stop.signal;
  for (const name of ["SIGTERM", "SIGINT"] as const) Deno.addSignalListener(name, () => stop.abort());
  const args = Deno.readTextFileSync("/proc/self/cmdline").split("\0").slice(1, -1);
  for (let futile = 0;;) {
    const startedMs = performance.now();
    const child = new Deno.Command(Deno.execPath(), {
      args,
      env: { [PARENT]: `${Deno.pid}` },
      stdin: "null",
      stdout: "inherit",
      stderr: "inherit",
    }).spawn();
    const told = () => {
      try {
        child.kill("SIGTERM");
      } catch (error) {
        ignore(error, "it has ended by itself, in this moment");
      }
    };
    signal.addEventListener("abort", told, { once: true });
    if (signal.aborted) told();
    const end = await child.status;
    signal.removeEventListener("abort", told);
    const status = end.signal === null ? end.code : 128 + end.code % 128;
    if (signal.aborted) return status;
    const next = afterEnd({ ...end, ranMs: performance.now() - startedMs }, futile);
    if (!next.again) return status;
    log.warn("ztunnel has ended: it is started again", { status, signal: end.signal ?? "none" });
    futile = next.futile;
    if (next.waitMs > 0 && !await pause(next.waitMs, signal)) return status;
  }
}
