/** Whether istiod may be sent clients (CP-012): not before it serves the whole mesh, and then until it stops. */

export class Readiness {
  #state: "starting" | "ready" | "stopping" = "starting";

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
}
