/** What kills cost, and the table of it, as it may stand in bench/RESULTS.md. */

export type Part = "istiod" | "ztunnel" | "cni";

/** What one kill cost: requests that failed, and when the last of them did; when the part was ready again. */
export interface Cost {
  readonly part: Part;
  readonly failed: number;
  readonly asked: number;
  /** From the kill; 0 where none failed. */
  readonly lastMs: number;
  readonly readyMs: number;
  /** Lanes of the load that lost something. */
  readonly lanes: number;
}

/** A line for each part that was killed. */
export function costTable(costs: readonly Cost[]): string[] {
  const rows = [...new Set(costs.map(({ part }) => part))].map((part) => {
    const own = costs.filter((it) => it.part === part);
    const sum = (of: (cost: Cost) => number) => own.reduce((all, it) => all + of(it), 0);
    const spread = (of: (cost: Cost) => number) => {
      const sorted = own.map(of).sort((one, other) => one - other);
      return `${grouped(sorted[(sorted.length - 1) >> 1]!)} / ${grouped(sorted.at(-1)!)}`;
    };
    const free = own.filter(({ failed }) => failed === 0).length;
    const cells = [
      part,
      own.length,
      grouped(sum((it) => it.asked)),
      grouped(sum((it) => it.failed)),
      spread((it) => it.failed),
      spread((it) => it.lastMs),
      spread((it) => it.readyMs),
      free,
    ];
    return `| ${cells.join(" | ")} |`;
  });
  return [
    "| killed | times | requests | lost | a kill, p50 / max | last one lost after, ms, p50 / max | ready again after, ms, p50 / max | kills that cost nothing |",
    "|---|---|---|---|---|---|---|---|",
    ...rows,
  ];
}

const grouped = (count: number) => count.toLocaleString("en-US");

/** Numbers that look random and are the same each time, from 0 to below 1 (mulberry32). */
export function sequence(seed: number): () => number {
  let state = seed;
  return () => {
    state = state + 0x6d2b79f5 | 0;
    let mixed = Math.imul(state ^ state >>> 15, 1 | state);
    mixed = mixed + Math.imul(mixed ^ mixed >>> 7, 61 | mixed) ^ mixed;
    return ((mixed ^ mixed >>> 14) >>> 0) / 2 ** 32;
  };
}
