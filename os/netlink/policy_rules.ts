/** Rules of policy routing by destination and by interface, and the host routes of all tables (rtnetlink(7)). */
import { formatIp, ipFromBytes, ipToBytes, parseIp } from "../../base/address.ts";
import { assert } from "../../base/assert.ts";
import { MeshError } from "../../base/errors.ts";
import { AF, Errno } from "../libc_cold.ts";
import type { Netns } from "../netns.ts";
import { Attributes, type Message, type MessageWriter, NLM_F } from "./message.ts";
import type { IpFamily } from "./nft_model.ts";
import { NETLINK, NetlinkError, NetlinkSocket } from "./socket.ts";

const RTM = { GETROUTE: 26, NEWRULE: 32, DELRULE: 33, GETRULE: 34 } as const;
const FRA = { DST: 1, IIFNAME: 3, PRIORITY: 6, TABLE: 15 } as const;
const RTA = { DST: 1, OIF: 4, TABLE: 15 } as const;
const FR_ACT_TO_TBL = 1;
const HEADER_BYTES = 12; // struct fib_rule_hdr and struct rtmsg alike
const BITS: Readonly<Record<IpFamily, number>> = { ipv4: 32, ipv6: 128 };

/** The kernel's own table of addresses that are delivered here. */
export const LOCAL_TABLE = 255;

/** `to ADDRESS` or `iif NAME`, `lookup TABLE priority N`. */
export interface PolicyRule {
  readonly family: IpFamily;
  readonly priority: number;
  readonly table: number;
  /** One whole address. */
  readonly to?: string;
  readonly iif?: string;
}

/** A route to one address alone. */
export interface HostRoute {
  readonly ip: string;
  readonly table: number;
  readonly linkIndex: number;
}

/** Requests to one namespace. Synchronous. Throws AMB7011 with the kernel's reason. */
export class PolicyRules implements Disposable {
  readonly #socket: NetlinkSocket;

  /** For `netns`, or the namespace of this thread. */
  constructor(netns?: Netns) {
    this.#socket = NetlinkSocket.open(NETLINK.ROUTE, netns);
  }

  /** Those that match by one address or by an interface, or by nothing. */
  list(family: IpFamily): PolicyRule[] {
    return this.#request("list rules", RTM.GETRULE, NLM_F.DUMP, (writer) => void writer.raw(header(family)))
      .flatMap(({ payload }) => {
        const attributes = payload.length < HEADER_BYTES ? undefined : Attributes.read(payload, HEADER_BYTES);
        if (attributes === undefined || payload[0] !== AF_OF[family]) return [];
        const to = payload[1] === BITS[family] ? textOf(attributes.bytes(FRA.DST)) : undefined;
        if (payload[1] !== 0 && to === undefined) return [];
        const table = attributes.u32(FRA.TABLE) ?? payload[4]!, priority = attributes.u32(FRA.PRIORITY) ?? 0;
        return [{ family, table, priority, to, iif: attributes.string(FRA.IIFNAME) }];
      });
  }

  hostRoutes(family: IpFamily): HostRoute[] {
    return this.#request("list routes", RTM.GETROUTE, NLM_F.DUMP, (writer) => void writer.raw(header(family)))
      .flatMap(({ payload }) => {
        const attributes = payload.length < HEADER_BYTES ? undefined : Attributes.read(payload, HEADER_BYTES);
        if (attributes === undefined || payload[0] !== AF_OF[family] || payload[1] !== BITS[family]) return [];
        const ip = textOf(attributes.bytes(RTA.DST)), linkIndex = attributes.u32(RTA.OIF);
        return ip === undefined || linkIndex === undefined
          ? []
          : [{ ip, linkIndex, table: attributes.u32(RTA.TABLE) ?? payload[4]! }];
      });
  }

  /** @returns False when the same rule was there already. */
  add(rule: PolicyRule): boolean {
    return this.#unless(Errno.EEXIST, () => this.#change("add", RTM.NEWRULE, NLM_F.CREATE | NLM_F.EXCL, rule));
  }

  /** @returns False when there was no such rule. */
  delete(rule: PolicyRule): boolean {
    return this.#unless(Errno.ENOENT, () => this.#change("delete", RTM.DELRULE, 0, rule));
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }

  #change(verb: string, type: number, flags: number, { family, priority, table, to, iif }: PolicyRule): void {
    const ip = to === undefined ? undefined : parseIp(to);
    assert((to === undefined) === (ip === undefined), "a rule's address is one");
    this.#request(`${verb} rule ${priority}`, type, flags, (writer) => {
      writer.raw(header(family, { length: ip === undefined ? 0 : BITS[family], table, action: FR_ACT_TO_TBL }));
      if (ip !== undefined) writer.bytes(FRA.DST, ipToBytes(ip));
      if (iif !== undefined) writer.string(FRA.IIFNAME, iif);
      writer.u32(FRA.PRIORITY, priority).u32(FRA.TABLE, table);
    });
  }

  #unless(errno: number, change: () => void): boolean {
    try {
      change();
      return true;
    } catch (error) {
      if (error instanceof MeshError && error.cause instanceof NetlinkError && error.cause.errno === errno) {
        return false;
      }
      throw error;
    }
  }

  #request(doing: string, type: number, flags: number, body: (writer: MessageWriter) => void): Message[] {
    try {
      return this.#socket.request(type, flags, body);
    } catch (cause) {
      if (!(cause instanceof NetlinkError)) throw cause;
      throw new MeshError("AMB7011", `could not ${doing}`, {
        remedy: "Run with CAP_NET_ADMIN in the namespace's user namespace; see the kernel's reason.",
        cause,
      });
    }
  }
}

const AF_OF: Readonly<Record<IpFamily, number>> = { ipv4: AF.INET, ipv6: AF.INET6 };

/** family, dst_len, src_len, tos, table, two reserved, action, u32 flags. */
function header(family: IpFamily, { length = 0, table = 0, action = 0 } = {}): number[] {
  return [AF_OF[family], length, 0, 0, table < 256 ? table : 0, 0, 0, action, 0, 0, 0, 0];
}

function textOf(bytes: Uint8Array | undefined): string | undefined {
  const ip = bytes === undefined ? undefined : ipFromBytes(bytes);
  return ip === undefined ? undefined : formatIp(...ip);
}
