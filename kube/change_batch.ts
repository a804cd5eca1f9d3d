/** What an informer has seen and not told yet: told together, once all that has arrived is in. */
import type { InformerChange } from "./api.ts";

const CHANGES_MAX = 500; // So that a long list does not lie here whole.
/** From one telling to the next. What is told costs what it is worth only once: a pod comes in three steps, some ms apart. */
const PAUSE_MS = 10;

/** Changes by place: of several of one object only the newest is told. A lone change is told at once, those that follow it together. */
export class ChangeBatch {
  readonly #tell: (changes: readonly InformerChange[]) => void;
  readonly #changes = new Map<string, InformerChange>();
  readonly #now: () => number;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #toldAtMs = -Infinity;

  /** @param tell gets what has gathered; must not throw. @param now milliseconds that only grow. */
  constructor(tell: (changes: readonly InformerChange[]) => void, now: () => number) {
    this.#tell = tell;
    this.#now = now;
  }

  add(change: InformerChange): void {
    this.#changes.set(`${change.namespace}/${change.name}`, change);
    if (this.#changes.size >= CHANGES_MAX) this.flush();
    // Events that are decoded already come without a turn of the event loop between them: the timer is behind them all.
    else this.#timer ??= setTimeout(() => this.flush(), Math.max(0, this.#toldAtMs + PAUSE_MS - this.#now()));
  }

  /** Tells what is there, now. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#changes.size === 0) return;
    this.#toldAtMs = this.#now();
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
