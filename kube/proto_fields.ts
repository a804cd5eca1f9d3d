/** Which fields are read of an object that comes as protobuf, and by which numbers: types and makers of the rows alone. */

/** The fields that are read of one message, by number; what is not named is passed over without being looked at. */
export type ProtoFields = readonly (ProtoField | undefined)[];

/** One field: its name in JSON, and how it comes. */
export interface ProtoField {
  readonly name: string;
  readonly kind: ProtoKind;
  readonly repeated: boolean;
  /** Whether "", 0 and false are said, as JSON says those of a field that may be absent or is always there; else they are left out. */
  readonly keepsZero: boolean;
  /** Of a message. */
  readonly fields: ProtoFields;
  /** Of a map of texts: which keys are kept; all without it. */
  readonly keeps: ((key: string) => boolean) | undefined;
}

export enum ProtoKind {
  TEXT,
  BOOL,
  /** int32 or int64. */
  INT,
  /** A Time, said as JSON says it. */
  TIME,
  /** An IntOrString. */
  INT_OR_TEXT,
  TEXT_MAP,
  MESSAGE,
  /** Bytes of the message itself, borrowed. */
  BYTES,
}

/** Fields by their numbers. */
export function protoFields(rows: Readonly<Record<number, ProtoField>>): ProtoFields {
  const numbers = Object.keys(rows).map(Number);
  return Array.from({ length: Math.max(0, ...numbers) + 1 }, (_, number) => rows[number]);
}

const field = (name: string, kind: ProtoKind, more: Partial<ProtoField> = {}): ProtoField =>
  Object.freeze({ name, kind, repeated: false, keepsZero: false, fields: [], keeps: undefined, ...more });

const ALWAYS = { keepsZero: true };

export const text = (name: string) => field(name, ProtoKind.TEXT);
export const bool = (name: string) => field(name, ProtoKind.BOOL);
export const int = (name: string) => field(name, ProtoKind.INT);
/** As the three before, where JSON says "", 0 and false too. */
export const textAlways = (name: string) => field(name, ProtoKind.TEXT, ALWAYS);
export const boolAlways = (name: string) => field(name, ProtoKind.BOOL, ALWAYS);
export const intAlways = (name: string) => field(name, ProtoKind.INT, ALWAYS);
export const texts = (name: string) => field(name, ProtoKind.TEXT, { repeated: true });
export const time = (name: string) => field(name, ProtoKind.TIME);
export const intOrText = (name: string) => field(name, ProtoKind.INT_OR_TEXT);
export const textMap = (name: string, keeps?: (key: string) => boolean) => field(name, ProtoKind.TEXT_MAP, { keeps });
export const bytes = (name: string) => field(name, ProtoKind.BYTES);
export const message = (name: string, rows: Readonly<Record<number, ProtoField>>) =>
  field(name, ProtoKind.MESSAGE, { fields: protoFields(rows) });
export const messages = (name: string, rows: Readonly<Record<number, ProtoField>>) =>
  field(name, ProtoKind.MESSAGE, { fields: protoFields(rows), repeated: true });
export const messagesOf = (name: string, fields: ProtoFields) =>
  field(name, ProtoKind.MESSAGE, { fields, repeated: true });
