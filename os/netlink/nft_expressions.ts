/** Statements of the rule model as expressions of the nf_tables machine (linux/netfilter/nf_tables.h). */
import { ipToBytes, parseIp } from "../../base/address.ts";
import { assert } from "../../base/assert.ts";
import type { MessageWriter } from "./message.ts";
import type { IpFamily, Statement, Transport } from "./nft_model.ts";

/** One attribute: a value, or a nest. */
export type ExpressionAttribute =
  | { readonly type: number; readonly value: Uint8Array }
  | { readonly type: number; readonly nest: readonly ExpressionAttribute[] };

export interface Expression {
  readonly name: string;
  readonly attributes: readonly ExpressionAttribute[];
}

const REGISTER_VERDICT = 0, REGISTER = 1;
const META = { DREG: 1, KEY: 2, SREG: 3 } as const;
const META_KEY = { MARK: 3, IIFNAME: 6, OIFNAME: 7, SKUID: 10, NFPROTO: 15, L4PROTO: 16 } as const;
const CMP = { SREG: 1, OP: 2, DATA: 3 } as const;
const CMP_EQ = 0, CMP_NEQ = 1;
const PAYLOAD = { DREG: 1, BASE: 2, OFFSET: 3, LEN: 4 } as const;
const NETWORK_HEADER = 1, TRANSPORT_HEADER = 2;
const BITWISE = { SREG: 1, DREG: 2, LEN: 3, MASK: 4, XOR: 5 } as const;
const CT = { DREG: 1, KEY: 2, SREG: 4 } as const;
const CT_KEY = { MARK: 3, ZONE: 17 } as const;
const IMMEDIATE = { DREG: 1, DATA: 2 } as const;
const DATA = { VALUE: 1, VERDICT: 2 } as const;
const VERDICT = { CODE: 1, CHAIN: 2 } as const;
const VERDICT_CODE = { drop: 0, accept: 1, jump: -3, return: -5 } as const;
const REDIR = { PROTO_MIN: 1, FLAGS: 3 } as const;
const NAT_RANGE_PROTO_SPECIFIED = 2;
const LOOKUP = { SET: 1, SREG: 2 } as const;
const NAT = { TYPE: 1, FAMILY: 2, REG_ADDR_MIN: 3 } as const;
const NAT_SOURCE = 0;
const SOCKET = { KEY: 1, DREG: 2, LEVEL: 3 } as const;
const SOCKET_CGROUPV2 = 3;
const FIB = { DREG: 1, RESULT: 2, FLAGS: 3 } as const;
const FIB_ADDRESS_TYPE = 3, FIB_OF_DESTINATION = 2;
const RTN_LOCAL = 2; // linux/rtnetlink.h
/** RFC 9293 §3.1. */
const TCP_FLAGS_AT = 13, FIN_SYN_RST_ACK = 0x17, SYN = 0x02;
const NO_USER = 0xffffffff;
const INTERFACE_NAME_BYTES = 16; // IFNAMSIZ

const PROTOCOL: Readonly<Record<Transport, number>> = { tcp: 6, udp: 17 };
const NFPROTO: Readonly<Record<IpFamily, number>> = { ipv4: 2, ipv6: 10 };
/** Where an address stands in its header: RFC 791 §3.1, RFC 8200 §3. */
const ADDRESS_OFFSET = { ipv4: { source: 12, destination: 16 }, ipv6: { source: 8, destination: 24 } } as const;

const ADDRESS_BYTES: Readonly<Record<IpFamily, number>> = { ipv4: 4, ipv6: 16 };

/** An address as the kernel has it. */
export function addressBytes(text: string, family: IpFamily): Uint8Array {
  const ip = parseIp(text);
  assert(ip !== undefined, "an address of a rule is well formed");
  const bytes = ipToBytes(ip);
  assert(bytes.length === ADDRESS_BYTES[family], "an address of a rule is of the rule's family");
  return bytes;
}

/**
 * The expressions of one rule. A protocol or family that several matches depend on is tested once, as nft does it, so
 * that a listing by `nft` reads the same whoever wrote the rule.
 */
export function expressionsOf(statements: readonly Statement[]): Expression[] {
  const expressions: Expression[] = [];
  let transport: Transport | undefined, family: IpFamily | undefined;
  for (const statement of statements) {
    if (statement.kind === "transport" || statement.kind === "port" || statement.kind === "begins") {
      if (transport !== statement.transport) expressions.push(...transportIs(statement.transport));
      transport = statement.transport;
    }
    if (hasFamily(statement)) {
      if (family !== statement.family) expressions.push(...familyIs(statement.family));
      family = statement.family;
    }
    expressions.push(...ownExpressions(statement));
  }
  return expressions;
}

