/** Links, addresses, routes and rules over rtnetlink(7): what `ip` does, without `ip`. */
import { formatIp, ipToBytes, type IpWords, isIpv4, parseIp } from "../../base/address.ts";
import { MeshError } from "../../base/errors.ts";
import { AF } from "../libc_cold.ts";
import type { Netns } from "../netns.ts";
import { Attributes, type Message, type MessageWriter, NLM_F } from "./message.ts";
import { NETLINK, NetlinkError, NetlinkSocket } from "./socket.ts";

const RTM = {
  NEWLINK: 16,
  DELLINK: 17,
  GETLINK: 18,
  NEWADDR: 20,
  GETADDR: 22,
  NEWROUTE: 24,
  DELROUTE: 25,
  GETROUTE: 26,
  NEWRULE: 32,
  DELRULE: 33,
  GETRULE: 34,
} as const;
const IFLA = { ADDRESS: 1, IFNAME: 3, MTU: 4, MASTER: 10, LINKINFO: 18, NET_NS_FD: 28 } as const;
const IFLA_INFO = { KIND: 1, DATA: 2 } as const;
const VETH_INFO_PEER = 1;
const IFA = { ADDRESS: 1, LOCAL: 2, FLAGS: 8 } as const;
const IFA_F_NODAD = 2; // Duplicate address detection would hold an IPv6 address back for more than a second.
const RTA = { DST: 1, OIF: 4, GATEWAY: 5, PRIORITY: 6, TABLE: 15 } as const;
const RTPROT_BOOT = 3, RTN_UNICAST = 1, RTN_LOCAL = 2;
const RT_SCOPE = { UNIVERSE: 0, LINK: 253, HOST: 254 } as const;
const FRA = { PRIORITY: 6, FWMARK: 10, TABLE: 15, FWMASK: 16 } as const;
const FR_ACT_TO_TBL = 1;
const IFF_UP = 1, IFF_RUNNING = 0x40;
const LOCAL_TABLE = 255;
// The kernel enters an IPv6 address into the local table from a work queue. It takes under a millisecond, or hundreds
// of them while other namespaces come and go; packets for the address are lost until then.
const SETTLE_MS_MAX = 2_000;

/** The table that a route without one goes to. */
export const MAIN_TABLE = 254;

export interface Link {
  readonly index: number;
  readonly name: string;
  readonly up: boolean;
  /** Up, and it carries packets: the other end of a veth is up too, and the kernel has taken notice. */
  readonly running: boolean;
  /** Index of the bridge it belongs to, or 0. */
  readonly masterIndex: number;
}

export interface InterfaceAddress {
  readonly linkIndex: number;
  readonly ip: string;
  readonly prefixLength: number;
}

export interface Route {
  /** `0.0.0.0/0`, `10.1.0.0/16`, `::/0` … */
  readonly destination: string;
  readonly via?: string;
  readonly device?: string;
  /** Default: main. */
  readonly table?: number;
  /** `local`: what matches is delivered here, whatever its destination (scope host). Default: unicast. */
  readonly type?: "unicast" | "local";
}

export interface MarkRule {
  readonly family: "ipv4" | "ipv6";
  readonly mark: number;
  readonly mask: number;
  readonly priority: number;
  readonly table: number;
}

/** Requests to one namespace. Synchronous; every method throws AMB7011 with the kernel's reason unless it says otherwise. */
export class RouteSocket implements Disposable {
  readonly #socket: NetlinkSocket;

  private constructor(socket: NetlinkSocket) {
    this.#socket = socket;
  }

  /** For `netns`, or the namespace of this thread. */
  static open(netns?: Netns): RouteSocket {
    return new RouteSocket(NetlinkSocket.open(NETLINK.ROUTE, netns));
  }

  links(): Link[] {
    return this.#request("list links", RTM.GETLINK, NLM_F.DUMP, (writer) => writer.raw(new Uint8Array(16)))
      .map(readLink).filter((link) => link !== undefined);
  }

  /** @returns undefined when there is no link of that name. */
  findLink(name: string): Link | undefined {
    return this.links().find((link) => link.name === name);
  }

  addresses(): InterfaceAddress[] {
    return this.#request("list addresses", RTM.GETADDR, NLM_F.DUMP, (writer) => writer.raw(new Uint8Array(8)))
      .map(readAddress).filter((address) => address !== undefined);
  }

