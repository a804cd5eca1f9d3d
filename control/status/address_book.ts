/** Which addresses the hosts of ServiceEntries have, and which they get (CP-240). No I/O: what it decides is written elsewhere. */
import { assert } from "../../base/assert.ts";
import { parseIp, prefixContains } from "../../base/address.ts";
import { canonicalAddress, parsePrefix, type Prefix } from "../ambient/addresses.ts";
import { keyOf, type ObjectKey, type ServiceEntryObject } from "../objects.ts";
import { AddressPool } from "./address_pool.ts";

/** As in status.addresses. */
export interface HostAddress {
  readonly value: string;
  readonly host: string;
}

export interface Assignment {
  /** What the entry's status should hold. */
  readonly addresses: readonly HostAddress[];
  /** Entries that lost an address to this one, and need another. */
  readonly displaced: readonly ObjectKey[];
  /** Prefixes that had nothing left to give. */
  readonly exhausted: readonly string[];
}

interface Claim {
  readonly entry: ObjectKey;
  /** Undefined: its author wrote the address, which is stronger than any of ours. */
  readonly host: string | undefined;
  readonly createdAtMs: number;
}

const OPT_OUT_LABEL = "networking.istio.io/enable-autoallocate-ip";

/** Whether a host of the entry may need an address that nobody wrote. */
export function wantsAddresses({ addresses, resolution, meta }: ServiceEntryObject): boolean {
  return addresses.length === 0 && resolution !== "NONE" && meta.labels.get(OPT_OUT_LABEL)?.toLowerCase() !== "false";
}

/** A wildcard names no host that could have an address, unless each name is resolved when it is asked for. */
function hostsOf({ hosts, resolution }: ServiceEntryObject): readonly string[] {
  return [...new Set(hosts)].filter((host) => !host.startsWith("*") || resolution === "DYNAMIC_DNS");
}

/**
 * Keeps, for the life of the process, who has which address. One that is given back is not given to another while there
 * are others, since clients may remember it.
 */
export class AddressBook {
  readonly #pools: readonly AddressPool[];
  readonly #claims = new Map<string, Claim>();
  /** Addresses of an entry, whoever chose them. */
  readonly #byEntry = new Map<ObjectKey, Set<string>>();
  /** Ranges that authors wrote, by entry: nothing is given out of them. */
  readonly #ranges = new Map<ObjectKey, readonly Prefix[]>();

  /** @param prefixes as `240.240.0.0/16`; one address of each for a host. */
  constructor(prefixes: readonly string[]) {
    this.#pools = prefixes.map((prefix) => new AddressPool(prefix));
  }

