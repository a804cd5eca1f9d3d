/** What an informer has seen and not told yet: told together, once all that has arrived is in. */
import type { InformerChange } from "./api.ts";

const CHANGES_MAX = 500; // So that a long list does not lie here whole.

/** Changes by place: of several of one object only the newest is told. */
export class ChangeBatch {
  readonly #tell: (changes: readonly InformerChange[]) => void;
  readonly #changes = new Map<string, InformerChange>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @param tell gets what has gathered; must not throw. */
  constructor(tell: (changes: readonly InformerChange[]) => void) {
    this.#tell = tell;
  }

  add(change: InformerChange): void {
    this.#changes.set(`${change.namespace}/${change.name}`, change);
    if (this.#changes.size >= CHANGES_MAX) this.flush();
    // Events that are decoded already come without a turn of the event loop between them: the timer is behind them all.
    else this.#timer ??= setTimeout(() => this.flush(), 0);
  }

  /** Tells what is there, now. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#changes.size === 0) return;
    const changes = [...this.#changes.values()];
    this.#changes.clear();
    this.#tell(changes);
  }

  /** Forgets what is not told. */
  drop(): void {
    this.#changes.clear();
    this.flush();
  }
}