  /** A veth pair; with `peerNetns` the other end is born there, under a name that only has to be free there. */
  addVeth(pair: { name: string; peerName: string; peerNetns?: Netns; mtu?: number }): void {
    this.#request(`create veth ${pair.name}`, RTM.NEWLINK, NLM_F.CREATE | NLM_F.EXCL, (writer) => {
      writer.raw(new Uint8Array(16)).string(IFLA.IFNAME, pair.name);
      if (pair.mtu !== undefined) writer.u32(IFLA.MTU, pair.mtu);
      writer.nest(IFLA.LINKINFO, () => {
        writer.string(IFLA_INFO.KIND, "veth").nest(IFLA_INFO.DATA, () => {
          writer.nest(VETH_INFO_PEER, () => {
            writer.raw(new Uint8Array(16)).string(IFLA.IFNAME, pair.peerName);
            if (pair.mtu !== undefined) writer.u32(IFLA.MTU, pair.mtu);
            if (pair.peerNetns !== undefined) writer.u32(IFLA.NET_NS_FD, pair.peerNetns.fd);
          });
        });
      });
    });
  }

  addBridge(name: string): void {
    this.#request(`create bridge ${name}`, RTM.NEWLINK, NLM_F.CREATE | NLM_F.EXCL, (writer) => {
      writer.raw(new Uint8Array(16)).string(IFLA.IFNAME, name);
      writer.nest(IFLA.LINKINFO, () => writer.string(IFLA_INFO.KIND, "bridge"));
    });
  }

  /** @returns False when there was none. */
  deleteLink(name: string): boolean {
    const link = this.findLink(name);
    if (link === undefined) return false;
    this.#changeLink(`delete link ${name}`, RTM.DELLINK, link.index, () => {});
    return true;
  }

  setMaster(name: string, bridge: string): void {
    const master = this.#index(bridge);
    this.#changeLink(
      `attach ${name} to ${bridge}`,
      RTM.NEWLINK,
      this.#index(name),
      (it) => it.u32(IFLA.MASTER, master),
    );
  }

  /** Brings a link up, and waits until its addresses are usable. */
  setUp(name: string): void {
    const index = this.#index(name);
    this.#changeLink(`set ${name} up`, RTM.NEWLINK, index, () => {}, IFF_UP);
    this.#settle(index);
  }

  /** Moves a link into another namespace, where it is down and has no address. */
  moveLink(name: string, netns: Netns): void {
    this.#changeLink(`move ${name}`, RTM.NEWLINK, this.#index(name), (writer) => writer.u32(IFLA.NET_NS_FD, netns.fd));
  }

  /** Adds `10.0.0.1/24` or `fd00::1/64`, usable on return if the link is up: duplicate address detection is off. An address already there is fine. */
  addAddress(name: string, prefix: string): void {
    const { ip, length, family } = parsePrefix(prefix);
    const { index, up } = this.#link(name);
    this.#request(`add address ${prefix} to ${name}`, RTM.NEWADDR, NLM_F.CREATE | NLM_F.REPLACE, (writer) => {
      writer.raw([family, length, 0, 0, ...u32(index)]); // struct ifaddrmsg
      writer.bytes(IFA.LOCAL, ipToBytes(ip)).bytes(IFA.ADDRESS, ipToBytes(ip));
      if (family === AF.INET6) writer.u32(IFA.FLAGS, IFA_F_NODAD);
    });
    if (up && family === AF.INET6) this.#settle(index);
  }

  /** Adds a route, or replaces the one with the same destination, table and priority. */
  addRoute(route: Route): void {
    this.#route(`add route to ${route.destination}`, RTM.NEWROUTE, NLM_F.CREATE | NLM_F.REPLACE, route);
  }

  /** @returns False when there was no such route. */
  deleteRoute(route: Route): boolean {
    return this.#unlessGone(() => this.#route(`delete route to ${route.destination}`, RTM.DELROUTE, 0, route));
  }

  /** Whether a table of a family has a route of the given destination and type. */
  hasRoute(route: { destination: string; table: number; type: "unicast" | "local" }): boolean {
    const { ip, length, family } = parsePrefix(route.destination);
    return this.#request("list routes", RTM.GETROUTE, NLM_F.DUMP, (writer) => {
      writer.raw([family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }).some(({ payload }) => {
      if (payload.length < 12 || payload[0] !== family || payload[1] !== length) return false;
      const attributes = Attributes.read(payload, 12);
      const destination = attributes?.bytes(RTA.DST) ?? new Uint8Array(ipToBytes(ip).length);
      return payload[7] === (route.type === "local" ? RTN_LOCAL : RTN_UNICAST) &&
        (attributes?.u32(RTA.TABLE) ?? payload[4]) === route.table &&
        destination.every((byte, at) => byte === ipToBytes(ip)[at]);
    });
  }

  /** `fwmark mark/mask priority … lookup table`. @returns False when the same rule was there already. */
  addRule(rule: MarkRule): boolean {
    if (this.hasRule(rule)) return false; // Some kernels add a second, equal rule instead of answering EEXIST.
    this.#rule("add", RTM.NEWRULE, NLM_F.CREATE | NLM_F.EXCL, rule);
    return true;
  }

  /** @returns False when there was no such rule. */
  deleteRule(rule: MarkRule): boolean {
    return this.#unlessGone(() => this.#rule("delete", RTM.DELRULE, 0, rule));
  }

  hasRule(rule: MarkRule): boolean {
    const family = familyOf(rule);
    return this.#request("list rules", RTM.GETRULE, NLM_F.DUMP, (writer) => {
      writer.raw([family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }).some(({ payload }) => {
      const attributes = payload.length < 12 ? undefined : Attributes.read(payload, 12);
      return attributes !== undefined && payload[0] === family && attributes.u32(FRA.PRIORITY) === rule.priority &&
        attributes.u32(FRA.FWMARK) === rule.mark && attributes.u32(FRA.FWMASK) === rule.mask &&
        (attributes.u32(FRA.TABLE) ?? payload[4]) === rule.table;
    });
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }

  /** Waits, for a bounded time, until the link's IPv6 addresses are in the local table; link-local ones come by themselves. */
  #settle(index: number): void {
    const wanted = this.addresses().filter(({ linkIndex, ip }) =>
      linkIndex === index && ip.includes(":") && !ip.startsWith("fe80:")
    );
    const deadline = performance.now() + SETTLE_MS_MAX;
    const sleeper = new Int32Array(new SharedArrayBuffer(4));
    const settled = () =>
      wanted.every(({ ip }) => this.hasRoute({ destination: `${ip}/128`, table: LOCAL_TABLE, type: "local" }));
    while (!settled() && performance.now() < deadline) Atomics.wait(sleeper, 0, 0, 1);
  }

  #index(name: string): number {
    return this.#link(name).index;
  }

  #link(name: string): Link {
    const link = this.findLink(name);
    if (link !== undefined) return link;
    throw new MeshError("AMB7012", `there is no network interface ${name}`, {
      remedy: "Check the name, and that you look in the right network namespace.",
    });
  }

  #changeLink(doing: string, type: number, index: number, body: (writer: MessageWriter) => void, flags = 0): void {
    this.#request(doing, type, 0, (writer) => {
      writer.raw([0, 0, 0, 0, ...u32(index), ...u32(flags), ...u32(flags)]); // struct ifinfomsg: …, flags, change mask
      body(writer);
    });
  }

  #route(doing: string, type: number, flags: number, route: Route): void {
    const { ip, length, family } = parsePrefix(route.destination);
    const via = route.via === undefined ? undefined : parseIp(route.via);
    if (route.via !== undefined && via === undefined) throw notAnAddress(route.via);
    const local = route.type === "local", table = route.table ?? MAIN_TABLE;
    const scope = local ? RT_SCOPE.HOST : via === undefined ? RT_SCOPE.LINK : RT_SCOPE.UNIVERSE;
    const device = route.device === undefined ? undefined : this.#index(route.device);
    this.#request(doing, type, flags, (writer) => {
      // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, u32 flags
      const shortTable = table < 256 ? table : 0;
      const kind = local ? RTN_LOCAL : RTN_UNICAST;
      writer.raw([family, length, 0, 0, shortTable, RTPROT_BOOT, scope, kind, ...u32(0)]);
      writer.u32(RTA.TABLE, table);
      if (length > 0) writer.bytes(RTA.DST, ipToBytes(ip));
      if (via !== undefined) writer.bytes(RTA.GATEWAY, ipToBytes(via));
      if (device !== undefined) writer.u32(RTA.OIF, device);
    });
  }

  #rule(verb: string, type: number, flags: number, rule: MarkRule): void {
    this.#request(`${verb} rule ${rule.priority} for mark 0x${rule.mark.toString(16)}`, type, flags, (writer) => {
      // struct fib_rule_hdr: family, dst_len, src_len, tos, table, res1, res2, action, u32 flags
      const shortTable = rule.table < 256 ? rule.table : 0;
      writer.raw([familyOf(rule), 0, 0, 0, shortTable, 0, 0, FR_ACT_TO_TBL, ...u32(0)]);
      writer.u32(FRA.PRIORITY, rule.priority).u32(FRA.FWMARK, rule.mark).u32(FRA.FWMASK, rule.mask);
      writer.u32(FRA.TABLE, rule.table);
    });
  }

  /** ENOENT and ESRCH of a delete mean that the work is done (CNI-122). */
  #unlessGone(remove: () => void): boolean {
    try {
      remove();
      return true;
    } catch (error) {
      const errno = error instanceof MeshError && error.cause instanceof NetlinkError ? error.cause.errno : 0;
      if (errno === 2 || errno === 3) return false;
      throw error;
    }
  }

  #request(doing: string, type: number, flags: number, body: (writer: MessageWriter) => void): Message[] {
    try {
      return this.#socket.request(type, flags, body);
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error;
      throw new MeshError("AMB7011", `could not ${doing}`, {
        remedy: error.errno === 1
          ? "Run with CAP_NET_ADMIN in the namespace's user namespace."
          : "See the kernel's reason; `deno task doctor` tells which features are missing.",
        cause: error,
      });
    }
  }
}

