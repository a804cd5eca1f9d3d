/** What a probe can do inside a pod's namespace. Arguments and results are JSON; what fails rejects. */
import { createHash } from "node:crypto";
import { connect as connectTls } from "node:tls";
import { Buffer } from "node:buffer";
import type { Ending, Handles, Served } from "./probe_handles.ts";
import { deafDownloads, deafPings } from "./probe_deaf.ts";
import { burst, digestOf, Flow, IdleCrowd, lateUpload, resetMidway } from "./probe_loads.ts";
import { PatternLoad, type PatternOrder, PatternServer, type PatternTally } from "./probe_pattern.ts";

export interface Target {
  readonly host: string;
  readonly port: number;
}

export interface TlsOutcome {
  /** Whether the other side sent anything over the finished TLS connection: it has accepted us. */
  readonly answered: boolean;
  readonly protocol: string | null;
  readonly ending: Ending;
  readonly error: string;
}

const CHUNK_BYTES = 64 * 1024;
/** For what should happen: far longer than it takes on a busy machine, so that only a fault lasts so long. */
const PATIENCE_MS = 30_000;

/** The operations of one probe, over its open connections. */
export function operations(handles: Handles) {
  const crowd = new IdleCrowd(), flow = new Flow(), load = new PatternLoad(), patternServer = new PatternServer();
  return {
    burst,
    lateUpload,
    resetMidway,
    deafPings,
    deafDownloads,
    openIdle: (input: Parameters<IdleCrowd["open"]>[0]) => crowd.open(input),
    useIdle: (input: Parameters<IdleCrowd["useAndClose"]>[0]) => crowd.useAndClose(input),
    startFlow: (input: Target) => flow.start(input),
    stopFlow: (_: Record<never, never>) => flow.stop(),

    listenPattern: (input: { port: number }) => patternServer.listen(input),
    startPattern: (input: PatternOrder) => load.start(input),
    stopPattern: (_: Record<never, never>) => load.stop(),
    /** What the load and the server of patterns have seen so far. */
    patternTallies: (_: Record<never, never>): { client: PatternTally; server: PatternTally } => ({
      client: load.tally,
      server: patternServer.tally,
    }),

    /** One HTTP request on a connection of its own. */
    async request({ url, headers, timeoutMs = PATIENCE_MS }: {
      url: string;
      headers?: Record<string, string>;
      timeoutMs?: number;
    }): Promise<{ status: number; body: string; ms: number }> {
      using client = Deno.createHttpClient({ poolMaxIdlePerHost: 0 });
      const startedAtMs = performance.now();
      const response = await fetch(url, { headers, client, signal: AbortSignal.timeout(timeoutMs) });
      const body = await response.text();
      return { status: response.status, body, ms: performance.now() - startedAtMs };
    },

    /** Connects, says a line, hears a line, closes. */
    async line({ host, port, text, timeoutMs = PATIENCE_MS }: Target & { text: string; timeoutMs?: number }): Promise<
      { reply: string; ms: number }
    > {
      const startedAtMs = performance.now();
      const handle = await handles.open({ host, port }, timeoutMs);
      try {
        return { reply: await handles.say(handle, text, timeoutMs), ms: performance.now() - startedAtMs };
      } finally {
        handles.close(handle);
      }
    },

    /** Opens a connection that stays. */
    async open({ host, port, timeoutMs = PATIENCE_MS }: Target & { timeoutMs?: number }): Promise<{ handle: number }> {
      return { handle: await handles.open({ host, port }, timeoutMs) };
    },

    /** Says a line on an open connection and hears one. */
    async say({ handle, text, timeoutMs = PATIENCE_MS }: { handle: number; text: string; timeoutMs?: number }): Promise<
      { reply: string }
    > {
      return { reply: await handles.say(handle, text, timeoutMs) };
    },

    /** Waits until the other side ends the connection. `atMs` is by the system's clock. */
    async ended({ handle, timeoutMs }: { handle: number; timeoutMs: number }): Promise<
      { ending: Ending; atMs: number }
    > {
      return { ending: await handles.ended(handle, timeoutMs), atMs: Date.now() };
    },

    close({ handle }: { handle: number }): Record<never, never> {
      handles.close(handle);
      return {};
    },

    /** Sends `bytes` bytes, ends its direction, then hears what the other side counted: needs a `sink`. */
    async upload({ host, port, bytes, timeoutMs = 300_000 }: Target & { bytes: number; timeoutMs?: number }): Promise<
      { sha256: string; reply: string; ms: number }
    > {
      using connection = await Deno.connect({ hostname: host, port });
      using _timer = closeAfter(connection, timeoutMs);
      const startedAtMs = performance.now();
      const sha256 = await sendRandom(connection, bytes);
      await connection.closeWrite();
      const reply = await readAllText(connection);
      return { sha256, reply: reply.trim(), ms: performance.now() - startedAtMs };
    },

    /** Asks a `source` for `bytes` bytes and reads to the end. */
    async download({ host, port, bytes, timeoutMs = 300_000 }: Target & { bytes: number; timeoutMs?: number }): Promise<
      { sha256: string; bytes: number; ms: number }
    > {
      using connection = await Deno.connect({ hostname: host, port });
      using _timer = closeAfter(connection, timeoutMs);
      const startedAtMs = performance.now();
      await writeAll(connection, new TextEncoder().encode(`${bytes}\n`));
      return { ...await digestOf(connection), ms: performance.now() - startedAtMs };
    },

    /** Serves until the probe ends. See {@link Handles.listen} for the kinds. */
    async listen({ port, kind }: { port: number; kind: ServerKind }): Promise<{ port: number }> {
      return { port: await handles.listen(port, kind) };
    },

    /** What a server of this probe has seen. */
    served({ port }: { port: number }): Served {
      return handles.served(port);
    },

    /** A TLS connection, with a client certificate or without; says the HTTP/2 preface and waits for an answer. */
    tls({ host, port, certificate, key, waitMs = PATIENCE_MS }: Target & {
      certificate?: string;
      key?: string;
      waitMs?: number;
    }): Promise<TlsOutcome> {
      return new Promise((resolve) => {
        let answered = false, error = "", ending: Ending = "open";
        const socket = connectTls({
          host,
          port,
          cert: certificate,
          key,
          rejectUnauthorized: false,
          ALPNProtocols: ["h2"],
        }, () => socket.write(H2_OPENING));
        let protocol: string | null = null;
        const timer = setTimeout(() => socket.destroy(), waitMs);
        socket.on("secureConnect", () => protocol = socket.getProtocol());
        socket.on("data", () => {
          answered = true;
          socket.destroy();
        });
        socket.on("end", () => ending = "eof");
        socket.on("error", (cause: Error) => {
          error = cause.message;
          ending = "reset";
        });
        socket.on("close", () => {
          clearTimeout(timer);
          resolve({ answered, protocol, ending, error });
        });
      });
    },

    /** Sends bytes as they are, then reads until the other side ends or the time is up. */
    async raw({ host, port, hex, waitMs }: Target & { hex: string; waitMs: number }): Promise<
      { receivedBytes: number; ending: Ending; ms: number }
    > {
      const startedAtMs = performance.now(); // Before the other side can have seen it: its time limit lies within ours.
      const handle = await handles.open({ host, port }, waitMs);
      try {
        if (hex !== "") await handles.send(handle, new Uint8Array(Buffer.from(hex, "hex")));
        const ending = await handles.ended(handle, waitMs);
        return { receivedBytes: handles.receivedBytes(handle), ending, ms: performance.now() - startedAtMs };
      } finally {
        handles.close(handle);
      }
    },
  };
}

