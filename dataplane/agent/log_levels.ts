/** Log filters as text: `info`, or `info,access=debug` (ZT-216). */
import { type Level, LEVELS, type LogFilter } from "../../base/log.ts";

/** Adds what the text says to the filter. @returns undefined, or the part that is no level. Nothing is changed then. */
export function applyLevels(filter: LogFilter, text: string): string | undefined {
  const changes: [Level, string | undefined][] = [];
  for (const part of text.split(",")) {
    const equals = part.indexOf("="), level = part.slice(equals + 1).trim().toLowerCase() as Level;
    if (!LEVELS.includes(level)) return part;
    changes.push([level, equals < 0 ? undefined : part.slice(0, equals).trim()]);
  }
  for (const [level, scope] of changes) filter.set(level, scope);
  return undefined;
}
