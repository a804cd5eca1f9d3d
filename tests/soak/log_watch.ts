/** Reads what the roles log: errors that nobody should have made, and how connections ended that did not end well. */

const LINES_KEPT = 20;
// Of the runtime, not of a role: notices about packages and about its own interfaces.
const OF_THE_RUNTIME = /^(\s|Warning|╭|│|╰|$|Deno\.serve: request\.signal)/;
const LOG_LINE = /^\d{4}-\d\d-\d\dT[\d:.]+Z\t(\w+)\t([^\t]*)\t([^\t]*)(?:\t(.*))?$/;

/** What connections may say at their end in a world where pods leave, policies change and applications reset. */
export class LogWatch {
  /** Lines of level error, or of no level, that are no access records. */
  readonly unexpected: string[] = [];
  unexpectedCount = 0;
  /** Access records of connections that failed, by reason with all that is particular taken out. */
  readonly refusals = new Map<string, number>();
  /** Warnings by scope and message. */
  readonly warnings = new Map<string, number>();

  take(role: string, line: string): void {
    const match = LOG_LINE.exec(line);
    if (match === null) {
      if (!OF_THE_RUNTIME.test(line)) this.#unexpected(`${role}: ${line}`);
      return;
    }
    const [, level, scope, message, facts = ""] = match as unknown as [string, string, string, string, string?];
    if (scope === "access") {
      const reason = /error="((?:[^"\\]|\\.)*)"/.exec(facts)?.[1] ?? /error=(\S+)/.exec(facts)?.[1];
      if (reason !== undefined) count(this.refusals, general(reason));
    } else if (level === "error") this.#unexpected(`${role}: ${line}`);
    else if (level === "warn") count(this.warnings, `${role.split(" ")[0]} ${scope}: ${message}`);
  }

  #unexpected(line: string): void {
    this.unexpectedCount++;
    if (this.unexpected.length < LINES_KEPT) this.unexpected.push(line);
  }
}

/** Without addresses, numbers and names, so that equal reasons are equal. */
function general(reason: string): string {
  return reason.replaceAll(/\[?[0-9a-f]*:[0-9a-f:]+\]?(:\d+)?|\d+\.\d+\.\d+\.\d+(:\d+)?/g, "ADDRESS")
    .replaceAll(/\d+/g, "N").replaceAll(/(explicitly denied by: )\S+/g, "$1POLICY");
}

function count(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}
