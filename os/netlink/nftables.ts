/** Tables, chains and rules of nf_tables over netlink: atomic replacement, deletion and comparison, without `nft`. */
import { MeshError } from "../../base/errors.ts";
import { Errno } from "../libc_cold.ts";
import type { Netns } from "../netns.ts";
import { Attributes, type Message, MessageWriter, NLM_F } from "./message.ts";
import { type Expression, type ExpressionAttribute, expressionsOf, writeExpressions } from "./nft_expressions.ts";
import type { FirewallSet, FirewallTable, HookName, SetElement } from "./nft_model.ts";
import { changeElementSteps, elementsOf, SET_MESSAGE, setSteps, writeElementsQuestion } from "./nft_sets.ts";
import { NETLINK, NetlinkError, NetlinkSocket } from "./socket.ts";

const SUBSYSTEM = 10; // NFNL_SUBSYS_NFTABLES
const type = (message: number) => SUBSYSTEM << 8 | message;
const NFT = {
  NEWTABLE: type(0),
  GETTABLE: type(1),
  DELTABLE: type(2),
  NEWCHAIN: type(3),
  GETCHAIN: type(4),
  DELCHAIN: type(5),
  NEWRULE: type(6),
  GETRULE: type(7),
  DELRULE: type(8),
} as const;
const BATCH_BEGIN = 16, BATCH_END = 17;
const NFPROTO_INET = 1;
const GENERIC_HEADER = [NFPROTO_INET, 0, 0, 0]; // struct nfgenmsg: family, version, be16 resource
const GENERIC_HEADER_BYTES = 4;
const BATCH_HEADER = [0, 0, 0, SUBSYSTEM];
const TABLE = { NAME: 1, FLAGS: 2 } as const;
const CHAIN = { TABLE: 1, NAME: 3, HOOK: 4, TYPE: 7 } as const;
const HOOK = { NUMBER: 1, PRIORITY: 2 } as const;
const RULE = { TABLE: 1, CHAIN: 2, EXPRESSIONS: 4 } as const;
const EXPRESSION = { NAME: 1, DATA: 2 } as const;
const HOOK_NUMBER: Readonly<Record<HookName, number>> = { prerouting: 0, output: 3, postrouting: 4 };

/** One message of a transaction, and what it does in words. */
export interface Step {
  readonly doing: string;
  readonly type: number;
  readonly flags: number;
  readonly body: (writer: MessageWriter) => void;
}

/** Requests to the firewall of one namespace. Synchronous. Throws AMB7014 with what was being done and the kernel's reason. */
export class FirewallSocket implements Disposable {
  readonly #socket: NetlinkSocket;

  private constructor(socket: NetlinkSocket) {
    this.#socket = socket;
  }

  /** For `netns`, or the namespace of this thread. */
  static open(netns?: Netns): FirewallSocket {
    return new FirewallSocket(NetlinkSocket.open(NETLINK.NETFILTER, netns));
  }

  /**
   * Replaces the tables' contents and removes the tables of the names in `absent`, all in one transaction: packets see
   * the state before or the state after (CNI-130, CNI-132).
   */
  replace(tables: readonly FirewallTable[], absent: readonly string[] = []): void {
    this.#transact([...tables.flatMap(replaceSteps), ...absent.flatMap(deleteSteps)]);
  }

  /**
   * As {@link replace}, and chains that the tables had before and have no more are gone, too. Chains that stay are the same
   * all the while: of a hook that were taken away and made anew a packet could see neither.
   */
  replaceWhole(tables: readonly FirewallTable[]): void {
    const present = this.#dump("list chains", NFT.GETCHAIN, () => {});
    const stale = tables.flatMap(({ name: table, chains }) =>
      present.filter((it) => it.string(CHAIN.TABLE) === table).map((it) => it.string(CHAIN.NAME)!)
        .filter((name) => chains.every((chain) => chain.name !== name)).map((name) => ({ table, name }))
    );
    this.#transact([...tables.flatMap(replaceSteps), ...stale.map(deleteChainStep)]);
  }

  /** Removes the tables; those that are not there are fine (CNI-133). */
  deleteTables(names: readonly string[]): void {
    if (names.length > 0) this.#transact(names.flatMap(deleteSteps));
  }

  /** Names of the tables of family inet. */
  tableNames(): string[] {
    return this.#dump("list tables", NFT.GETTABLE, () => {})
      .map((attributes) => attributes.string(TABLE.NAME)).filter((name) => name !== undefined);
  }

