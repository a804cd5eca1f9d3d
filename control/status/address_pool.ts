/** The addresses of one prefix, given out in order. */
import { formatIp, type IpWords, isIpv4, parseIp, prefixContains } from "../../base/address.ts";
import { MeshError } from "../../base/errors.ts";
import { parsePrefix } from "../ambient/addresses.ts";

const GIVEN_MAX = 1 << 20; // of a longer prefix the rest is never reached; also what a pool's memory is bounded by

export class AddressPool {
  readonly prefix: string;
  readonly #ip: IpWords;
  readonly #bits: number;
  /** How many addresses there are to give; the first of the prefix is its own name. */
  readonly #count: number;
  #next = 1;
  /** Given back, the longest ago first. */
  readonly #retired = new Set<string>();

  /** @throws MeshError AMB0260 */
  constructor(prefix: string) {
    const parsed = parsePrefix(prefix), full = parsed === undefined || !isIpv4Words(parsed.ip) ? 128 : 32;
    const hostBits = full - (parsed?.prefixLength ?? full);
    if (parsed === undefined || hostBits < 2) {
      throw new MeshError("AMB0260", `${JSON.stringify(prefix)} is no range to take addresses from`, {
        remedy: "give a prefix such as 240.240.0.0/16 that nothing else in the network uses",
      });
    }
    this.prefix = prefix;
    this.#ip = parsed.ip;
    this.#bits = full - hostBits;
    this.#count = Math.min(2 ** hostBits, GIVEN_MAX);
  }

  contains(address: string): boolean {
    const ip = parseIp(address);
    return ip !== undefined && prefixContains(this.#ip, this.#bits, ...ip);
  }

  /** The next that is free. @param taken also consulted for what others wrote. @returns undefined if none is left. */
  next(taken: (address: string) => boolean): string | undefined {
    for (; this.#next < this.#count; this.#next++) {
      const address = this.#at(this.#next);
      if (taken(address) || this.#retired.has(address)) continue;
      this.#next++;
      return address;
    }
    for (const address of this.#retired) {
      this.#retired.delete(address);
      if (!taken(address)) return address;
    }
    return undefined;
  }

  /** Given back: it comes last from here on. */
  retire(address: string): void {
    this.#retired.delete(address);
    this.#retired.add(address);
  }

  #at(index: number): string {
    const [word0, word1, word2, word3] = this.#ip; // The host bits that are counted fit the last word: GIVEN_MAX.
    return formatIp(word0, word1, word2, (word3 + index) >>> 0);
  }
}

function isIpv4Words([word0, word1, word2]: IpWords): boolean {
  return isIpv4(word0, word1, word2);
}
