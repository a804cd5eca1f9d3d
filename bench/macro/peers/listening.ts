/** Whether a program has come as far as listening. */
import { type Netns, withinNetns } from "../../../os/netns.ts";

const LISTEN = "0A"; // TCP_LISTEN in /proc/net/tcp
const TABLES = ["tcp", "tcp6"] as const;

/** Whether something listens on a TCP port of a network namespace. */
export function isListening(netns: Netns, port: number): boolean {
  const tables = withinNetns(netns, () => TABLES.map((it) => Deno.readTextFileSync(`/proc/thread-self/net/${it}`)));
  return tables.some((text) => hasListener(text, port));
}

/** Whether a table of /proc/net/tcp's form has a listener on the port. */
export function hasListener(table: string, port: number): boolean {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  return table.split("\n").slice(1).some((line) => {
    const fields = line.trim().split(/\s+/);
    return fields[3] === LISTEN && fields[1]!.endsWith(suffix);
  });
}
