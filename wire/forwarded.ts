/** The `forwarded` header (RFC 7239): who opened the connection, and which service it asked for (ZT-057). */
import { isVisibleAscii } from "./visible_ascii.ts";

/** What may stand unquoted: visible ASCII without the header's own delimiters. */
const HOST = /^[!#-+\--:<-~]+$/;

/**
 * Writes `for="<source>"`, and `;host=<hostname>` where a service is known and its name can be read back.
 * @param source `ip:port`, IPv6 in brackets.
 */
export function formatForwarded(source: string, hostname: string | undefined): string {
  const plain = `for="${source}"`;
  return hostname === undefined || !HOST.test(hostname) ? plain : `${plain};host=${hostname}`;
}

/** The first `host=` that says something. `for=` is never read: anybody may claim it. @returns undefined if there is none. */
export function parseForwardedHost(text: string): string | undefined {
  if (!isVisibleAscii(text)) return undefined;
  for (const part of text.split(";")) {
    const pair = part.trim();
    if (!pair.startsWith("host=")) continue;
    const value = pair.slice("host=".length).trim();
    const quoted = value.length >= 2 && value.startsWith('"') && value.endsWith('"');
    const host = quoted ? value.slice(1, -1) : value;
    if (host !== "") return host;
  }
  return undefined;
}
