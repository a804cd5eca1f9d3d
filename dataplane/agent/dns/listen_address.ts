/** Where the DNS proxy listens in a pod: DNS_PROXY_ADDR (ZT-003, ZT-008, ZT-176). */
import { type IpWords, parseSocketAddress } from "../../../base/address.ts";
import { MeshError } from "../../../base/errors.ts";

/** `localhost` is both families' loopback, as far as the pod has them. */
export interface ListenAddress {
  readonly ip: IpWords | "localhost";
  readonly port: number;
}

const LOOPBACK_IPV4: IpWords = [0, 0, 0xffff, 0x7f000001], LOOPBACK_IPV6: IpWords = [0, 0, 0, 1];

/** Parses `localhost:PORT` or `IP:PORT`, an IPv6 address in brackets. @throws MeshError AMB2410 */
export function parseListenAddress(text: string): ListenAddress {
  const local = /^localhost:(\d{1,5})$/.exec(text);
  const port = Number(local?.[1] ?? 0);
  if (local !== null && port > 0 && port <= 65535) return { ip: "localhost", port };
  const socketAddress = parseSocketAddress(text);
  if (socketAddress !== undefined && socketAddress.port > 0) return socketAddress;
  throw new MeshError("AMB2410", `failed to parse DNS_PROXY_ADDR: ${text.slice(0, 100)}`, {
    remedy: "set ISTIO_META_DNS_PROXY_ADDR to localhost:PORT or IP:PORT, such as localhost:15053",
  });
}

/** The addresses to bind. @param ipv6 whether the configuration and the pod's loopback both have it (ZT-003). */
export function addressesToBind({ ip }: ListenAddress, ipv6: boolean): readonly IpWords[] {
  if (ip !== "localhost") return [ip];
  return ipv6 ? [LOOPBACK_IPV4, LOOPBACK_IPV6] : [LOOPBACK_IPV4];
}
