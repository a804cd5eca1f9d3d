/** Questions of our own for addresses, and the addresses in what comes back (RFC 1035 §4.1, RFC 3596 §2). */
import { ipFromBytes, type IpWords } from "../../base/address.ts";
import { writeUint16 } from "../bytes.ts";
import { CLASS_INTERNET, Flag, type Query, type Response, Section, Type } from "./message.ts";
import { parseName } from "./name.ts";

/** The question for a name's addresses of one family. @returns undefined if the text is no name, or the root. */
export function addressQuery(text: string, v4: boolean): Query | undefined {
  const name = parseName(text);
  if (name === undefined || name === "") return undefined;
  const question = new Uint8Array(name.length + 6), type = v4 ? Type.A : Type.AAAA;
  let at = 0;
  for (const label of name.split(".")) {
    question[at++] = label.length;
    for (let letter = 0; letter < label.length; letter++) question[at++] = label.charCodeAt(letter);
  }
  writeUint16(question, ++at, type); // The root's empty label is there already.
  writeUint16(question, at + 2, CLASS_INTERNET);
  return { id: 0, flags: Flag.RECURSION_DESIRED, name, type, class: CLASS_INTERNET, question, edns: undefined };
}

/** The addresses of one family that a response answers with, in its order; whoever they belong to behind aliases. */
export function answeredAddresses(bytes: Uint8Array, response: Response, v4: boolean): IpWords[] {
  const addresses: IpWords[] = [], dataBytes = v4 ? 4 : 16;
  for (const { section, type, dataStart, end } of response.records) {
    if (section !== Section.ANSWER || type !== (v4 ? Type.A : Type.AAAA) || end - dataStart !== dataBytes) continue;
    const ip = ipFromBytes(bytes.subarray(dataStart, end));
    if (ip !== undefined) addresses.push(ip);
  }
  return addresses;
}
