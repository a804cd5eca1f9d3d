/** Declares a struct of shared memory as plain data: both sides import the declaration, nobody counts offsets by hand. */

/** A block of bytes inside a row. */
export interface BytesKind {
  readonly bytes: number;
}

/** Several words of one kind inside a row. */
export interface ArrayKind {
  readonly of: "u32" | "i32" | "f64";
  readonly count: number;
}

/**
 * What a field can be: `u32` and `i32` are plain words, `f64` a counter or time that is exact up to 2^53 and has one
 * writer, `atomic` a u32 that several threads set or wait for.
 */
export type FieldKind = "u32" | "i32" | "f64" | "atomic" | BytesKind | ArrayKind;

/** `count` bytes, kept in a whole number of words. */
export function bytes<const N extends number>(count: N): { readonly bytes: N } {
  return { bytes: count };
}

/** `count` words of one kind. */
export function array<const K extends "u32" | "i32" | "f64">(of: K, count: number): { readonly of: K; count: number } {
  return { of, count };
}

/** A field's place, branded by table and kind: in elements of its own width for numbers, in bytes for `bytes`. */
export type Field<Table extends string, Kind extends string> = number & { readonly table: Table; readonly kind: Kind };

type BrandOf<K extends FieldKind> = K extends string ? K
  : K extends BytesKind ? "bytes"
  : K extends { readonly of: infer Element extends string } ? `${Element}[]`
  : never;

/** How a row of one table looks. */
export interface RowShape<Table extends string> {
  readonly table: Table;
  readonly rowWords: number;
  /** Changes whenever a field changes place or kind. */
  readonly hash: number;
  /** One line a field, for the golden file and for people. */
  readonly description: string;
}

/** A declared struct: its shape, and each field as a branded offset under its own name. */
export type Layout<Table extends string, Fields extends Record<string, FieldKind>> =
  & RowShape<Table>
  & { readonly [Name in keyof Fields]: Field<Table, BrandOf<Fields[Name]>> };

const ROW_ALIGN_BYTES = 8; // so that every f64 of every row is aligned

/** Declares a table's rows. Fields keep their order; an f64 is aligned to 8 bytes, everything else to 4. */
export function layout<const Table extends string, const Fields extends Record<string, FieldKind>>(
  table: Table,
  fields: Fields,
): Layout<Table, Fields> {
  const places: Record<string, number> = {};
  const lines: string[] = [];
  let at = 0;
  for (const [name, kind] of Object.entries(fields)) {
    const width = widthOf(kind);
    at = Math.ceil(at / width) * width;
    const isBytes = typeof kind !== "string" && "bytes" in kind;
    places[name] = isBytes ? at : at / width;
    lines.push(`${String(at).padStart(5)} ${name}: ${nameOf(kind)}`);
    at += isBytes ? Math.ceil(kind.bytes / 4) * 4 : width * (typeof kind === "string" ? 1 : kind.count);
  }
  const rowBytes = Math.ceil(at / ROW_ALIGN_BYTES) * ROW_ALIGN_BYTES;
  const description = [`${table}: ${rowBytes} bytes a row`, ...lines].join("\n");
  const shape: RowShape<Table> = { table, rowWords: rowBytes / 4, hash: hashText(description), description };
  return Object.freeze({ ...places, ...shape }) as Layout<Table, Fields>;
}

function widthOf(kind: FieldKind): 4 | 8 {
  return kind === "f64" || (typeof kind !== "string" && "of" in kind && kind.of === "f64") ? 8 : 4;
}

function nameOf(kind: FieldKind): string {
  if (typeof kind === "string") return kind;
  return "bytes" in kind ? `bytes(${kind.bytes})` : `${kind.of}[${kind.count}]`;
}

/** FNV-1a over UTF-16 units: declarations are ASCII, and this guards against our own mistakes, not against attackers. */
function hashText(text: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  return hash >>> 0;
}
