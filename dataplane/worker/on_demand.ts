/** On-demand configuration as a worker lives with it: what it sees of the mesh, and which names it need not ask for again (ZT-127). */
import { PartialView } from "../../mesh/partial_view.ts";
import type { MeshView } from "../../mesh/view.ts";
import { AnswerStatus, QuestionKind } from "../tables/questions.ts";
import { Asked, type Questions } from "./questions.ts";
import type { Reactor } from "./reactor.ts";

/**
 * For how long a name that nothing was found by is not asked for again. What appears by that name meanwhile is found as
 * soon as istiod tells of it, as ours does unasked (CP-420). One that does not leaves us blind for this long, and what is
 * there by then is reached in plaintext: so it is short.
 */
export const ABSENT_MS = 1_000;
/** For how long a name that nobody waits for is not asked for again. */
const WISHED_MS = 5_000;
/** Names of that kind a worker keeps; the oldest make room, and are asked for again. */
const NAMES_MAX = 8_192;

export class OnDemand {
  readonly view: PartialView;
  readonly #reactor: Reactor;
  readonly #questions: Questions;
  /** Until when a name counts as absent. */
  readonly #absent = new RecentNames(ABSENT_MS);
  /** Until when a name that was only wished for is not asked for again. */
  readonly #wished = new RecentNames(WISHED_MS);

  constructor(known: MeshView, reactor: Reactor, questions: Questions) {
    this.view = new PartialView(known, (name) => this.#absent.has(name, reactor.nowMs));
    this.#reactor = reactor;
    this.#questions = questions;
  }

  /** Asks for a name. @returns false, with nothing asked, when too much is asked already. */
  ask(asked: Asked, name: string): boolean {
    return this.#questions.ask(asked, QuestionKind.RESOURCE, -1, false, name);
  }

  /** The name was answered: whatever is not found by it now is not there. */
  settle(name: string): void {
    this.#absent.add(name, this.#reactor.nowMs);
  }

  /** Asks for what would be good to know, and is not waited for: whom a label speaks of, what the next request may ask for. */
  wish(name: string): void {
    const { nowMs } = this.#reactor;
    if (this.#absent.has(name, nowMs) || this.#wished.has(name, nowMs)) return;
    this.#wished.add(name, nowMs);
    const asked: Asked = new Asked(() => {
      if (asked.status === AnswerStatus.KNOWN) this.settle(name);
    }, nothing);
    this.ask(asked, name);
  }
}

/** Names of the last seconds, a bounded number of them. */
class RecentNames {
  readonly #keptMs: number;
  /** Until when, in the order in which they were added. */
  readonly #untilMs = new Map<string, number>();

  constructor(keptMs: number) {
    this.#keptMs = keptMs;
  }

  add(name: string, nowMs: number): void {
    this.#untilMs.delete(name);
    if (this.#untilMs.size >= NAMES_MAX) {
      const [oldest] = this.#untilMs.keys();
      this.#untilMs.delete(oldest!);
    }
    this.#untilMs.set(name, nowMs + this.#keptMs);
  }

  has(name: string, nowMs: number): boolean {
    const untilMs = this.#untilMs.get(name);
    if (untilMs === undefined) return false;
    if (nowMs < untilMs) return true;
    this.#untilMs.delete(name);
    return false;
  }
}

function nothing(): void {}
