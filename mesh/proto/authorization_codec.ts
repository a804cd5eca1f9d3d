/** Codec of istio.security.Authorization (authorization.proto) from and to Policy (ZT section 7.4). */
import { ipFromBytes, ipToBytes, isIpv4 } from "../../base/address.ts";
import {
  EMPTY_MATCH,
  type IpMatch,
  type Policy,
  PolicyAction,
  type PolicyMatch,
  type PolicyRule,
  type PolicyScope,
  type ServiceAccountMatch,
  type StringMatch,
} from "../policy.ts";
import { type MessageReader, readMessage, RESOURCE_BYTES_MAX, skipAll } from "./message_reader.ts";
import { MessageWriter, writeNothing } from "./message_writer.ts";
import { WireFormatError } from "./wire_format_error.ts";

export const AUTHORIZATION_TYPE_URL = "type.googleapis.com/istio.security.Authorization";

/** A match as decoded, and the lists of which an entry made no sense and was left out. */
interface DecodedMatch {
  readonly match: PolicyMatch;
  readonly incomplete: ReadonlySet<ListName>;
}

type ListName = keyof PolicyMatch;
/** By field number from 1 on: texts, then addresses. The even ones are negative. */
const TEXT_LISTS = ["namespaces", "notNamespaces", "principals", "notPrincipals"] as const;
const IP_LISTS = ["sourceIps", "notSourceIps", "destinationIps", "notDestinationIps"] as const;
const POSITIVE_LISTS: readonly ListName[] = ["namespaces", "principals", "sourceIps", "destinationIps"];

/** Decodes a policy; `key` is its resource name, under which it is stored (ZT-142). @throws WireFormatError */
export function decodeAuthorization(bytes: Uint8Array, key: string): Policy {
  return readMessage(bytes, RESOURCE_BYTES_MAX, "istio.security.Authorization", (reader) => readPolicy(reader, key));
}

function readPolicy(reader: MessageReader, key: string): Policy {
  let name = "", namespace = "", scope = 0, action = 0, dryRun = false;
  const rules: DecodedMatch[][][] = [];
  while (reader.next()) {
    if (reader.field === 1) name = reader.text();
    else if (reader.field === 2) namespace = reader.text();
    else if (reader.field === 3) scope = reader.enumeration("policy scope", 2);
    else if (reader.field === 4) action = reader.enumeration("policy action", 1);
    else if (reader.field === 5) rules.push(reader.message(readRule));
    else if (reader.field === 6) dryRun = reader.bool();
    else reader.skip();
  }
  return {
    key,
    name,
    namespace,
    scope: scope as PolicyScope,
    action: action as PolicyAction,
    rules: rules.map((clauses) => toRule(clauses, action as PolicyAction)),
    dryRun,
  };
}

/**
 * Entries that make no sense are left out (ZT-117), and whoever stands behind one must gain nothing by it. An ALLOW that
 * lacks one would let in more than was written, so its match becomes the empty one, which never matches (ZT-112). A DENY
 * would let in whom the entry named, so that it refuses whatever the entry could have meant.
 */
function toRule(clauses: DecodedMatch[][], action: PolicyAction): PolicyRule {
  if (action === PolicyAction.DENY) return { clauses: clauses.map(widestClause) };
  return {
    clauses: clauses.map((matches) =>
      matches.map(({ match, incomplete }) => incomplete.size > 0 ? EMPTY_MATCH : match)
    ),
  };
}

function widestClause(matches: DecodedMatch[]): PolicyMatch[] {
  const widest = matches.map((it) => it.incomplete.size > 0 ? widestMatch(it) : it.match);
  return widest.includes(undefined) ? [] : widest as PolicyMatch[]; // An empty clause holds (ZT-111).
}

/** With a list that could hold anybody counted as held: left out, if it is a positive one. @returns undefined: matches all. */
function widestMatch({ match, incomplete }: DecodedMatch): PolicyMatch | undefined {
  const widest: PolicyMatch = { ...match };
  for (const list of POSITIVE_LISTS) if (incomplete.has(list)) Object.assign(widest, { [list]: EMPTY_MATCH[list] });
  return Object.values(widest).every((list) => list.length === 0) ? undefined : widest;
}

function readRule(reader: MessageReader): DecodedMatch[][] {
  const clauses: DecodedMatch[][] = [];
  while (reader.next()) {
    if (reader.field === 1) clauses.push(reader.message(readClause));
    else reader.skip();
  }
  return clauses;
}

function readClause(reader: MessageReader): DecodedMatch[] {
  const matches: DecodedMatch[] = [];
  while (reader.next()) {
    if (reader.field === 2) matches.push(reader.message(readMatch));
    else reader.skip();
  }
  return matches;
}

