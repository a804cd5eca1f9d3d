/** Callers known by what a trusted gateway says of their certificate: Envoy's x-forwarded-client-cert (CP-430). */
import { type IpWords, parseIp, prefixContains } from "../../base/address.ts";
import { MeshError } from "../../base/errors.ts";
import { parseIdentity } from "../../mesh/identity.ts";
import { parsePrefix } from "../decode/values.ts";
import type { AuthenticationWay, Caller, Credentials, Refused } from "./caller.ts";

const HEADER_LENGTH_MAX = 32_768;
const ELEMENTS_MAX = 64;

interface Network {
  readonly address: IpWords;
  readonly prefixLength: number;
}

/** Believes the header of gateways in these networks, and of this machine, once any network is named. */
export class ForwardedCertificateWay implements AuthenticationWay {
  readonly #networks: readonly Network[];
  readonly #isOurs: (trustDomain: string) => boolean;

  /** @param networks TRUSTED_GATEWAY_CIDR; not empty. @throws MeshError AMB0258 */
  constructor(networks: readonly string[], isOurs: (trustDomain: string) => boolean) {
    this.#networks = [...networks, "127.0.0.0/8", "::1/128"].map(networkOf);
    this.#isOurs = isOurs;
  }

  authenticate({ forwardedCertificate, peerAddress }: Credentials): Promise<Caller | Refused> {
    return Promise.resolve(this.#judge(forwardedCertificate, peerAddress));
  }

  #judge(headers: readonly string[], peerAddress: string): Caller | Refused {
    if (headers.length === 0) return { refused: "no forwarded certificate" };
    const peer = parseIp(peerAddress);
    const trusted = peer !== undefined &&
      this.#networks.some(({ address, prefixLength }) => prefixContains(address, prefixLength, ...peer));
    if (!trusted) return { refused: `${peerAddress || "the caller"} is no trusted gateway` };
    const last = lastElementOf(headers.join(","));
    if (last === undefined) return { refused: "the forwarded certificate cannot be read" };
    // The last element is the gateway's own; what stands before it, its caller may have written. Of what it names only
    // identities of ours count, since a certificate is signed for them.
    const identities = last.filter(([key, value]) => {
      const domain = key === "uri" ? parseIdentity(value)?.trustDomain : undefined;
      return domain !== undefined && this.#isOurs(domain);
    }).map(([, value]) => value);
    if (identities.length === 0) return { refused: "the forwarded certificate names no identity of our trust domain" };
    return { identities, token: undefined };
  }
}

/** The pairs of the header's last element; keys in lower case. @returns undefined if it is not of Envoy's form. */
function lastElementOf(header: string): [string, string][] | undefined {
  if (header.length > HEADER_LENGTH_MAX) return undefined;
  const pattern = /\s*([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^",;]*)([,;]|$)/gy;
  let pairs: [string, string][] = [], elements = 1;
  while (pattern.lastIndex < header.length) {
    const match = pattern.exec(header);
    if (match === null) return undefined;
    const [, key, written, end] = match;
    const value = written!.startsWith('"') ? written!.slice(1, -1).replace(/\\(.)/g, "$1") : written!;
    pairs.push([key!.toLowerCase(), value]);
    const more = pattern.lastIndex < header.length;
    if (end !== "" && !more) return undefined; // A separator with nothing behind it.
    if (end === "," && more) {
      if (++elements > ELEMENTS_MAX) return undefined;
      pairs = [];
    }
  }
  return pairs.length === 0 ? undefined : pairs;
}

function networkOf(text: string): Network {
  const prefix = parsePrefix(text), address = prefix && parseIp(prefix.address);
  if (prefix?.prefixLength === undefined || address === undefined) {
    throw new MeshError("AMB0258", `${JSON.stringify(text)} is no network of trusted gateways`, {
      remedy: "give TRUSTED_GATEWAY_CIDR networks like 10.0.0.0/8",
    });
  }
  return { address, prefixLength: prefix.prefixLength };
}