  /** Begins with what the entries have: first what their authors wrote, then ours, the oldest entry first. */
  rebuild(entries: Iterable<ServiceEntryObject>): void {
    const before = [...this.#claims.keys()];
    this.#claims.clear();
    this.#byEntry.clear();
    this.#ranges.clear();
    const oldestFirst = [...entries].sort((a, b) => precedes(claimOf(a, ""), claimOf(b, "")) ? -1 : 1);
    for (const entry of oldestFirst) this.#claimWritten(entry, new Set());
    for (const entry of oldestFirst) this.#claimAllocated(entry, new Set());
    for (const address of before) if (!this.#claims.has(address)) this.#retire(address);
  }

  /** Decides for one entry as it is now; the same again until its status has changed. */
  assign(entry: ServiceEntryObject): Assignment {
    const displaced = new Set<ObjectKey>(), key = keyOf(entry);
    this.#claimWritten(entry, displaced);
    const kept = this.#claimAllocated(entry, displaced);
    if (!wantsAddresses(entry)) {
      this.#release(key, (claim) => claim.host !== undefined);
      return { addresses: [], displaced: [...displaced], exhausted: [] };
    }
    const hosts = hostsOf(entry), addresses: HostAddress[] = [], exhausted = new Set<string>();
    for (const host of hosts) {
      const own = kept.filter((it) => it.host === host);
      const lost = entry.allocated.filter((it) => it.host === host && !own.includes(it));
      addresses.push(...own);
      for (const pool of this.#pools) {
        // A host that has an address keeps to what it has; just what it lost is made up for.
        if (own.length > 0 && !lost.some(({ value }) => pool.contains(value))) continue;
        const value = this.#reservedFor(key, host, pool, own) ?? this.#take(pool, claimOf(entry, host));
        if (value === undefined) exhausted.add(pool.prefix);
        else addresses.push({ value, host });
      }
    }
    this.#release(key, ({ host }) => host !== undefined && !hosts.includes(host));
    return { addresses, displaced: [...displaced], exhausted: [...exhausted] };
  }

  /** The entry is gone. */
  forget(entry: ObjectKey): void {
    this.#release(entry, () => true);
    this.#ranges.delete(entry);
  }

  /** For metrics: by prefix, how many addresses are in use. */
  used(): readonly (readonly [prefix: string, count: number])[] {
    const count = (pool: AddressPool) => [...this.#claims.keys()].filter((address) => pool.contains(address)).length;
    return this.#pools.map((pool) => [pool.prefix, count(pool)] as const);
  }

  #claimWritten(entry: ServiceEntryObject, displaced: Set<ObjectKey>): void {
    const written = new Set(entry.addresses.map(canonicalAddress));
    this.#release(keyOf(entry), ({ host }, address) => host === undefined && !written.has(address));
    for (const address of written) this.#claim(address, claimOf(entry, undefined), displaced);
    const ranges = entry.addresses.map(parsePrefix).filter((it) => it?.prefixLength !== undefined) as Prefix[];
    if (ranges.length > 0) this.#ranges.set(keyOf(entry), ranges);
    else this.#ranges.delete(keyOf(entry));
  }

  /** @returns Those of status.addresses that the entry may keep. */
  #claimAllocated(entry: ServiceEntryObject, displaced: Set<ObjectKey>): readonly HostAddress[] {
    return entry.allocated.filter(({ value, host }) =>
      this.#claim(canonicalAddress(value), claimOf(entry, host), displaced)
    );
  }

  #claim(address: string, claim: Claim, displaced: Set<ObjectKey>): boolean {
    const holder = this.#claims.get(address);
    if (holder?.entry === claim.entry && holder.host === claim.host) return true;
    // Two authors may write the same address, which is their business; between ours the older entry keeps it.
    if (holder !== undefined && !precedes(claim, holder)) return false;
    if (holder !== undefined) {
      this.#byEntry.get(holder.entry)?.delete(address);
      if (holder.entry !== claim.entry) displaced.add(holder.entry);
    }
    this.#hold(address, claim);
    return true;
  }

  #hold(address: string, claim: Claim): void {
    this.#claims.set(address, claim);
    const of = this.#byEntry.get(claim.entry);
    if (of === undefined) this.#byEntry.set(claim.entry, new Set([address]));
    else of.add(address);
  }

  /** What was decided before for this host, and has not reached its status yet. */
  #reservedFor(entry: ObjectKey, host: string, pool: AddressPool, kept: readonly HostAddress[]): string | undefined {
    for (const address of this.#byEntry.get(entry) ?? []) {
      const reserved = this.#claims.get(address)?.host === host && pool.contains(address);
      if (reserved && !kept.some(({ value }) => canonicalAddress(value) === address)) return address;
    }
    return undefined;
  }

  #take(pool: AddressPool, claim: Claim): string | undefined {
    const address = pool.next((candidate) => this.#claims.has(candidate) || this.#isInRange(candidate));
    if (address !== undefined) this.#hold(address, claim);
    return address;
  }

  #isInRange(address: string): boolean {
    const ip = parseIp(address);
    if (this.#ranges.size === 0 || ip === undefined) return false;
    return [...this.#ranges.values()].flat().some((range) =>
      prefixContains(range.ip, range.prefixLength ?? 128, ...ip)
    );
  }

  #release(entry: ObjectKey, which: (claim: Claim, address: string) => boolean): void {
    const addresses = this.#byEntry.get(entry);
    for (const address of addresses ?? []) {
      const claim = this.#claims.get(address);
      assert(claim !== undefined, "an entry's address has its claim");
      if (!which(claim, address)) continue;
      this.#claims.delete(address);
      addresses!.delete(address);
      this.#retire(address);
    }
    if (addresses?.size === 0) this.#byEntry.delete(entry);
  }

  #retire(address: string): void {
    for (const pool of this.#pools) if (pool.contains(address)) pool.retire(address);
  }
}

function claimOf(entry: ServiceEntryObject, host: string | undefined): Claim {
  return { entry: keyOf(entry), host, createdAtMs: entry.meta.createdAtMs };
}

/** Whether the first claim is the stronger one. */
function precedes(left: Claim, right: Claim): boolean {
  if ((left.host === undefined) !== (right.host === undefined)) return left.host === undefined;
  if (left.createdAtMs !== right.createdAtMs) return left.createdAtMs < right.createdAtMs;
  return left.entry < right.entry;
}
