/** An outbound connection whose way cannot be decided before the agent has answered; nothing is read from it meanwhile. */
import { Direction, ResponseFlag } from "../tables/layout.ts";
import { Connection } from "./connection.ts";
import type { Pod } from "./pod.ts";
import { Asked } from "./questions.ts";
import type { Pollable } from "./reactor.ts";
import type { Shard } from "./shard.ts";

/** What the connection waits for. */
export interface Pending {
  /** Asks. @returns false if that cannot be done now. */
  ask(asked: Asked): boolean;
  /** Looks at the answer. @returns Why the connection fails, or what takes descriptor and row over. */
  decide(asked: Asked): string | (() => void);
  /** Why it fails when no answer comes in time. */
  readonly silence: string;
}

/** Takes over descriptor and row; gives both on, or ends the connection. */
export class UndecidedConnection extends Connection implements Pollable {
  readonly #fd: number;
  readonly #pending: Pending;
  #pollRow = -1;
  readonly #asked = new Asked(() => this.#onAnswer(), () => this.#fail(this.#pending.silence));

  constructor(shard: Shard, pod: Pod, row: number, fd: number, pending: Pending) {
    super(shard, pod, row, Direction.OUTBOUND);
    this.#fd = fd;
    this.#pending = pending;
  }

  start(): void {
    this.#pollRow = this.shard.reactor.watch(this.#fd, 0, this); // Errors and hang-ups only.
    if (this.#pollRow < 0) this.#fail("the kernel watches no more descriptors");
    else if (!this.#pending.ask(this.#asked)) this.#fail("too many connections wait for an answer of the agent");
  }

  onEvents(_events: number): void {
    this.#fail("the application ended before its destination was known");
  }

  #onAnswer(): void {
    const decided = this.#pending.decide(this.#asked);
    if (typeof decided === "string") return this.#fail(decided);
    this.closed = true; // The row lives on, with another owner.
    this.shard.reactor.release(this.#fd, this.#pollRow);
    this.shard.rows.disown(this);
    decided();
  }

  #fail(reason: string): void {
    this.end(ResponseFlag.CONNECT, reason);
  }

  override releaseResources(_flag: number): void {
    this.shard.questions.cancel(this.#asked);
    if (this.#pollRow >= 0) this.shard.reactor.forget(this.#pollRow);
    this.shard.os.close(this.#fd);
  }
}
