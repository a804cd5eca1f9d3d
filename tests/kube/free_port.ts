/** Ports for programs that cannot be told to choose one themselves. */

// Below what the kernel gives to outgoing connections, and above what services are known by.
const FIRST = 20_000, COUNT = 12_000;
const TRIES_MAX = 200;
const given = new Set<number>();

/** A port of the loopback address that nobody listens on, another one at every call. */
export function freePort(): number {
  for (let at = 0; at < TRIES_MAX; at++) {
    const port = FIRST + Math.floor(Math.random() * COUNT);
    if (given.has(port) || !isFree(port)) continue;
    given.add(port);
    return port;
  }
  throw new Error(`no free port found in ${TRIES_MAX} tries`);
}

function isFree(port: number): boolean {
  try {
    Deno.listen({ hostname: "127.0.0.1", port }).close();
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse) return false;
    throw error;
  }
}
