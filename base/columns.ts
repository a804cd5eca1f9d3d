/** Rows of text under their headings, as kubectl prints them. Pure. */

const GAP = "   ";

/** Each column is as wide as its widest cell. An empty cell is shown as `-`, so that columns can be counted. @returns Lines, each with its end. */
export function columns(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const shown = [headings, ...rows.map((row) => row.map((cell) => cell === "" ? "-" : cell))];
  const widths = headings.map((_, at) => Math.max(...shown.map((row) => row[at]?.length ?? 0)));
  return shown.map((row) => `${row.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join(GAP).trimEnd()}\n`).join("");
}
