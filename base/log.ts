/** Structured logs: a constant message, facts as pairs. Plain (RFC 3339, tab separated) or JSON lines (ZT-200). */

export const LEVELS = ["off", "error", "warn", "info", "debug", "trace"] as const;
export type Level = (typeof LEVELS)[number];
export type Facts = Readonly<Record<string, string | number | boolean | Bare | undefined>>;

/** A text that plain lines show without quotes, such as an address (ZT-200), unless it holds what would end it. */
export class Bare {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  toString(): string {
    // Whoever named this must not be able to forge a field or a line.
    return /[\s\p{Cc}\p{Bidi_Control}"]/u.test(this.#text) ? quoted(this.#text) : this.#text;
  }

  toJSON(): string {
    return this.#text;
  }
}

/** What JSON lets through and a terminal acts upon: control codes beyond ASCII's, line separators, changes of direction. */
const UNSEEN = /[\x7f-\x9f\u2028\u2029\p{Bidi_Control}]/u, ALL_UNSEEN = new RegExp(UNSEEN.source, "gu");

/** A value as JSON in which everything can be seen: what peers have said is read on terminals. */
function quoted(value: unknown): string {
  const text = JSON.stringify(value);
  if (!UNSEEN.test(text)) return text;
  return text.replace(ALL_UNSEEN, (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Where finished lines go. Writing must not block for long; the default writes to standard output. */
export type Sink = (line: string) => void;

const encoder = new TextEncoder();
const standardOutput: Sink = (line) => {
  const bytes = encoder.encode(line + "\n");
  for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
};

/** What decides whether a line of a scope is written; changed live by the admin endpoint (ZT-216). */
export class LogFilter {
  #byScope = new Map<string, number>();
  #fallback: number;

  constructor(fallback: Level = "info") {
    this.#fallback = LEVELS.indexOf(fallback);
  }

  set(level: Level, scope?: string): void {
    if (scope === undefined) this.#fallback = LEVELS.indexOf(level);
    else this.#byScope.set(scope, LEVELS.indexOf(level));
  }

  reset(level: Level): void {
    this.#byScope.clear();
    this.#fallback = LEVELS.indexOf(level);
  }

  allows(level: number, scope: string): boolean {
    return level <= (this.#byScope.get(scope) ?? this.#fallback);
  }

  /** As `current log level is …` prints it: the fallback, then `scope=level` pairs. */
  toString(): string {
    return [LEVELS[this.#fallback], ...[...this.#byScope].map(([scope, level]) => `${scope}=${LEVELS[level]}`)].join(
      ",",
    );
  }
}

let stampMs = 0, stamp = "";

/** The time of a line; many are written in one millisecond. */
function timeText(): string {
  const nowMs = Date.now();
  if (nowMs !== stampMs) {
    stampMs = nowMs;
    stamp = new Date(nowMs).toISOString().replace("Z", "000Z");
  }
  return stamp;
}

/** Facts as plain lines show them. */
export function formatFacts(facts: Facts): string {
  let text = "";
  for (const key in facts) {
    const value = facts[key];
    if (value === undefined) continue;
    text += `${text === "" ? "" : " "}${key}=${typeof value === "string" ? quoted(value) : value}`;
  }
  return text;
}

/** A logger of one scope. Children share filter, format and sink. */
export class Logger {
  readonly scope: string;
  readonly filter: LogFilter;
  readonly json: boolean;
  readonly #sink: Sink;

  constructor(scope: string, options: { filter?: LogFilter; json?: boolean; sink?: Sink } = {}) {
    this.scope = scope;
    this.filter = options.filter ?? new LogFilter();
    this.json = options.json ?? false;
    this.#sink = options.sink ?? standardOutput;
  }

  child(scope: string): Logger {
    return new Logger(scope, { filter: this.filter, json: this.json, sink: this.#sink });
  }

  /** Whether lines of this level are written: for those whose facts would be gathered thousands of times a second. */
  writes(level: Level): boolean {
    return this.filter.allows(LEVELS.indexOf(level), this.scope);
  }

  error(message: string, facts?: Facts): void {
    this.write(1, message, facts);
  }
  warn(message: string, facts?: Facts): void {
    this.write(2, message, facts);
  }
  info(message: string, facts?: Facts): void {
    this.write(3, message, facts);
  }
  debug(message: string, facts?: Facts): void {
    this.write(4, message, facts);
  }

  /** Writes one line if the filter lets it through. `level` is an index into LEVELS. */
  write(level: number, message: string, facts: Facts = {}): void {
    if (!this.filter.allows(level, this.scope)) return; // Most lines are not: a time is not worth making for them.
    this.writeAt(timeText(), level, message, facts);
  }

  /** The same for facts that {@link formatFacts} has made a text of, by a logger whose lines are plain. */
  writePlain(level: number, message: string, facts: string): void {
    if (this.filter.allows(level, this.scope)) this.#writeLine(timeText(), level, message, facts);
  }

  /** The same for something that another process said, at its own time. */
  writeAt(time: string, level: number, message: string, facts: Facts): void {
    if (!this.filter.allows(level, this.scope)) return;
    if (this.json) {
      this.#sink(quoted({ level: LEVELS[level], time, scope: this.scope, message, ...facts }));
      return;
    }
    this.#writeLine(time, level, message, formatFacts(facts));
  }

  #writeLine(time: string, level: number, message: string, facts: string): void {
    const line = `${time}\t${LEVELS[level]}\t${this.scope}\t${message}`;
    this.#sink(facts === "" ? line : `${line}\t${facts}`);
  }
}
