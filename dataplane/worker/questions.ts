/** What this worker has asked the agent and is not answered yet. Nobody waits: an answer calls back, and so does the end of patience. */
import { Deadline } from "../../base/timer_wheel.ts";
import { AnswerStatus, type QuestionKind, type QuestionWriter } from "../tables/questions.ts";
import type { Reactor } from "./reactor.ts";

/** For how long an answer is waited for. Where the original waits for ever (ZT-127), a connection that hangs helps nobody. */
export const ANSWER_WAIT_MS_MAX = 10_000;
/** Questions of a worker at once: half of what the ring of answers holds, so that other commands always fit (RING_ENTRIES). */
export const QUESTIONS_MAX = 2_048;

/** One question. Whoever asks makes it, and may {@link Questions.cancel} it. */
export class Asked {
  /** -1 while nothing is asked. */
  number = -1;
  status: AnswerStatus = AnswerStatus.UNKNOWN;
  word0 = 0;
  word1 = 0;
  word2 = 0;
  word3 = 0;
  /** Called when the answer stands above, in a turn's end; within reach of the newest snapshot. */
  readonly onAnswer: () => void;
  /** No answer has come in 10 s. */
  readonly onSilence: () => void;
  readonly deadline: Deadline;

  constructor(onAnswer: () => void, onSilence: () => void) {
    this.onAnswer = onAnswer;
    this.onSilence = onSilence;
    this.deadline = new Deadline(() => this.onSilence());
  }
}

export class Questions {
  readonly #reactor: Reactor;
  readonly #writer: QuestionWriter;
  readonly #open = new Map<number, Asked>();
  #answered: Asked[] = [];
  #next = 1;

  constructor(reactor: Reactor, writer: QuestionWriter) {
    this.#reactor = reactor;
    this.#writer = writer;
  }

  /** Questions without an answer. */
  get count(): number {
    return this.#open.size;
  }

  /** Asks. @returns false, with nothing asked, when there are too many questions already or the text is too long. */
  ask(asked: Asked, kind: QuestionKind, podRow: number, wantsIpv4: boolean, text: string): boolean {
    if (this.#open.size >= QUESTIONS_MAX) return false;
    const number = this.#next;
    if (!this.#writer.push(kind, number, podRow, wantsIpv4, text)) return false;
    this.#next = number % 0x7fffffff + 1;
    asked.number = number;
    this.#open.set(number, asked);
    this.#reactor.timers.set(asked.deadline, ANSWER_WAIT_MS_MAX, this.#reactor.nowMs);
    return true;
  }

  /** Nobody wants the answer any more. */
  cancel(asked: Asked): void {
    if (asked.number < 0) return;
    this.#open.delete(asked.number);
    asked.number = -1;
    this.#reactor.timers.cancel(asked.deadline);
  }

  /** The agent's answer has come: taken in now, and acted upon by {@link settle}. One that nobody waits for is dropped. */
  answer(number: number, status: number, word0: number, word1: number, word2: number, word3: number): void {
    const asked = this.#open.get(number);
    if (asked === undefined) return;
    asked.status = status as AnswerStatus;
    asked.word0 = word0 >>> 0;
    asked.word1 = word1 >>> 0;
    asked.word2 = word2 >>> 0;
    asked.word3 = word3 >>> 0;
    this.#answered.push(asked);
  }

  /** Goes on with what was answered; once a turn, when the worker has moved to the newest snapshot. */
  settle(): void {
    if (this.#answered.length === 0) return;
    const answered = this.#answered;
    this.#answered = [];
    for (const asked of answered) {
      if (asked.number < 0) continue; // Cancelled since.
      this.cancel(asked);
      asked.onAnswer();
    }
  }
}