export type ServerKind = "line" | "sink" | "source" | "farewell" | "reset" | "silent";
export type Operations = ReturnType<typeof operations>;

/** RFC 9113 §3.4 preface and an empty SETTINGS frame. */
const H2_OPENING = Buffer.from("505249202a20485454502f322e300d0a0d0a534d0d0a0d0a000000040000000000", "hex");

function closeAfter(connection: Deno.Conn, ms: number): Disposable {
  const timer = setTimeout(() => connection.close(), ms);
  return { [Symbol.dispose]: () => clearTimeout(timer) };
}

/** Writes the whole of `bytes`. */
export async function writeAll(connection: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
}

/** Sends bytes that do not compress and never repeat in step. @returns Their digest. */
export async function sendRandom(connection: Deno.Conn, total: number): Promise<string> {
  const hash = createHash("sha256");
  const words = crypto.getRandomValues(new Uint32Array(CHUNK_BYTES / 4));
  const chunk = new Uint8Array(words.buffer);
  for (let sent = 0; sent < total;) {
    words[0] = sent; // No two chunks are equal, so a lost or doubled one is noticed.
    words[1] = Math.floor(sent / 0x1_0000_0000);
    const part = chunk.subarray(0, Math.min(CHUNK_BYTES, total - sent));
    hash.update(part);
    await writeAll(connection, part);
    sent += part.length;
  }
  return hash.digest("hex");
}

async function readAllText(connection: Deno.Conn): Promise<string> {
  const chunk = new Uint8Array(CHUNK_BYTES), decoder = new TextDecoder();
  let text = "";
  for (let count; (count = await connection.read(chunk)) !== null;) {
    text += decoder.decode(chunk.subarray(0, count), { stream: true });
  }
  return text;
}