const OF_A_FAMILY = ["address", "addressRange", "inSet", "sourceNat"] as const;
const hasFamily = (statement: Statement): statement is Extract<Statement, { kind: (typeof OF_A_FAMILY)[number] }> =>
  OF_A_FAMILY.some((kind) => kind === statement.kind);

/** What a statement asks beyond the transport and family it depends on. */
function ownExpressions(statement: Statement): Expression[] {
  switch (statement.kind) {
    case "transport":
      return [];
    case "interface": {
      const name = new TextEncoder().encode(statement.name);
      assert(name.length > 0 && name.length < INTERFACE_NAME_BYTES, "an interface name has 1 to 15 bytes");
      const padded = new Uint8Array(INTERFACE_NAME_BYTES);
      padded.set(name);
      const key = statement.direction === "in" ? META_KEY.IIFNAME : META_KEY.OIFNAME;
      return [loadMeta(key), compare(padded, statement.negated)];
    }
    case "port": {
      const offset = statement.side === "source" ? 0 : 2;
      return [loadPayload(TRANSPORT_HEADER, offset, 2), compare(bigEndian16(statement.port), statement.negated)];
    }
    case "address": {
      const bytes = addressBytes(statement.ip, statement.family);
      const offset = ADDRESS_OFFSET[statement.family][statement.side];
      return [loadPayload(NETWORK_HEADER, offset, bytes.length), compare(bytes, statement.negated)];
    }
    case "addressRange":
      return rangeExpressions(statement);
    case "cgroup":
      return [
        expression(
          "socket",
          u32(SOCKET.KEY, SOCKET_CGROUPV2),
          u32(SOCKET.DREG, REGISTER),
          u32(SOCKET.LEVEL, statement.level),
        ),
        compare(host64(statement.id)),
      ];
    case "begins":
      return [
        loadPayload(TRANSPORT_HEADER, TCP_FLAGS_AT, 1),
        maskBytes(Uint8Array.of(FIN_SYN_RST_ACK)),
        compare(Uint8Array.of(SYN)),
      ];
    case "localDestination":
      return [
        expression(
          "fib",
          u32(FIB.DREG, REGISTER),
          u32(FIB.RESULT, FIB_ADDRESS_TYPE),
          u32(FIB.FLAGS, FIB_OF_DESTINATION),
        ),
        compare(host32(RTN_LOCAL)),
      ];
    case "mark":
      return [
        statement.of === "packet" ? loadMeta(META_KEY.MARK) : loadConnection(CT_KEY.MARK),
        maskAndXor(statement.mask, 0),
        compare(host32(statement.value), statement.negated),
      ];
    case "setConnectionMark":
      return [
        loadConnection(CT_KEY.MARK),
        maskAndXor(statement.keep & ~statement.set, statement.set),
        expression("ct", u32(CT.KEY, CT_KEY.MARK), u32(CT.SREG, REGISTER)),
      ];
    case "restoreMark":
      return [
        loadConnection(CT_KEY.MARK),
        expression("meta", u32(META.KEY, META_KEY.MARK), u32(META.SREG, REGISTER)),
      ];
    case "setZone":
      return [
        immediate(host16(statement.zone)),
        expression("ct", u32(CT.KEY, CT_KEY.ZONE), u32(CT.SREG, REGISTER)),
      ];
    case "inSet": {
      const offset = ADDRESS_OFFSET[statement.family][statement.side];
      return [
        loadPayload(NETWORK_HEADER, offset, ADDRESS_BYTES[statement.family]),
        expression("lookup", { type: LOOKUP.SET, value: zeroTerminated(statement.set) }, u32(LOOKUP.SREG, REGISTER)),
      ];
    }
    case "localSocket": // A packet without a socket has no user at all, and the match ends there.
      return [loadMeta(META_KEY.SKUID), compare(host32(NO_USER), true)];
    case "sourceNat":
      return [
        immediate(addressBytes(statement.ip, statement.family)),
        expression(
          "nat",
          u32(NAT.TYPE, NAT_SOURCE),
          u32(NAT.FAMILY, NFPROTO[statement.family]),
          u32(NAT.REG_ADDR_MIN, REGISTER),
        ),
      ];
    case "counter":
      return [expression("counter")];
    case "redirect":
      return [
        immediate(bigEndian16(statement.port)),
        expression("redir", u32(REDIR.PROTO_MIN, REGISTER), u32(REDIR.FLAGS, NAT_RANGE_PROTO_SPECIFIED)),
      ];
    case "accept":
    case "drop":
    case "return":
      return [verdict(VERDICT_CODE[statement.kind])];
    case "jump":
      return [verdict(VERDICT_CODE.jump, statement.chain)];
  }
}

