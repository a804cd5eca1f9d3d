/** Reads plain data into typed fields. Whatever is wrong is said with the field's path, once, by throwing FieldRefusal. */
import type { Plain } from "../../base/plain.ts";

export type PathSegment = string | number;

/** `spec.rules[0].from`; names that are not plain words are quoted. */
export function formatPath(path: readonly PathSegment[]): string {
  let text = "";
  for (const segment of path) {
    if (typeof segment === "number") text += `[${segment}]`;
    else if (/^[A-Za-z_][\w-]*$/.test(segment)) text += text === "" ? segment : `.${segment}`;
    else text += `[${JSON.stringify(segment.slice(0, 80))}]`;
  }
  return text === "" ? "(document)" : text;
}

/** A field that is not what its schema asks. */
export class FieldRefusal extends Error {
  override readonly name = "FieldRefusal";
  readonly path: readonly PathSegment[];

  constructor(path: readonly PathSegment[], reason: string) {
    super(reason);
    this.path = path;
  }
}

function describe(value: Plain | undefined): string {
  if (value === undefined || value === null) return "nothing";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "a map";
  const text = JSON.stringify(value);
  return `${typeof value} ${text.length > 80 ? `${text.slice(0, 77)}…` : text}`;
}

const TOP: readonly PathSegment[] = [];

/** A value and where it stands. Absent and null mean the same, as Kubernetes has it. */
export class Field {
  readonly value: Plain | undefined;
  /** Its own place; of a field of another, that one and where it is in there: paths are rarely asked for. */
  readonly #place: readonly PathSegment[] | Field;
  readonly #segment: PathSegment;

  constructor(value: Plain | undefined, place: readonly PathSegment[] | Field = TOP, segment: PathSegment = "") {
    this.value = value ?? undefined;
    this.#place = place;
    this.#segment = segment;
  }

  get path(): readonly PathSegment[] {
    return this.#place instanceof Field ? [...this.#place.path, this.#segment] : this.#place;
  }

  fail(reason: string): never {
    throw new FieldRefusal(this.path, reason);
  }

  get present(): boolean {
    return this.value !== undefined;
  }

  /** The field of that name of a map; absent if the map itself is absent. */
  get(name: string): Field {
    const map = this.#map();
    return new Field(map !== undefined && Object.hasOwn(map, name) ? map[name] : undefined, this, name);
  }

  #map(): { readonly [key: string]: Plain } | undefined {
    if (this.value === undefined) return undefined;
    if (typeof this.value !== "object" || this.value === null || Array.isArray(this.value)) {
      return this.fail(`must be a map, is ${describe(this.value)}`);
    }
    return this.value as { readonly [key: string]: Plain };
  }

  /** The entries of a map, in its order. */
  entries(): [string, Field][] {
    return Object.entries(this.#map() ?? {}).map(([key, value]) => [key, new Field(value, this, key)]);
  }

  /** The items of a list; none if it is absent. */
  items(): Field[] {
    if (this.value === undefined) return [];
    if (!Array.isArray(this.value)) return this.fail(`must be a list, is ${describe(this.value)}`);
    return this.value.map((item: Plain, index) => new Field(item, this, index));
  }

  /** Refuses a map that holds other fields than these, or one of them without a value: neither may widen a policy. */
  only(...names: readonly string[]): void {
    for (const [name, field] of this.entries()) {
      if (!names.includes(name)) field.fail(`is not a field known here; known are ${names.join(", ")}`);
      if (!field.present) field.fail("has no value; give it one, or remove it");
    }
  }

  required(): this {
    if (!this.present) this.fail("is required");
    return this;
  }

  text(fallback = ""): string {
    if (this.value === undefined) return fallback;
    if (typeof this.value !== "string") {
      const hint = typeof this.value === "object" ? "" : "; put it in quotes";
      return this.fail(`must be a string, is ${describe(this.value)}${hint}`);
    }
    return this.value;
  }

  boolean(fallback = false): boolean {
    if (this.value === undefined) return fallback;
    if (typeof this.value !== "boolean") return this.fail(`must be true or false, is ${describe(this.value)}`);
    return this.value;
  }

  integer(min: number, max: number, fallback = 0): number {
    if (this.value === undefined) return fallback;
    if (typeof this.value !== "number" || !Number.isInteger(this.value) || this.value < min || this.value > max) {
      return this.fail(`must be a whole number of ${min} to ${max}, is ${describe(this.value)}`);
    }
    return this.value;
  }

  port(fallback = 0): number {
    return this.integer(1, 65535, fallback);
  }

  oneOf<T extends string>(values: readonly T[], fallback: T): T {
    if (this.value === undefined) return fallback;
    const found = values.find((value) => value === this.value);
    return found ?? this.fail(`must be one of ${values.join(", ")}, is ${describe(this.value)}`);
  }

  texts(): string[] {
    return this.items().map((item) => item.required().text());
  }

  textMap(): ReadonlyMap<string, string> {
    const texts = new Map<string, string>(), map = this.#map() ?? {};
    for (const key of Object.keys(map)) {
      const value = map[key];
      texts.set(key, typeof value === "string" ? value : new Field(value, this, key).text());
    }
    return texts;
  }
}
