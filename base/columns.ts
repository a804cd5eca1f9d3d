/** Rows of text under their headings, as kubectl prints them. Pure. */

const GAP = "   ";

// What a terminal would obey rather than show: names in a dump may be anybody's.
// deno-lint-ignore no-control-regex -- they are what is looked for.
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g;

/**
 * Each column is as wide as its widest cell. An empty cell is shown as `-`, so that columns can be counted, and what a
 * terminal would obey as `?`. @returns Lines, each with its end.
 */
export function columns(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const shown = [headings, ...rows.map((row) => row.map((cell) => cell === "" ? "-" : cell.replace(CONTROL, "?")))];
  const widths = headings.map((_, at) => shown.reduce((most, row) => Math.max(most, row[at]?.length ?? 0), 0));
  return shown.map((row) => `${row.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join(GAP).trimEnd()}\n`).join("");
}
