/** CNI results from one version of the specification to another (CNI-003). Pure. */

/** A JSON object as it came. */
export type Json = { readonly [key: string]: unknown };

/** Every version of the specification that the plugin speaks (CNI-001), oldest first. */
export const CNI_VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] as const;
export type CniVersion = (typeof CNI_VERSIONS)[number];

export function isCniVersion(text: string): text is CniVersion {
  return (CNI_VERSIONS as readonly string[]).includes(text);
}

/** Whether the version is the other or a later one. */
export function isAtLeast(version: CniVersion, other: CniVersion): boolean {
  return CNI_VERSIONS.indexOf(version) >= CNI_VERSIONS.indexOf(other);
}

/** The three forms a result has had: one address of each family; a list with families; a list without. */
type Form = "pair" | "families" | "list";

function formOf(version: CniVersion): Form {
  if (!isAtLeast(version, "0.3.0")) return "pair";
  return isAtLeast(version, "1.0.0") ? "list" : "families";
}

const isIpv6 = (address: unknown) => typeof address === "string" && address.includes(":");
const listOf = (value: unknown): readonly Json[] => Array.isArray(value) ? value as Json[] : [];

/** What the plugin before us printed, in the form of the configuration's version; unknown fields are kept. */
export function convertResult(result: Json, version: CniVersion): Json {
  const stated = result.cniVersion;
  const from = formOf(typeof stated === "string" && isCniVersion(stated) ? stated : version), to = formOf(version);
  if (from === to) return { ...result, cniVersion: version };
  const { ips, routes, ip4, ip6, ...rest } = result;
  const list = from === "pair" ? listOfPair(ip4, ip6) : listOf(ips);
  const ways = from === "pair" ? [...listOf((ip4 as Json)?.routes), ...listOf((ip6 as Json)?.routes)] : listOf(routes);
  if (to === "pair") return { ...withoutInterfaces(rest), cniVersion: version, ...pairOf(list, ways) };
  const addresses = list.map(({ version: _, ...it }) =>
    to === "families" ? { version: isIpv6(it.address) ? "6" : "4", ...it } : it
  );
  return { ...rest, cniVersion: version, ips: addresses, ...(ways.length > 0 ? { routes: ways } : {}) };
}

function listOfPair(ip4: unknown, ip6: unknown): Json[] {
  return [ip4, ip6].filter((it): it is Json => typeof it === "object" && it !== null).map(({ ip, gateway }) =>
    gateway === undefined ? { address: ip } : { address: ip, gateway }
  );
}

function pairOf(list: readonly Json[], routes: readonly Json[]): Json {
  const pair: Record<string, unknown> = {};
  for (const [name, ipv6] of [["ip4", false], ["ip6", true]] as const) {
    const found = list.find(({ address }) => isIpv6(address) === ipv6);
    if (found === undefined) continue;
    const own = routes.filter(({ dst }) => isIpv6(dst) === ipv6);
    pair[name] = {
      ip: found.address,
      ...(found.gateway === undefined ? {} : { gateway: found.gateway }),
      ...(own.length > 0 ? { routes: own } : {}),
    };
  }
  return pair;
}

/** The oldest form has no place for them. */
function withoutInterfaces({ interfaces: _, ...rest }: Json): Json {
  return rest;
}

/** An address of a result: which interface, which prefix, which gateway. */
export interface ResultAddress {
  /** Undefined where the result does not say. */
  readonly interface: number | undefined;
  /** `10.0.0.2/24` */
  readonly prefix: string;
  /** Empty where there is none. */
  readonly gateway: string;
}

/** The addresses that a result names, whatever its form. */
export function addressesOf(result: Json): ResultAddress[] {
  const list = Array.isArray(result.ips) ? listOf(result.ips) : listOfPair(result.ip4, result.ip6);
  return list.filter(({ address }) => typeof address === "string").map((it) => ({
    interface: typeof it.interface === "number" ? it.interface : undefined,
    prefix: it.address as string,
    gateway: typeof it.gateway === "string" ? it.gateway : "",
  }));
}
