/** The node's own resolver: what resolv.conf and the hosts file say, from the process's own network namespace (ZT-033). */
import { type IpWords, isIpv4, parseIp } from "../../../base/address.ts";
import { addressQuery, answeredAddresses } from "../../../wire/dns/lookup.ts";
import { parseName } from "../../../wire/dns/name.ts";
import { Forwarder, type ForwarderLimits, type UpstreamSockets } from "./forwarder.ts";
import { parseHosts } from "./hosts_file.ts";
import type { UpstreamSettings } from "./resolv_conf.ts";

/** ZT-033; the bytes are what as many answers of usual size take. */
const LIMITS: ForwarderLimits = { entriesMax: 4_096, bytesMax: 2 * 1024 * 1024, inFlightMax: 1_024 };
/** The files are looked at again so often. */
const SETTINGS_MS = 10_000;
/** As the C library: further search domains are not tried (resolv.conf(5)). */
const SEARCH_MAX = 6;

export interface SystemResolverOptions {
  readonly settings: () => UpstreamSettings;
  /** The hosts file's text. */
  readonly hosts: () => string;
  readonly sockets: UpstreamSockets;
  /** IPV6_ENABLED: without it no AAAA record is asked for. */
  readonly ipv6: boolean;
  readonly now: () => number;
  readonly randomId: () => number;
  /** In [0, 1). */
  readonly random: () => number;
  readonly signal: AbortSignal;
}

export class SystemResolver {
  readonly #options: SystemResolverOptions;
  #readAtMs = -Infinity;
  #settingsText = "";
  #search: readonly string[] = [];
  #hosts: ReadonlyMap<string, readonly IpWords[]> = new Map();
  #forwarder: Forwarder | undefined;

  constructor(options: SystemResolverOptions) {
    this.#options = options;
  }

  /**
   * One of a hostname's addresses, drawn at random from those of the wanted family if there are any. The name itself comes
   * first, search domains only where it has no address: what an object in the mesh names is meant in full.
   * @returns undefined if there is none. Never rejects.
   */
  async resolve(hostname: string, wantsIpv4: boolean): Promise<IpWords | undefined> {
    const literal = parseIp(hostname);
    if (literal !== undefined) return literal;
    this.#refresh();
    const name = parseName(hostname);
    if (name === undefined || name === "") return undefined;
    const candidates = [name, ...hostname.endsWith(".") ? [] : this.#search.map((domain) => `${name}.${domain}`)];
    for (const candidate of candidates) {
      const addresses = this.#hosts.get(candidate) ?? await this.#ask(candidate);
      const chosen = chooseAddress(addresses, wantsIpv4, this.#options.random);
      if (chosen !== undefined || this.#options.signal.aborted) return chosen;
    }
    return undefined;
  }

  async #ask(name: string): Promise<readonly IpWords[]> {
    const families = this.#options.ipv6 ? [true, false] : [true];
    const found = await Promise.all(families.map(async (v4) => {
      const query = addressQuery(name, v4);
      const kept = query && await this.#forwarder!.forward(query);
      return kept === undefined ? [] : answeredAddresses(kept.bytes, kept.response, v4);
    }));
    return found.flat();
  }

  /** Other nameservers may know other things: what the former said is forgotten then. */
  #refresh(): void {
    const { settings, hosts, now, sockets, randomId, signal } = this.#options, nowMs = now();
    if (nowMs - this.#readAtMs < SETTINGS_MS) return;
    this.#readAtMs = nowMs;
    this.#hosts = parseHosts(hosts());
    const read = settings(), text = JSON.stringify(read);
    if (text === this.#settingsText) return;
    this.#settingsText = text;
    this.#search = read.search.slice(0, SEARCH_MAX);
    this.#forwarder = new Forwarder({ settings: read, sockets, now, randomId, signal, limits: LIMITS });
  }
}

/** One of the addresses of that family, each as likely as any; else one of the other. */
export function chooseAddress(
  addresses: readonly IpWords[],
  wantsIpv4: boolean,
  random: () => number,
): IpWords | undefined {
  const matching = addresses.filter((ip) => isIpv4(ip[0], ip[1], ip[2]) === wantsIpv4);
  const among = matching.length > 0 ? matching : addresses;
  return among[Math.floor(random() * among.length)];
}
