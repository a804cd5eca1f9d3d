/** Documents that a person wrote, read field by field: what is wrong is told with its place. */
import { parse } from "@std/yaml";

/** What is wrong with a document. The message names the field, or the line where the text itself is broken. */
export class DocumentProblem extends Error {
  override readonly name = "DocumentProblem";
}

/** Parses one YAML (or JSON) document of the core schema, with its aliases expanded. @throws DocumentProblem */
export function parseDocument(text: string): unknown {
  try {
    // By way of JSON, so that nothing in it is there twice, contains itself, or is no plain data.
    return JSON.parse(JSON.stringify(parse(text, { schema: "core" }) ?? null, finite));
  } catch (error) {
    if (error instanceof RangeError) throw new DocumentProblem("it is nested too deeply, or its aliases multiply");
    if (error instanceof TypeError) throw new DocumentProblem("an alias of it contains itself");
    if (!(error instanceof Error)) throw error;
    throw new DocumentProblem(error.message.split("\n", 1)[0]!);
  }
}

/** JSON would write null for such a number, which reads as a field that is not there. */
function finite(_key: string, value: unknown): unknown {
  if (typeof value === "number" && !Number.isFinite(value)) throw new DocumentProblem(`${value} is no number to use`);
  return value;
}

/** One value of a document and its place, e.g. `workloads[2].name`. Every reader throws DocumentProblem. */
export class Field {
  readonly path: string;
  readonly #value: unknown;

  constructor(value: unknown, path: string) {
    this.#value = value;
    this.path = path;
  }

  get absent(): boolean {
    return this.#value === undefined || this.#value === null;
  }

  fail(reason: string): never {
    throw new DocumentProblem(this.path === "" ? reason : `${this.path}: ${reason}`);
  }

  /** A member of an object; absent where the object lacks it. */
  at(key: string): Field {
    const value = this.#object();
    return new Field(
      Object.hasOwn(value, key) ? value[key] : undefined,
      this.path === "" ? key : `${this.path}.${key}`,
    );
  }

  keys(): readonly string[] {
    return Object.keys(this.#object());
  }

  /** The keys that are not among `known`. */
  unknownKeys(known: readonly string[]): readonly string[] {
    return this.keys().filter((key) => !known.includes(key));
  }

  /** Refuses members that nobody reads. */
  onlyKeys(known: readonly string[]): this {
    const unknown = this.unknownKeys(known)[0];
    if (unknown !== undefined) this.at(unknown).fail(`no such field; there are ${known.join(", ")}`);
    return this;
  }

  /** Key and member, in the document's order. */
  entries(): readonly (readonly [string, Field])[] {
    return this.keys().map((key) => [key, this.at(key)] as const);
  }

  /** The items of a list; of nothing, none. */
  items(): readonly Field[] {
    if (this.absent) return [];
    if (!Array.isArray(this.#value)) this.fail("is no list");
    return (this.#value as readonly unknown[]).map((item, at) => new Field(item, `${this.path}[${at}]`));
  }

  /** Fails if it is absent. */
  required(): this {
    if (this.absent) this.fail("is missing");
    return this;
  }

  text(otherwise?: string): string {
    if (this.absent && otherwise !== undefined) return otherwise;
    this.required();
    if (typeof this.#value !== "string") this.fail(`is no text: ${JSON.stringify(this.#value)}; put it in quotes`);
    return this.#value as string;
  }

  flag(otherwise?: boolean): boolean {
    if (this.absent && otherwise !== undefined) return otherwise;
    this.required();
    if (typeof this.#value !== "boolean") this.fail("is neither true nor false");
    return this.#value as boolean;
  }

  integer(min: number, max: number, otherwise?: number): number {
    if (this.absent && otherwise !== undefined) return otherwise;
    this.required();
    const value = this.#value;
    if (!Number.isInteger(value) || (value as number) < min || (value as number) > max) {
      this.fail(`is not a whole number from ${min} to ${max}`);
    }
    return value as number;
  }

  /** The value that a word stands for. */
  word<T>(words: Readonly<Record<string, T>>, otherwise?: T): T {
    if (this.absent && otherwise !== undefined) return otherwise;
    const word = this.text();
    if (!Object.hasOwn(words, word)) this.fail(`${JSON.stringify(word)} is none of ${Object.keys(words).join(", ")}`);
    return words[word]!;
  }

  /** The value as parsed. */
  get raw(): unknown {
    return this.#value;
  }

  #object(): Readonly<Record<string, unknown>> {
    if (typeof this.#value !== "object" || this.#value === null || Array.isArray(this.#value)) {
      this.fail(this.absent ? "is missing" : "is no object");
    }
    return this.#value as Readonly<Record<string, unknown>>;
  }
}
