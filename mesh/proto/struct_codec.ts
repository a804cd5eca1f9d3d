/** Codec of google.protobuf.Struct from and to plain JSON values. */
import type { MessageReader } from "./message_reader.ts";
import { type MessageWriter, sortedEntries } from "./message_writer.ts";
import { WireFormatError } from "./wire_format_error.ts";

export type StructValue = null | number | string | boolean | readonly StructValue[] | StructObject;
export interface StructObject {
  readonly [key: string]: StructValue;
}

/** Reads a Struct. Keys become own properties whatever their name, `__proto__` included. */
export function readStruct(reader: MessageReader): StructObject {
  const entries: [string, StructValue][] = [];
  while (reader.next()) {
    if (reader.field === 1) entries.push(reader.message(readEntry));
    else reader.skip();
  }
  return Object.fromEntries(entries);
}

function readEntry(reader: MessageReader): [string, StructValue] {
  let key = "", value: StructValue = null;
  while (reader.next()) {
    if (reader.field === 1) key = reader.text();
    else if (reader.field === 2) value = reader.message(readValue);
    else reader.skip();
  }
  return [key, value];
}

function readValue(reader: MessageReader): StructValue {
  let value: StructValue | undefined;
  while (reader.next()) {
    if (reader.field === 1) reader.int32(), value = null;
    else if (reader.field === 2) value = reader.double();
    else if (reader.field === 3) value = reader.text();
    else if (reader.field === 4) value = reader.bool();
    else if (reader.field === 5) value = reader.message(readStruct);
    else if (reader.field === 6) value = reader.message(readList);
    else reader.skip();
  }
  if (value === undefined) throw new WireFormatError("a Struct holds a value without a kind");
  return value;
}

function readList(reader: MessageReader): StructValue[] {
  const values: StructValue[] = [];
  while (reader.next()) {
    if (reader.field === 1) values.push(reader.message(readValue));
    else reader.skip();
  }
  return values;
}

/** Writes a Struct, keys sorted. */
export function writeStruct(writer: MessageWriter, object: StructObject): void {
  for (const entry of sortedEntries(new Map(Object.entries(object)))) writer.message(1, entry, writeEntry);
}

function writeEntry(writer: MessageWriter, entry: readonly [string, StructValue]): void {
  writer.text(1, entry[0]);
  writer.message(2, entry[1], writeValue);
}

/** Members of a oneof are written even when they have the default value. */
function writeValue(writer: MessageWriter, value: StructValue): void {
  if (value === null) writer.uint32EvenZero(1, 0);
  else if (typeof value === "number") writer.doubleEvenZero(2, value);
  else if (typeof value === "string") writer.texts(3, [value]);
  else if (typeof value === "boolean") writer.boolEvenFalse(4, value);
  else if (isList(value)) writer.message(6, value, writeList);
  else writer.message(5, value, writeStruct);
}

function isList(value: readonly StructValue[] | StructObject): value is readonly StructValue[] {
  return Array.isArray(value);
}

function writeList(writer: MessageWriter, values: readonly StructValue[]): void {
  writer.messages(1, values, writeValue);
}
