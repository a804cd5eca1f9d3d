/** What a run found that must not be, each kind once, with how often. */

export class Findings {
  readonly #counts = new Map<string, number>();
  readonly #onFirst: (finding: string) => void;

  /** `onFirst` is told each finding when it first comes. */
  constructor(onFirst: (finding: string) => void) {
    this.#onFirst = onFirst;
  }

  get ok(): boolean {
    return this.#counts.size === 0;
  }

  /** As lines, with counts. */
  get lines(): string[] {
    return [...this.#counts].map(([finding, count]) => `${finding} (${count})`);
  }

  /** Notes a finding; `count` is how often it has been seen altogether. */
  add(kind: string, detail: string, count = 1): void {
    const finding = `${kind}: ${detail}`, before = this.#counts.get(finding);
    this.#counts.set(finding, Math.max(before ?? 0, count));
    if (before === undefined) this.#onFirst(finding);
  }
}
