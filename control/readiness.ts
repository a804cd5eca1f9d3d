/** Whether istiod may be sent clients (CP-012): not before it serves the whole mesh, and then until it stops. */

/** One thing that readiness hangs on, or hung on at the start. */
export interface ReadinessLine {
  readonly name: string;
  /** False after the start: degraded, which takes no readiness away, since the last known mesh is still served. */
  readonly well: boolean;
  readonly detail: string;
}

export class Readiness {
  #state: "starting" | "ready" | "stopping" = "starting";
  readonly #reports: (() => readonly ReadinessLine[])[] = [];

  get ready(): boolean {
    return this.#state === "ready";
  }

  /** Everything is served from here on. A signal that came meanwhile is not undone. */
  open(): void {
    if (this.#state === "starting") this.#state = "ready";
  }

  close(): void {
    this.#state = "stopping";
  }

  /** Has a part say how it fares, whenever someone asks. */
  report(lines: () => readonly ReadinessLine[]): void {
    this.#reports.push(lines);
  }

  lines(): ReadinessLine[] {
    return this.#reports.flatMap((report) => report());
  }

  /** In the form of the API server's own `/readyz?verbose`. */
  describe(): string {
    const lines = this.lines(), degraded = lines.some(({ well }) => !well);
    const text = lines.map(({ name, well, detail }) =>
      `[${well ? "+" : "-"}]${name} ${detail === "" ? "ok" : detail}\n`
    );
    const state = this.#state === "ready" && degraded ? "ready, degraded" : this.#state;
    return `${text.join("")}${state}\n`;
  }
}
