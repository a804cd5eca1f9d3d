/** Answers what workers ask by name, as soon as they ask: each question goes to whoever knows, and its answer back as a command. */
import type { IpWords } from "../../base/address.ts";
import * as libc from "../../os/libc_cold.ts";
import { type Poller, READABLE, type Watched } from "../../os/poller.ts";
import { closeFd, createEventFd } from "../../os/sockets.ts";
import type { TableHandles } from "../tables/handles.ts";
import { AnswerStatus, type Question, type QuestionKind, QuestionReader } from "../tables/questions.ts";
import type { WorkerPool } from "./worker_pool.ts";

/** What is known of what was asked: an address, that it is known, that there is none, or that nobody can say. */
export type Answer = IpWords | "known" | "unknown" | "unsupported";

/** Who answers which kind. Never rejects; what takes longer than the worker waits may still answer, in vain. */
export type Answerers = Readonly<Record<QuestionKind, (question: Question) => Promise<Answer>>>;

const STATUS = { known: AnswerStatus.KNOWN, unknown: AnswerStatus.UNKNOWN, unsupported: AnswerStatus.UNSUPPORTED };
const NO_ADDRESS: IpWords = [0, 0, 0, 0];

export class Answers implements Disposable {
  /** What workers signal when they have asked something. */
  readonly wakeFd = createEventFd();
  readonly #readers: readonly QuestionReader[];
  readonly #workers: Pick<WorkerPool, "answer">;
  readonly #answerers: Answerers;
  readonly #watched: Watched;
  readonly #counter = new Uint8Array(8);
  #closed = false;

  /** @param poller stays the caller's, and must outlive this. */
  constructor(handles: TableHandles, workers: Pick<WorkerPool, "answer">, answerers: Answerers, poller: Poller) {
    this.#readers = handles.plan.questions.map((_, worker) => new QuestionReader(handles, worker));
    this.#workers = workers;
    this.#answerers = answerers;
    this.#watched = poller.watch(this.wakeFd, READABLE, () => this.#read());
  }

  /** No answer is given any more. The workers have ended: they know the descriptor by its number. */
  [Symbol.dispose](): void {
    this.#closed = true;
    this.#watched.end();
    closeFd(this.wakeFd);
  }

  #read(): void {
    libc.read(this.wakeFd, this.#counter); // Before the rings: what is asked from here on signals anew.
    for (const [worker, reader] of this.#readers.entries()) {
      for (let question = reader.read(); question !== undefined; question = reader.read()) {
        void this.#answer(worker, question);
      }
    }
  }

  async #answer(worker: number, question: Question): Promise<void> {
    const answer = await this.#answerers[question.kind](question);
    if (this.#closed) return;
    const known = typeof answer === "string" ? STATUS[answer] : AnswerStatus.KNOWN;
    this.#workers.answer(worker, question.number, known, typeof answer === "string" ? NO_ADDRESS : answer);
  }
}
