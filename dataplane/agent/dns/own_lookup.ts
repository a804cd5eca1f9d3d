/** A name of ours asked of a pod's DNS without a socket (ZT-189). */
import { type IpWords, parseIp } from "../../../base/address.ts";
import { addressQuery, answeredAddresses } from "../../../wire/dns/lookup.ts";
import { readResponse } from "../../../wire/dns/message.ts";
import { writeQuery } from "../../../wire/dns/message_writer.ts";
import type { Respond } from "./responder.ts";

/** The first address of that family that the name has; an address as text is its own. Never rejects. */
export async function firstAddress(respond: Respond, text: string, v4: boolean): Promise<IpWords | undefined> {
  const literal = parseIp(text);
  if (literal !== undefined) return literal;
  const query = addressQuery(text, v4);
  if (query === undefined) return undefined;
  const bytes = await respond(writeQuery(query.id, query), false);
  const response = bytes === undefined ? undefined : readResponse(bytes, query.id, query.question);
  return response === undefined ? undefined : answeredAddresses(bytes!, response, v4)[0];
}
