/** What the plugin tells the agent of a new pod: one JSON object in Istio's own form (CNI-012, CNI-013, CNI-015). Pure. */
import { formatIp, ipToBytes, type IpWords, parseIp } from "../base/address.ts";

export const EVENT_PATH = "/cmdadd", DECIDE_PATH = "/v1/decide";
/** In the agent's run folder. */
export const EVENT_SOCKET = "pluginevent.sock";
export const EVENT_BYTES_MAX = 64 * 1024;
const IPS_MAX = 64;

/** A pod whose sandbox the runtime is making. */
export interface PluginEvent {
  /** Path of its network namespace as the host sees it. */
  readonly netns: string;
  readonly name: string;
  readonly namespace: string;
  /** Which pod of that name the runtime means; empty where it does not say, and from Istio's own plugin. */
  readonly uid: string;
  /** The pod's addresses as the network plugins before us gave them; the API server has none yet. */
  readonly ips: readonly string[];
}

/** An address with the length of its prefix, as results write it. */
export interface EventAddress {
  readonly interface: number | undefined;
  /** `10.0.0.2/24` */
  readonly prefix: string;
  readonly gateway: string;
}

/** @returns The body, or undefined when an address is none. */
export function encodeEvent(event: Omit<PluginEvent, "ips">, addresses: readonly EventAddress[]): string | undefined {
  const ips = addresses.map(({ interface: index, prefix, gateway }) => {
    const [address, length] = prefix.split("/"), ip = parseIp(address ?? "");
    if (ip === undefined || !/^\d{1,3}$/.test(length ?? "")) return undefined;
    const mask = maskOf(ipToBytes(ip).length, Number(length));
    if (mask === undefined) return undefined;
    return { Interface: index ?? null, Address: { IP: address, Mask: mask.toBase64() }, Gateway: gateway };
  });
  if (ips.includes(undefined)) return undefined;
  const { netns, name, namespace, uid } = event, IPs = ips.length > 0 ? ips : null;
  // Istio's agent passes over a key that it does not know.
  return JSON.stringify({
    Netns: netns,
    PodName: name,
    PodNamespace: namespace,
    ...uid !== "" && { PodUID: uid },
    IPs,
  });
}

function maskOf(bytes: number, length: number): Uint8Array | undefined {
  if (length > bytes * 8) return undefined;
  return Uint8Array.from({ length: bytes }, (_, at) => 0xff00 >> Math.max(0, Math.min(8, length - at * 8)) & 0xff);
}

/** Reads a body. @returns What is wrong with it, as a sentence, when it is none. */
export function decodeEvent(text: string): PluginEvent | { readonly wrong: string } {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return { wrong: "the event is no JSON" };
  }
  const fields = fieldsOf(value);
  if (fields === undefined) return { wrong: "the event is no JSON object" };
  const [netns, name, namespace] = ["netns", "podname", "podnamespace"].map((key) => fields.get(key));
  const uid = fields.get("poduid") ?? "";
  if (typeof netns !== "string" || typeof name !== "string" || typeof namespace !== "string") {
    return { wrong: "Netns, PodName and PodNamespace must be strings" };
  }
  if (typeof uid !== "string") return { wrong: "PodUID must be a string" };
  const list = fields.get("ips") ?? [];
  if (!Array.isArray(list) || list.length > IPS_MAX) return { wrong: `IPs must be a list of at most ${IPS_MAX}` };
  const ips = list.map((item) => fieldsOf(fieldsOf(item)?.get("address"))?.get("ip"));
  const parsed = ips.map((ip) => typeof ip === "string" ? parseIp(ip) : undefined);
  if (parsed.includes(undefined)) return { wrong: "each of IPs needs an Address with an IP" };
  return { netns, name, namespace, uid, ips: (parsed as IpWords[]).map((ip) => formatIp(...ip)) };
}

/** The fields of an object by their names in lower case: readers match them whatever their case (CNI-013). */
function fieldsOf(value: unknown): Map<string, unknown> | undefined {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  return new Map(Object.entries(value).map(([key, field]) => [key.toLowerCase(), field]));
}
