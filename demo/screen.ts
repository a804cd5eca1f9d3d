/** The live screen as lines of text: a pure function of what there is to show and how much room there is. */
import type { CheckResult } from "./checks.ts";
import type { Edge } from "./observer.ts";
import type { ShopperReport } from "./shop.ts";

export interface ScreenState {
  readonly seconds: number;
  readonly roles: readonly { readonly name: string; readonly pid: number; readonly up: boolean }[];
  readonly edges: readonly Edge[];
  readonly report: ShopperReport | undefined;
  readonly chapter: string;
  readonly story: string;
  readonly now: string;
  readonly results: readonly CheckResult[];
  readonly footer: string;
}

export interface ScreenSize {
  readonly columns: number;
  readonly rows: number;
  readonly color: boolean;
}

type Paint = (text: string) => string;

interface Paints {
  readonly bold: Paint;
  readonly dim: Paint;
  readonly good: Paint;
  readonly bad: Paint;
  readonly warn: Paint;
}

function paints(color: boolean): Paints {
  const paint = (code: number): Paint => (text) => color ? `\x1b[${code}m${text}\x1b[0m` : text;
  return { bold: paint(1), dim: paint(2), good: paint(32), bad: paint(31), warn: paint(33) };
}

/** Text cut or padded to a width. */
export function fit(text: string, width: number): string {
  if (width <= 0) return "";
  return text.length > width ? `${text.slice(0, width - 1)}…` : text.padEnd(width);
}

/** Text as lines of at most `width` characters, broken between words. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return line === "" ? lines : [...lines, line];
}

/** `950 B`, `12.3 kB`, `4.5 MB`. */
export function humanBytes(bytes: number): string {
  const units = ["B", "kB", "MB", "GB"];
  let value = bytes, unit = 0;
  for (; value >= 1_000 && unit < units.length - 1; unit++) value /= 1_000;
  return `${unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** At most `rows` lines of at most `columns` visible characters. */
export function renderScreen(state: ScreenState, { columns, rows, color }: ScreenSize): string[] {
  const paint = paints(color), width = Math.max(20, columns);
  const rule = paint.dim("─".repeat(width));
  const roles = state.roles.map(({ name, pid, up }) => up ? `${name} ${pid}` : `${name} DOWN`).join(" · ");
  const top = [
    paint.bold(fit(`ambit demo · two nodes, one shop · ${state.seconds} s`, width)),
    state.roles.every((it) => it.up) ? paint.dim(fit(roles, width)) : paint.bad(fit(roles, width)),
    rule,
    ...edgeLines(state.edges, width, paint),
    ...customerLines(state.report, width, paint),
    rule,
    paint.bold(fit(state.chapter, width)),
    ...wrap(state.story, width).map((line) => paint.dim(line)),
    ...(state.now === "" ? [] : [paint.warn(fit(`▸ ${state.now}`, width))]),
  ];
  const bottom = [rule, paint.dim(fit(state.footer, width))];
  const room = Math.max(0, rows - top.length - bottom.length);
  const results = (room === 0 ? [] : state.results.slice(-room)).map((result) => checkLine(result, width, paint));
  return [...top.slice(0, Math.max(0, rows - bottom.length)), ...results, ...bottom].slice(0, rows);
}

function edgeLines(edges: readonly Edge[], width: number, paint: Paints): string[] {
  const wide = width >= 100;
  const columns = (who: string, as: string, secured: string, rate: string, bytes: string, decided: string) =>
    fit(who, 24) + (wide ? fit(as, 34) : "") + fit(secured, 11) + rate.padStart(7) + "  " + bytes.padStart(11) + "  " +
    fit(decided, Math.max(0, width - (wide ? 34 : 0) - 57));
  const header = columns("who talks to whom", "by which identity", "secured", "conn/s", "bytes/s", "decided by");
  const lines = edges.map((edge) => {
    const line = columns(
      `${edge.source} → ${edge.destination}`,
      `${edge.sourceIdentity || "nobody"} → ${edge.destinationIdentity || "nobody"}`,
      edge.mutualTls ? "mTLS" : "PLAINTEXT",
      edge.connectionsPerSecond.toFixed(0),
      humanBytes(edge.bytesPerSecond),
      edge.refusedBy === "" ? "no policy against it" : `refused: ${edge.refusedBy}`,
    );
    if (edge.refusedBy !== "") return paint.bad(line);
    if (edge.connectionsPerSecond === 0) return paint.dim(line);
    return edge.mutualTls ? paint.good(line) : paint.warn(line);
  });
  return [paint.dim(header), ...lines];
}

function customerLines(report: ShopperReport | undefined, width: number, paint: Paints): string[] {
  if (report === undefined) return [];
  return report.targets.map((it) => {
    const perSecond = (it.succeeded * 1_000 / report.intervalMs).toFixed(0);
    const text = `customer at ${it.target}: ${perSecond}/s, half within ${it.p50Ms.toFixed(1)} ms, ` +
      `99 % within ${it.p99Ms.toFixed(1)} ms${it.failed === 0 ? "" : `, ${it.failed} failed: ${it.error}`}`;
    return it.failed === 0 ? fit(text, width) : paint.bad(fit(text, width));
  });
}

/** One line for a check. */
export function checkLine({ name, ok, detail }: CheckResult, width: number, paint = paints(false)): string {
  const mark = ok ? paint.good("✓") : paint.bad("✗");
  const rest = width - name.length - 5;
  return `${mark} ${fit(name, Math.min(name.length, width - 2))}${
    rest > 8 ? paint.dim(` · ${fit(detail, rest).trimEnd()}`) : ""
  }`;
}
