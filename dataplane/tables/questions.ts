/** What workers ask the agent by name: a ring for each worker. The answer is a command (`Command.ANSWER`). */
import { assert } from "../../base/assert.ts";
import { Ring, ringBytes } from "../../base/shm/ring.ts";
import type { TableHandles } from "./handles.ts";

/** What the text of a question is, and what the answer says. */
export const QuestionKind = {
  SOCKS_NAME: 1, // a name that a SOCKS client of the pod gave; answered with an address (ZT-189)
  RESOURCE: 2, // what xDS knows by that name; answered when the snapshot in force has what there is (ZT-127)
  HOSTNAME: 3, // a workload's hostname; answered with an address that the node's own resolver finds (ZT-033)
} as const;
export type QuestionKind = (typeof QuestionKind)[keyof typeof QuestionKind];

/** What an answer says. Four words of address follow KNOWN where one was asked for. */
export const AnswerStatus = { KNOWN: 0, UNKNOWN: 1, UNSUPPORTED: 2 } as const;
export type AnswerStatus = (typeof AnswerStatus)[keyof typeof AnswerStatus];

const KIND = 0, NUMBER = 1, POD_ROW = 2, IPV4 = 3, TEXT_LENGTH = 4, TEXT_WORD = 5;
const QUESTION_WORDS = 96; // 364 bytes of text: a namespace, a slash and a name of DNS are 317 at most.
const QUESTION_ENTRIES = 256; // 98 KB a worker; the agent is woken, so that it holds what comes within one of its turns.
const TEXT_BYTES_MAX = (QUESTION_WORDS - TEXT_WORD) * 4;
assert(TEXT_BYTES_MAX >= 63 + 1 + 253, "a question holds the longest name of a service");

/** Bytes of one worker's ring. */
export const QUESTION_RING_BYTES = ringBytes(QUESTION_ENTRIES, QUESTION_WORDS);

function openRing(handles: TableHandles, worker: number, wake?: () => void): Ring {
  return new Ring(handles.control, handles.plan.questions[worker]!, QUESTION_ENTRIES, QUESTION_WORDS, wake);
}

/** A worker's end. */
export class QuestionWriter {
  readonly #ring: Ring;
  readonly #text: Uint8Array;
  readonly #encoder = new TextEncoder();

  /** @param wake wakes the agent. */
  constructor(handles: TableHandles, worker: number, wake?: () => void) {
    this.#ring = openRing(handles, worker, wake);
    this.#text = new Uint8Array(this.#ring.record.buffer, TEXT_WORD * 4);
  }

  /**
   * Asks. @param number by which the answer will be known. @param wantsIpv4 the family that an address should have.
   * @returns false if the ring is full or the text too long: nothing was asked.
   */
  push(kind: QuestionKind, number: number, podRow: number, wantsIpv4: boolean, text: string): boolean {
    const record = this.#ring.record, { read, written } = this.#encoder.encodeInto(text, this.#text);
    if (read < text.length) return false;
    record[KIND] = kind;
    record[NUMBER] = number;
    record[POD_ROW] = podRow;
    record[IPV4] = wantsIpv4 ? 1 : 0;
    record[TEXT_LENGTH] = written;
    return this.#ring.push();
  }
}

/** A question as the agent sees it. */
export interface Question {
  readonly kind: QuestionKind;
  readonly number: number;
  readonly podRow: number;
  readonly wantsIpv4: boolean;
  readonly text: string;
}

/** The agent's end of one worker's ring. */
export class QuestionReader {
  readonly #ring: Ring;
  readonly #record = new Int32Array(QUESTION_WORDS);

  constructor(handles: TableHandles, worker: number) {
    this.#ring = openRing(handles, worker);
  }

  /** The oldest question, or undefined when there is none. */
  read(): Question | undefined {
    const record = this.#record;
    if (!this.#ring.pop(record)) return undefined;
    const bytes = new Uint8Array(record.buffer, TEXT_WORD * 4, record[TEXT_LENGTH]!);
    return {
      kind: record[KIND] as QuestionKind,
      number: record[NUMBER]!,
      podRow: record[POD_ROW]!,
      wantsIpv4: record[IPV4] === 1,
      text: new TextDecoder().decode(bytes),
    };
  }
}