function readMatch(reader: MessageReader): DecodedMatch {
  // By field number: 1 to 4 texts, 5 to 8 addresses, 9 and 10 ports, 11 and 12 service accounts.
  const texts: StringMatch[][] = [[], [], [], []], ips: IpMatch[][] = [[], [], [], []];
  const ports: number[][] = [[], []], accounts: ServiceAccountMatch[][] = [[], []];
  const incomplete = new Set<ListName>();
  while (reader.next()) {
    const field = reader.field;
    if (field >= 1 && field <= 4) {
      if (!keep(texts[field - 1]!, reader.message(readStringMatch))) incomplete.add(TEXT_LISTS[field - 1]!);
    } else if (field >= 5 && field <= 8) {
      if (!keep(ips[field - 5]!, reader.message(readIpMatch))) incomplete.add(IP_LISTS[field - 5]!);
    } else if (field === 9 || field === 10) reader.repeatedUint32(ports[field - 9]!);
    else if (field === 11 || field === 12) accounts[field - 11]!.push(reader.message(readServiceAccountMatch));
    else reader.skip();
  }
  if (ports.some((list) => list.some((port) => port > 65535))) throw new WireFormatError("a port is above 65535");
  const match: PolicyMatch = {
    namespaces: texts[0]!,
    notNamespaces: texts[1]!,
    principals: texts[2]!,
    notPrincipals: texts[3]!,
    serviceAccounts: accounts[0]!,
    notServiceAccounts: accounts[1]!,
    sourceIps: ips[0]!,
    notSourceIps: ips[1]!,
    destinationIps: ips[2]!,
    notDestinationIps: ips[3]!,
    destinationPorts: ports[0]!,
    notDestinationPorts: ports[1]!,
  };
  return { match, incomplete };
}

function keep<T>(list: T[], entry: T | undefined): boolean {
  if (entry === undefined) return false;
  list.push(entry);
  return true;
}

/** @returns undefined if no kind is set that we know. */
function readStringMatch(reader: MessageReader): StringMatch | undefined {
  let match: StringMatch | undefined;
  while (reader.next()) {
    if (reader.field === 1) match = { kind: "exact", value: reader.text() };
    else if (reader.field === 2) match = { kind: "prefix", value: reader.text() };
    else if (reader.field === 3) match = { kind: "suffix", value: reader.text() };
    else if (reader.field === 4) reader.message(skipAll), match = { kind: "presence", value: "" };
    else reader.skip();
  }
  return match;
}

/** @returns undefined for an address or prefix length that no family has. */
function readIpMatch(reader: MessageReader): IpMatch | undefined {
  let address: Uint8Array = new Uint8Array(0), prefixLength = 0;
  while (reader.next()) {
    if (reader.field === 1) address = reader.bytes();
    else if (reader.field === 2) prefixLength = reader.uint32();
    else reader.skip();
  }
  const ip = ipFromBytes(address);
  if (ip === undefined || prefixLength > address.length * 8) return undefined;
  // A 16-byte form of an IPv4 address counts its prefix from the first of 128 bits.
  if (address.length === 16 && isIpv4(ip[0], ip[1], ip[2])) {
    return prefixLength < 96 ? undefined : { ip, prefixLength: prefixLength - 96 };
  }
  return { ip, prefixLength };
}

function readServiceAccountMatch(reader: MessageReader): ServiceAccountMatch {
  let namespace = "", serviceAccount = "";
  while (reader.next()) {
    if (reader.field === 1) namespace = reader.text();
    else if (reader.field === 2) serviceAccount = reader.text();
    else reader.skip();
  }
  return { namespace, serviceAccount };
}

/** Encodes a policy; its key travels as the resource's name, not inside. */
export function encodeAuthorization(policy: Policy): Uint8Array {
  const writer = new MessageWriter();
  writer.text(1, policy.name);
  writer.text(2, policy.namespace);
  writer.uint32(3, policy.scope);
  writer.uint32(4, policy.action);
  writer.messages(5, policy.rules, writeRule);
  writer.bool(6, policy.dryRun);
  return writer.finish();
}

function writeRule(writer: MessageWriter, rule: PolicyRule): void {
  writer.messages(1, rule.clauses, writeClause);
}

function writeClause(writer: MessageWriter, matches: readonly PolicyMatch[]): void {
  writer.messages(2, matches, writeMatch);
}

function writeMatch(writer: MessageWriter, match: PolicyMatch): void {
  writer.messages(1, match.namespaces, writeStringMatch);
  writer.messages(2, match.notNamespaces, writeStringMatch);
  writer.messages(3, match.principals, writeStringMatch);
  writer.messages(4, match.notPrincipals, writeStringMatch);
  writer.messages(5, match.sourceIps, writeIpMatch);
  writer.messages(6, match.notSourceIps, writeIpMatch);
  writer.messages(7, match.destinationIps, writeIpMatch);
  writer.messages(8, match.notDestinationIps, writeIpMatch);
  writer.packed(9, match.destinationPorts);
  writer.packed(10, match.notDestinationPorts);
  writer.messages(11, match.serviceAccounts, writeServiceAccountMatch);
  writer.messages(12, match.notServiceAccounts, writeServiceAccountMatch);
}

const STRING_MATCH_FIELDS = { exact: 1, prefix: 2, suffix: 3 } as const;

/** Members of a oneof are written even when empty: presence is what they say. */
function writeStringMatch(writer: MessageWriter, match: StringMatch): void {
  if (match.kind === "presence") writer.message(4, undefined, writeNothing);
  else writer.texts(STRING_MATCH_FIELDS[match.kind], [match.value]);
}

function writeIpMatch(writer: MessageWriter, match: IpMatch): void {
  writer.bytes(1, ipToBytes(match.ip));
  writer.uint32(2, match.prefixLength);
}

function writeServiceAccountMatch(writer: MessageWriter, match: ServiceAccountMatch): void {
  writer.text(1, match.namespace);
  writer.text(2, match.serviceAccount);
}
