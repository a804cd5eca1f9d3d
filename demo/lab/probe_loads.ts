/** Many connections at once: what a probe does to find out whether each of them is served. */
import { createHash } from "node:crypto";
import { sendRandom, type Target, writeAll } from "./probe_operations.ts";

const LINE = new TextEncoder().encode("ping\n");
const REPLY_TIMEOUT_MS = 60_000;

export interface BurstOutcome {
  readonly succeeded: number;
  readonly failed: number;
  /** Each kind of failure, with how often it came. */
  readonly errors: Readonly<Record<string, number>>;
  readonly ms: number;
}

class Tally {
  succeeded = 0;
  failed = 0;
  readonly errors: Record<string, number> = {};
  readonly #startedAtMs = performance.now();

  async count(work: () => Promise<void>): Promise<void> {
    try {
      await work();
      this.succeeded++;
    } catch (error) {
      this.failed++;
      const text = error instanceof Error ? error.message : String(error);
      this.errors[text] = (this.errors[text] ?? 0) + 1;
    }
  }

  outcome(): BurstOutcome {
    const { succeeded, failed, errors } = this;
    return { succeeded, failed, errors, ms: performance.now() - this.#startedAtMs };
  }
}

/** Does `count` pieces of work, `concurrency` at a time. */
async function share(count: number, concurrency: number, work: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  await Promise.all(Array.from({ length: concurrency }, async () => {
    while (next < count) await work(next++);
  }));
}

async function exchange(connection: Deno.Conn, scratch: Uint8Array<ArrayBuffer>): Promise<void> {
  const timer = setTimeout(() => connection.close(), REPLY_TIMEOUT_MS);
  try {
    await writeAll(connection, LINE);
    const count = await connection.read(scratch);
    if (count === null) throw new Error("the connection ended without an answer");
  } finally {
    clearTimeout(timer);
  }
}

/** Connections that last for one line there and one back, to the ports in turn. */
export async function burst(options: {
  host: string;
  ports: readonly number[];
  count: number;
  concurrency: number;
}): Promise<BurstOutcome> {
  const { host, ports, count, concurrency } = options, tally = new Tally();
  await share(count, concurrency, (index) =>
    tally.count(async () => {
      using connection = await Deno.connect({ hostname: host, port: ports[index % ports.length]! });
      await exchange(connection, new Uint8Array(256));
    }));
  return tally.outcome();
}

/** Connections that stay open, unused, until each is used once more. */
export class IdleCrowd {
  readonly #connections: Deno.TcpConn[] = [];

  async open(
    { host, port, count, concurrency }: Target & { count: number; concurrency: number },
  ): Promise<BurstOutcome> {
    const tally = new Tally(), scratch = new Uint8Array(256);
    await share(count, concurrency, () =>
      tally.count(async () => {
        const connection = await Deno.connect({ hostname: host, port });
        this.#connections.push(connection);
        await exchange(connection, scratch);
      }));
    return tally.outcome();
  }

  async useAndClose({ concurrency }: { concurrency: number }): Promise<BurstOutcome> {
    const tally = new Tally(), connections = this.#connections.splice(0);
    await share(connections.length, concurrency, (index) =>
      tally.count(async () => {
        using connection = connections[index]!;
        await exchange(connection, new Uint8Array(256));
      }));
    return tally.outcome();
  }
}

export interface FlowOutcome {
  readonly exchanges: number;
  readonly longestGapMs: number;
  readonly error: string;
}

/** One connection on which a line goes there and back all the time: whatever disturbs it shows as a gap or an end. */
export class Flow {
  #stopped = false;
  #outcome: Promise<FlowOutcome> | undefined;

  async start(target: Target): Promise<Record<never, never>> {
    const connection = await Deno.connect({ hostname: target.host, port: target.port });
    connection.setNoDelay(true);
    this.#outcome = this.#run(connection);
    return {};
  }

  async stop(): Promise<FlowOutcome> {
    this.#stopped = true;
    return await this.#outcome!;
  }

  async #run(connection: Deno.TcpConn): Promise<FlowOutcome> {
    using _closing = connection;
    const scratch = new Uint8Array(256);
    let exchanges = 0, longestGapMs = 0;
    try {
      while (!this.#stopped) {
        const startedAtMs = performance.now();
        await exchange(connection, scratch);
        exchanges++;
        longestGapMs = Math.max(longestGapMs, performance.now() - startedAtMs);
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      return { exchanges, longestGapMs, error: "" };
    } catch (error) {
      return { exchanges, longestGapMs, error: error instanceof Error ? error.message : String(error) };
    }
  }
}

/** Hears the other side out, and only then sends `bytes` bytes. @returns Their digest. For a `farewell`. */
export async function lateUpload({ host, port, bytes }: Target & { bytes: number }): Promise<
  { heard: string; sha256: string }
> {
  using connection = await Deno.connect({ hostname: host, port });
  const scratch = new Uint8Array(1024), decoder = new TextDecoder();
  let heard = "";
  for (let count; (count = await connection.read(scratch)) !== null;) {
    heard += decoder.decode(scratch.subarray(0, count));
  }
  return { heard: heard.trim(), sha256: await sendRandom(connection, bytes) };
}

/** Sends a line, and resets the connection while the other side's bytes lie unread in our socket. For a `source`. */
export async function resetMidway({ host, port }: Target): Promise<Record<never, never>> {
  using connection = await Deno.connect({ hostname: host, port });
  await writeAll(connection, new TextEncoder().encode(`${1 << 30}\n`));
  await connection.read(new Uint8Array(1));
  return {}; // Closing a socket that still holds unread bytes makes the kernel send a reset (RFC 2525 §2.17).
}

/** The digest of everything that a connection brings until it ends. */
export async function digestOf(connection: Deno.Conn): Promise<{ bytes: number; sha256: string }> {
  const hash = createHash("sha256"), chunk = new Uint8Array(64 * 1024);
  let bytes = 0;
  for (let count; (count = await connection.read(chunk)) !== null;) {
    hash.update(chunk.subarray(0, count));
    bytes += count;
  }
  return { bytes, sha256: hash.digest("hex") };
}