function readLink(message: Message): Link | undefined {
  const attributes = message.payload.length < 16 ? undefined : Attributes.read(message.payload, 16);
  const name = attributes?.string(IFLA.IFNAME);
  if (attributes === undefined || name === undefined) return undefined;
  const view = new DataView(message.payload.buffer);
  return {
    index: view.getInt32(4, true),
    name,
    up: (view.getUint32(8, true) & IFF_UP) !== 0,
    running: (view.getUint32(8, true) & IFF_RUNNING) !== 0,
    masterIndex: attributes.u32(IFLA.MASTER) ?? 0,
  };
}

function readAddress(message: Message): InterfaceAddress | undefined {
  const attributes = message.payload.length < 8 ? undefined : Attributes.read(message.payload, 8);
  const bytes = attributes?.bytes(IFA.LOCAL) ?? attributes?.bytes(IFA.ADDRESS);
  if (bytes === undefined || (bytes.length !== 4 && bytes.length !== 16)) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const ip = bytes.length === 4
    ? formatIp(0, 0, 0xffff, view.getUint32(0))
    : formatIp(view.getUint32(0), view.getUint32(4), view.getUint32(8), view.getUint32(12));
  const linkIndex = new DataView(message.payload.buffer).getUint32(4, true);
  return { linkIndex, ip, prefixLength: message.payload[1]! };
}

function parsePrefix(text: string): { ip: IpWords; length: number; family: number } {
  const match = /^([^/]+)\/(\d{1,3})$/.exec(text);
  const ip = match === null ? undefined : parseIp(match[1]!);
  if (match === null || ip === undefined) throw notAnAddress(text);
  const family = isIpv4(ip[0], ip[1], ip[2]) ? AF.INET : AF.INET6;
  const length = Number(match[2]);
  if (length > (family === AF.INET ? 32 : 128)) throw notAnAddress(text);
  return { ip, length, family };
}

function notAnAddress(text: string): MeshError {
  return new MeshError("AMB7013", `${JSON.stringify(text)} is not an address or prefix`, {
    remedy: "Write 10.0.0.1/24 or fd00::1/64; a gateway has no prefix length.",
  });
}

const familyOf = (rule: MarkRule) => rule.family === "ipv4" ? AF.INET : AF.INET6;
const u32 = (value: number) => new Uint8Array(Uint32Array.of(value).buffer);
