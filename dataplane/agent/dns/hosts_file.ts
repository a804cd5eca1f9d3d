/** The names that a machine knows without asking (hosts(5)). */
import { type IpWords, parseIp } from "../../../base/address.ts";
import { ignore } from "../../../base/errors.ts";
import { parseName } from "../../../wire/dns/name.ts";

const FILE_BYTES_MAX = 1024 * 1024;

/** Parses the file's text: by name in lower case, its addresses in the order of the lines. */
export function parseHosts(text: string): ReadonlyMap<string, readonly IpWords[]> {
  const hosts = new Map<string, IpWords[]>();
  for (const line of text.split("\n")) {
    const [address, ...names] = line.replace(/#.*/, "").trim().split(/\s+/);
    const ip = parseIp(address ?? "");
    if (ip === undefined) continue;
    for (const name of names.flatMap((it) => parseName(it) || [])) {
      const known = hosts.get(name);
      if (known === undefined) hosts.set(name, [ip]);
      else known.push(ip);
    }
  }
  return hosts;
}

/** The file's text; empty where there is none, which is no mistake. */
export function readHosts(path: string): string {
  try {
    return Deno.readTextFileSync(path).slice(0, FILE_BYTES_MAX);
  } catch (error) {
    ignore(error, "a machine needs no hosts file");
    return "";
  }
}
