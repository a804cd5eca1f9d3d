/** Profiles of V8 as pprof reads them: google/pprof's profile.proto, not compressed. */
import { MessageWriter } from "../../mesh/proto/message_writer.ts";

/** Where code is, as the inspector says. */
export interface CallFrame {
  readonly functionName: string;
  readonly url: string;
  /** From 0. */
  readonly lineNumber: number;
}

/** One stack with what was measured in it. */
export interface StackSample {
  /** Innermost first. */
  readonly frames: readonly CallFrame[];
  /** One for each type of the profile, below 2^32. */
  readonly values: readonly number[];
}

export interface PprofOptions {
  /** What the values are, as `samples` and `count`. */
  readonly types: readonly (readonly [type: string, unit: string])[];
  /** Between two samples, in the last type's unit. */
  readonly period: number;
  readonly startedAtMs: number;
  readonly durationMs: number;
}

const NS_PER_MS = 1_000_000;

/** The profile's bytes. */
export function encodePprof(samples: readonly StackSample[], options: PprofOptions): Uint8Array {
  const writer = new MessageWriter(), texts = new Numbered<string>([""]), functions = new Numbered<string>(["none"]);
  const frames: CallFrame[] = [];
  const locationOf = (frame: CallFrame) => {
    const { functionName, url, lineNumber } = frame;
    const id = functions.numberOf(`${functionName}\n${url}\n${lineNumber}`);
    frames[id] ??= frame;
    return id;
  };
  const valueType = (to: MessageWriter, [type, unit]: readonly [string, string]) => {
    to.int64(1, texts.numberOf(type));
    to.int64(2, texts.numberOf(unit));
  };
  writer.messages(1, options.types, valueType);
  writer.messages(2, samples, (to, sample) => {
    to.packed(1, sample.frames.map(locationOf));
    to.packed(2, sample.values);
  });
  for (let id = 1; id < functions.size; id++) { // A function has one location: V8 tells no lines within it.
    const frame = frames[id]!;
    writer.message(4, frame, (location) => {
      location.int64(1, id);
      location.message(4, frame, (line) => {
        line.int64(1, id);
        line.int64(2, frame.lineNumber + 1);
      });
    });
    writer.message(5, frame, (of) => {
      const name = texts.numberOf(frame.functionName === "" ? "(anonymous)" : frame.functionName);
      of.int64(1, id);
      of.int64(2, name);
      of.int64(3, name);
      of.int64(4, texts.numberOf(frame.url));
      of.int64(5, frame.lineNumber + 1);
    });
  }
  writer.int64(9, Math.round(options.startedAtMs) * NS_PER_MS);
  writer.int64(10, Math.round(options.durationMs) * NS_PER_MS);
  writer.message(11, options.types.at(-1)!, valueType);
  writer.int64(12, options.period);
  writer.texts(6, [...texts.all()]); // Last: all that is named is known by now.
  return writer.finish();
}

/** Things by the order in which they were first asked for. */
class Numbered<T> {
  readonly #numbers = new Map<T, number>();

  constructor(first: readonly T[]) {
    for (const item of first) this.numberOf(item);
  }

  get size(): number {
    return this.#numbers.size;
  }

  numberOf(item: T): number {
    const known = this.#numbers.get(item);
    if (known !== undefined) return known;
    this.#numbers.set(item, this.#numbers.size);
    return this.#numbers.size - 1;
  }

  all(): Iterable<T> {
    return this.#numbers.keys();
  }
}
