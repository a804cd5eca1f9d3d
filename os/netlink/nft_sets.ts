/** Sets of addresses in nf_tables' messages: made with their table, filled and emptied on their own (linux/netfilter/nf_tables.h). */
import { formatIp, ipFromBytes } from "../../base/address.ts";
import { Attributes, type MessageWriter, NLM_F } from "./message.ts";
import { addressBytes } from "./nft_expressions.ts";
import type { FirewallSet, FirewallTable, IpFamily, SetElement } from "./nft_model.ts";
import type { Step } from "./nftables.ts";

const type = (message: number) => 10 << 8 | message; // NFNL_SUBSYS_NFTABLES
export const SET_MESSAGE = {
  NEW: type(9),
  NEW_ELEMENTS: type(12),
  GET_ELEMENTS: type(13),
  DELETE_ELEMENTS: type(14),
} as const;
const SET = { TABLE: 1, NAME: 2, FLAGS: 3, KEY_TYPE: 4, KEY_LEN: 5, ID: 10 } as const;
const LIST = { TABLE: 1, SET: 2, ELEMENTS: 3 } as const;
const ELEMENT = { KEY: 1, USERDATA: 6 } as const;
const LIST_ELEMENT = 1, DATA_VALUE = 1;
/** What nft calls the types in its listings; the kernel only keeps the number. */
const KEY_TYPE: Readonly<Record<IpFamily, number>> = { ipv4: 7, ipv6: 8 };
const KEY_BYTES: Readonly<Record<IpFamily, number>> = { ipv4: 4, ipv6: 16 };
const COMMENT_TAG = 0, COMMENT_BYTES_MAX = 127; // libnftnl's tag and bound; a length and a zero stand around the text
const ELEMENTS_PER_MESSAGE = 300; // of 168 bytes at most, under the 64 KiB of one attribute

/** The sets of a table, left as they are where they exist already. */
export function setSteps(table: FirewallTable): Step[] {
  return (table.sets ?? []).map(({ name, family }, at) => ({
    doing: `add set ${table.name} ${name}`,
    type: SET_MESSAGE.NEW,
    flags: NLM_F.CREATE,
    body(writer) {
      writer.string(SET.TABLE, table.name).string(SET.NAME, name).u32Be(SET.FLAGS, 0);
      writer.u32Be(SET.KEY_TYPE, KEY_TYPE[family]).u32Be(SET.KEY_LEN, KEY_BYTES[family]).u32Be(SET.ID, at + 1);
    },
  }));
}

export function changeElementSteps(
  table: string,
  { name, family }: FirewallSet,
  { remove, add }: { readonly remove: readonly string[]; readonly add: readonly SetElement[] },
): Step[] {
  const removed = remove.map((ip) => ({ ip, comment: "" }));
  const step = (doing: string, message: number, flags: number, elements: readonly SetElement[]): Step => ({
    doing: `${doing} set ${table} ${name}`,
    type: message,
    flags,
    body(writer) {
      writer.string(LIST.TABLE, table).string(LIST.SET, name);
      writer.nest(LIST.ELEMENTS, () => {
        for (const element of elements) writeElement(writer, element, family);
      });
    },
  });
  return [
    ...chunks(removed).map((part) => step("take addresses out of", SET_MESSAGE.DELETE_ELEMENTS, 0, part)),
    ...chunks(add).map((part) => step("put addresses into", SET_MESSAGE.NEW_ELEMENTS, NLM_F.CREATE, part)),
  ];
}

function chunks(elements: readonly SetElement[]): SetElement[][] {
  const count = Math.ceil(elements.length / ELEMENTS_PER_MESSAGE);
  return Array.from(
    { length: count },
    (_, at) => elements.slice(at * ELEMENTS_PER_MESSAGE, (at + 1) * ELEMENTS_PER_MESSAGE),
  );
}

function writeElement(writer: MessageWriter, { ip, comment }: SetElement, family: IpFamily): void {
  writer.nest(LIST_ELEMENT, () => {
    writer.nest(ELEMENT.KEY, () => writer.bytes(DATA_VALUE, addressBytes(ip, family)));
    if (comment !== "") writer.bytes(ELEMENT.USERDATA, commentBytes(comment));
  });
}

/** A comment as nft writes it: tag, length, text, zero. One that is too long is cut. */
function commentBytes(comment: string): Uint8Array {
  const text = new TextEncoder().encode(comment).subarray(0, COMMENT_BYTES_MAX);
  return Uint8Array.of(COMMENT_TAG, text.length + 1, ...text, 0);
}

export function writeElementsQuestion(writer: MessageWriter, table: string, set: string): void {
  writer.string(LIST.TABLE, table).string(LIST.SET, set);
}

/** The addresses in one part of a listing. */
export function elementsOf(part: Attributes, family: IpFamily): SetElement[] {
  return (part.nest(LIST.ELEMENTS)?.list ?? []).flatMap(({ value }) => {
    const element = Attributes.read(value), key = element?.nest(ELEMENT.KEY)?.bytes(DATA_VALUE);
    const ip = key?.length === KEY_BYTES[family] ? ipFromBytes(key) : undefined;
    return ip === undefined ? [] : [{ ip: formatIp(...ip), comment: commentOf(element?.bytes(ELEMENT.USERDATA)) }];
  });
}

function commentOf(data: Uint8Array | undefined): string {
  for (let at = 0; data !== undefined && at + 2 <= data.length; at += 2 + data[at + 1]!) {
    if (data[at] === COMMENT_TAG) return new TextDecoder().decode(data.subarray(at + 2, at + 1 + data[at + 1]!));
  }
  return "";
}
