/** Chains that another program wrote into nf_tables, in tables of its own: found by the beginning of their name, and removed with the jumps to them. */
import { MeshError } from "../../base/errors.ts";
import type { Netns } from "../netns.ts";
import { Attributes, type Message, MessageWriter, NLM_F } from "./message.ts";
import { NETLINK, NetlinkError, NetlinkSocket } from "./socket.ts";

const SUBSYSTEM = 10; // NFNL_SUBSYS_NFTABLES
const type = (message: number) => SUBSYSTEM << 8 | message;
const GET_CHAIN = type(4), DELETE_CHAIN = type(5), GET_RULE = type(7), DELETE_RULE = type(8);
const BATCH_BEGIN = 16, BATCH_END = 17;
const HEADER_BYTES = 4; // struct nfgenmsg: family, version, be16 resource
const CHAIN = { TABLE: 1, NAME: 3 } as const;
const RULE = { TABLE: 1, CHAIN: 2, HANDLE: 3, EXPRESSIONS: 4 } as const;
const EXPRESSION_DATA = 2, IMMEDIATE_DATA = 2, DATA_VERDICT = 2, VERDICT_CHAIN = 2;

export interface ForeignChain {
  /** NFPROTO_…: 2 for IPv4, 10 for IPv6. */
  readonly family: number;
  readonly table: string;
  readonly chain: string;
}

/** Those of every family whose name begins so. Throws AMB7014. */
export function foreignChains(netns: Netns, prefix: string): ForeignChain[] {
  using socket = NetlinkSocket.open(NETLINK.NETFILTER, netns);
  return listed(socket, GET_CHAIN).flatMap(({ family, attributes }) => {
    const table = attributes.string(CHAIN.TABLE), chain = attributes.string(CHAIN.NAME);
    return table !== undefined && chain?.startsWith(prefix) ? [{ family, table, chain }] : [];
  });
}

/** In one transaction: the rules that jump to such a chain, the chains' rules, the chains. Throws AMB7014. */
export function removeForeignChains(netns: Netns, prefix: string): void {
  const chains = foreignChains(netns, prefix);
  if (chains.length === 0) return;
  using socket = NetlinkSocket.open(NETLINK.NETFILTER, netns);
  const writer = new MessageWriter();
  let last = 0;
  const message = (kind: number, family: number, body: () => void, flags = 0) => {
    last = socket.nextSequence();
    writer.message(kind, NLM_F.REQUEST | flags, last, () => {
      writer.raw([family, 0, 0, 0]);
      body();
    });
  };
  const batch = (kind: number) => {
    const sequence = socket.nextSequence();
    writer.message(kind, NLM_F.REQUEST, sequence, () => writer.raw([0, 0, 0, SUBSYSTEM]));
    return sequence;
  };
  const rules = listed(socket, GET_RULE);
  const first = batch(BATCH_BEGIN);
  for (const { family, attributes } of rules) {
    const chain = attributes.string(RULE.CHAIN), table = attributes.string(RULE.TABLE)!;
    const handle = attributes.bytes(RULE.HANDLE);
    if (chain === undefined || chain.startsWith(prefix) || handle === undefined) continue;
    if (!targets(attributes).some((it) => it.startsWith(prefix))) continue;
    message(DELETE_RULE, family, () => {
      writer.string(RULE.TABLE, table).string(RULE.CHAIN, chain).bytes(RULE.HANDLE, handle);
    });
  }
  for (const { family, table, chain } of chains) {
    message(DELETE_RULE, family, () => writer.string(RULE.TABLE, table).string(RULE.CHAIN, chain));
  }
  for (const [at, { family, table, chain }] of chains.entries()) {
    const body = () => void writer.string(CHAIN.TABLE, table).string(CHAIN.NAME, chain);
    message(DELETE_CHAIN, family, body, at === chains.length - 1 ? NLM_F.ACK : 0);
  }
  batch(BATCH_END);
  try {
    socket.transact(writer.finish(), { first, last });
  } catch (error) {
    throw failure("remove chains of iptables", error);
  }
}

/** The chains that a rule jumps or goes to. */
function targets(rule: Attributes): string[] {
  return (rule.nest(RULE.EXPRESSIONS)?.list ?? []).flatMap(({ value }) => {
    const data = Attributes.read(value)?.nest(EXPRESSION_DATA)?.nest(IMMEDIATE_DATA);
    const chain = data?.nest(DATA_VERDICT)?.string(VERDICT_CHAIN);
    return chain === undefined ? [] : [chain];
  });
}

function listed(socket: NetlinkSocket, kind: number): { family: number; attributes: Attributes }[] {
  try {
    return socket.request(kind, NLM_F.DUMP, (writer) => void writer.raw([0, 0, 0, 0])).flatMap((message: Message) => {
      const { payload } = message;
      const attributes = payload.length < HEADER_BYTES ? undefined : Attributes.read(payload, HEADER_BYTES);
      return attributes === undefined ? [] : [{ family: payload[0]!, attributes }];
    });
  } catch (error) {
    throw failure("list chains of iptables", error);
  }
}

function failure(doing: string, cause: unknown): unknown {
  if (!(cause instanceof NetlinkError)) return cause;
  return new MeshError("AMB7014", `could not ${doing} by nf_tables`, {
    remedy: "Run with CAP_NET_ADMIN in the namespace's user namespace.",
    cause,
  });
}