  /** What is in a set of a table, by address. */
  setElements(table: string, set: FirewallSet): Map<string, SetElement> {
    const parts = this.#dump(`list set ${table} ${set.name}`, SET_MESSAGE.GET_ELEMENTS, (writer) => {
      writeElementsQuestion(writer, table, set.name);
    });
    return new Map(parts.flatMap((part) => elementsOf(part, set.family)).map((element) => [element.ip, element]));
  }

  /** Takes addresses out of a set and puts others in, all at once; those to be taken out must be there. */
  changeElements(
    table: string,
    set: FirewallSet,
    change: { readonly remove: readonly string[]; readonly add: readonly SetElement[] },
  ): void {
    const steps = changeElementSteps(table, set, change);
    if (steps.length > 0) this.#transact(steps);
  }

  /** What differs between the tables and the kernel's state, in words; nothing when all is in place. */
  differences(tables: readonly FirewallTable[]): string[] {
    const present = new Set(this.tableNames());
    return tables.flatMap((table) => {
      if (!present.has(table.name)) return [`table ${table.name} is missing`];
      return [...this.#chainDifferences(table), ...this.#ruleDifferences(table)];
    });
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }

  #chainDifferences(table: FirewallTable): string[] {
    const chains = this.#dump("list chains", NFT.GETCHAIN, () => {})
      .filter((attributes) => attributes.string(CHAIN.TABLE) === table.name);
    const differences: string[] = [];
    for (const { name, base } of table.chains) {
      const found = chains.find((attributes) => attributes.string(CHAIN.NAME) === name);
      const hook = found?.nest(CHAIN.HOOK);
      const same = found !== undefined && (base === undefined ? hook === undefined : (
        found.string(CHAIN.TYPE) === base.type && hook?.u32Be(HOOK.NUMBER) === HOOK_NUMBER[base.hook] &&
        hook.u32Be(HOOK.PRIORITY) === base.priority >>> 0
      ));
      if (!same) differences.push(`chain ${table.name} ${name} is ${found === undefined ? "missing" : "different"}`);
    }
    return differences;
  }

  #ruleDifferences(table: FirewallTable): string[] {
    const rules = this.#dump("list rules", NFT.GETRULE, (writer) => writer.string(RULE.TABLE, table.name));
    const differences: string[] = [];
    for (const { name } of table.chains) {
      const wanted = table.rules.filter((rule) => rule.chain === name).map((rule) => expressionsOf(rule.statements));
      const found = rules.filter((rule) => rule.string(RULE.TABLE) === table.name && rule.string(RULE.CHAIN) === name);
      if (found.length !== wanted.length) {
        differences.push(`chain ${table.name} ${name} has ${found.length} rules, not ${wanted.length}`);
        continue;
      }
      wanted.forEach((expressions, at) => {
        if (!holdsExpressions(found[at]!, expressions)) {
          differences.push(`rule ${at + 1} of chain ${table.name} ${name} is different`);
        }
      });
    }
    return differences;
  }

  #dump(doing: string, messageType: number, body: (writer: MessageWriter) => void): Attributes[] {
    try {
      return this.#socket.request(messageType, NLM_F.DUMP, (writer) => body(writer.raw(GENERIC_HEADER)))
        .map(attributesOf).filter((attributes) => attributes !== undefined);
    } catch (error) {
      throw failure(doing, error);
    }
  }

  #transact(steps: readonly Step[]): void {
    const writer = new MessageWriter();
    const doing = new Map<number, string>();
    const first = this.#socket.nextSequence();
    writer.message(BATCH_BEGIN, NLM_F.REQUEST, first, () => writer.raw(BATCH_HEADER));
    let last = first;
    for (const [at, step] of steps.entries()) {
      const sequence = last = this.#socket.nextSequence(), acknowledge = at === steps.length - 1 ? NLM_F.ACK : 0;
      doing.set(sequence, step.doing);
      writer.message(step.type, step.flags | NLM_F.REQUEST | acknowledge, sequence, () => {
        step.body(writer.raw(GENERIC_HEADER));
      });
    }
    writer.message(BATCH_END, NLM_F.REQUEST, this.#socket.nextSequence(), () => writer.raw(BATCH_HEADER));
    try {
      this.#socket.transact(writer.finish(), { first, last });
    } catch (error) {
      const sequence = error instanceof NetlinkError ? error.sequence : undefined;
      throw failure((sequence === undefined ? undefined : doing.get(sequence)) ?? "change the firewall", error);
    }
  }
}