/** As nft does it: whole bytes are compared without a mask, and of a range of all addresses only the family is left. */
function rangeExpressions(
  { family, side, ip, prefixLength }: Extract<Statement, { kind: "addressRange" }>,
): Expression[] {
  const bytes = addressBytes(ip, family), offset = ADDRESS_OFFSET[family][side], whole = prefixLength / 8;
  if (prefixLength === 0) return [];
  if (Number.isInteger(whole)) {
    return [loadPayload(NETWORK_HEADER, offset, whole), compare(bytes.subarray(0, whole))];
  }
  const mask = prefixMask(prefixLength, bytes.length);
  return [
    loadPayload(NETWORK_HEADER, offset, bytes.length),
    maskBytes(mask),
    compare(bytes.map((byte, at) => byte & mask[at]!)),
  ];
}

/** Writes the expressions as the elements of an NFTA_RULE_EXPRESSIONS list. */
export function writeExpressions(writer: MessageWriter, expressions: readonly Expression[]): void {
  const LIST_ELEMENT = 1, NAME = 1, BODY = 2;
  for (const { name, attributes } of expressions) {
    writer.nest(LIST_ELEMENT, () => {
      writer.string(NAME, name).nest(BODY, () => writeAttributes(writer, attributes));
    });
  }
}

function writeAttributes(writer: MessageWriter, attributes: readonly ExpressionAttribute[]): void {
  for (const attribute of attributes) {
    if ("value" in attribute) writer.bytes(attribute.type, attribute.value);
    else writer.nest(attribute.type, () => writeAttributes(writer, attribute.nest));
  }
}

const expression = (name: string, ...attributes: ExpressionAttribute[]): Expression => ({ name, attributes });
const transportIs = (transport: Transport) => [loadMeta(META_KEY.L4PROTO), compare(Uint8Array.of(PROTOCOL[transport]))];
const familyIs = (family: IpFamily) => [loadMeta(META_KEY.NFPROTO), compare(Uint8Array.of(NFPROTO[family]))];
const loadMeta = (key: number) => expression("meta", u32(META.KEY, key), u32(META.DREG, REGISTER));
const loadConnection = (key: number) => expression("ct", u32(CT.KEY, key), u32(CT.DREG, REGISTER));
const value = (type: number, bytes: Uint8Array): ExpressionAttribute => ({
  type,
  nest: [{ type: DATA.VALUE, value: bytes }],
});
const immediate = (bytes: Uint8Array) =>
  expression("immediate", u32(IMMEDIATE.DREG, REGISTER), value(IMMEDIATE.DATA, bytes));

function loadPayload(base: number, offset: number, length: number): Expression {
  return expression(
    "payload",
    u32(PAYLOAD.DREG, REGISTER),
    u32(PAYLOAD.BASE, base),
    u32(PAYLOAD.OFFSET, offset),
    u32(PAYLOAD.LEN, length),
  );
}

function compare(bytes: Uint8Array, negated = false): Expression {
  return expression("cmp", u32(CMP.SREG, REGISTER), u32(CMP.OP, negated ? CMP_NEQ : CMP_EQ), value(CMP.DATA, bytes));
}

function maskAndXor(mask: number, xor: number): Expression {
  return expression(
    "bitwise",
    u32(BITWISE.SREG, REGISTER),
    u32(BITWISE.DREG, REGISTER),
    u32(BITWISE.LEN, 4),
    value(BITWISE.MASK, host32(mask)),
    value(BITWISE.XOR, host32(xor)),
  );
}

/** The first bits of an address. */
function maskBytes(mask: Uint8Array): Expression {
  return expression(
    "bitwise",
    u32(BITWISE.SREG, REGISTER),
    u32(BITWISE.DREG, REGISTER),
    u32(BITWISE.LEN, mask.length),
    value(BITWISE.MASK, mask),
    value(BITWISE.XOR, new Uint8Array(mask.length)),
  );
}

function prefixMask(bits: number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, at) => 0xff << 8 - Math.min(8, Math.max(0, bits - at * 8)) & 0xff);
}

function verdict(code: number, chain?: string): Expression {
  const parts: ExpressionAttribute[] = [u32(VERDICT.CODE, code)];
  if (chain !== undefined) parts.push({ type: VERDICT.CHAIN, value: zeroTerminated(chain) });
  return expression("immediate", u32(IMMEDIATE.DREG, REGISTER_VERDICT), {
    type: IMMEDIATE.DATA,
    nest: [{ type: DATA.VERDICT, nest: parts }],
  });
}

function u32(type: number, number: number): ExpressionAttribute {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, number);
  return { type, value: bytes };
}

const zeroTerminated = (text: string) => new TextEncoder().encode(text + "\0");
const bigEndian16 = (number: number) => Uint8Array.of(number >>> 8, number & 255);
const host16 = (number: number) => new Uint8Array(Uint16Array.of(number).buffer);
const host32 = (number: number) => new Uint8Array(Uint32Array.of(number).buffer);
const host64 = (number: number) => new Uint8Array(BigUint64Array.of(BigInt(number)).buffer);