function replaceSteps(table: FirewallTable): Step[] {
  return [
    addTable(table.name),
    {
      doing: `flush table ${table.name}`,
      type: NFT.DELRULE,
      flags: 0,
      body: (writer) => writer.string(RULE.TABLE, table.name),
    },
    ...setSteps(table),
    ...table.chains.map(({ name, base }): Step => ({
      doing: `add chain ${table.name} ${name}`,
      type: NFT.NEWCHAIN,
      flags: NLM_F.CREATE,
      body(writer) {
        writer.string(CHAIN.TABLE, table.name).string(CHAIN.NAME, name);
        if (base === undefined) return;
        writer.nest(CHAIN.HOOK, () => {
          writer.u32Be(HOOK.NUMBER, HOOK_NUMBER[base.hook]).u32Be(HOOK.PRIORITY, base.priority);
        }).string(CHAIN.TYPE, base.type);
      },
    })),
    ...table.rules.map((rule, at): Step => ({
      doing: `add rule ${at + 1} of table ${table.name}, chain ${rule.chain}`,
      type: NFT.NEWRULE,
      flags: NLM_F.CREATE | NLM_F.APPEND,
      body(writer) {
        writer.string(RULE.TABLE, table.name).string(RULE.CHAIN, rule.chain);
        writer.nest(RULE.EXPRESSIONS, () => writeExpressions(writer, expressionsOf(rule.statements)));
      },
    })),
  ];
}

function deleteChainStep({ table, name }: { readonly table: string; readonly name: string }): Step {
  return {
    doing: `delete chain ${table} ${name}`,
    type: NFT.DELCHAIN,
    flags: 0,
    body: (writer) => writer.string(CHAIN.TABLE, table).string(CHAIN.NAME, name),
  };
}

/** Added first, so that deleting succeeds whether the table was there or not. */
function deleteSteps(name: string): Step[] {
  const body = (writer: MessageWriter) => void writer.string(TABLE.NAME, name);
  return [addTable(name), { doing: `delete table ${name}`, type: NFT.DELTABLE, flags: 0, body }];
}

function addTable(name: string): Step {
  return {
    doing: `add table ${name}`,
    type: NFT.NEWTABLE,
    flags: NLM_F.CREATE,
    body: (writer) => writer.string(TABLE.NAME, name).u32Be(TABLE.FLAGS, 0),
  };
}

function attributesOf({ payload }: Message): Attributes | undefined {
  return payload.length < GENERIC_HEADER_BYTES || payload[0] !== NFPROTO_INET
    ? undefined
    : Attributes.read(payload, GENERIC_HEADER_BYTES);
}

/** Whether a rule as the kernel lists it has just these expressions; the kernel adds attributes of its own, such as counts. */
function holdsExpressions(rule: Attributes, wanted: readonly Expression[]): boolean {
  const found = rule.nest(RULE.EXPRESSIONS)?.list ?? [];
  return found.length === wanted.length && wanted.every((expression, at) => {
    const listed = Attributes.read(found[at]!.value);
    const body = listed?.nest(EXPRESSION.DATA);
    if (listed?.string(EXPRESSION.NAME) !== expression.name) return false;
    return expression.attributes.length === 0 || body !== undefined && holds(body, expression.attributes);
  });
}

function holds(found: Attributes, wanted: readonly ExpressionAttribute[]): boolean {
  return wanted.every((attribute) => {
    if ("nest" in attribute) {
      const nest = found.nest(attribute.type);
      return nest !== undefined && holds(nest, attribute.nest);
    }
    const value = found.bytes(attribute.type);
    return value?.length === attribute.value.length && attribute.value.every((byte, at) => byte === value[at]);
  });
}

function failure(doing: string, cause: unknown): unknown {
  if (!(cause instanceof NetlinkError)) return cause;
  return new MeshError("AMB7014", `could not ${doing} by nf_tables`, {
    remedy: cause.errno === Errno.EPERM
      ? "Run with CAP_NET_ADMIN in the namespace's user namespace."
      : "Check that the kernel has CONFIG_NF_TABLES, NFT_REDIR, NFT_CT and NF_TABLES_INET; `deno task doctor` does.",
    cause,
  });
}
