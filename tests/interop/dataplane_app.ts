/**
 * The program of a pod: servers of every manner on fixed ports, and a client that does what it is told. One JSON
 * request a line in, one JSON answer a line out.
 */
import { createHash } from "node:crypto";
import { ignore } from "../../base/errors.ts";

/** Ports of the servers, the same in every pod. */
export const APP_PORT = {
  http: 8080,
  /** Sends back what it reads, and ends when the caller has ended. */
  echo: 9001,
  /** Reads to the end, then answers `<bytes> <sha256>`. */
  sink: 9002,
  /** Reads a line with a number and sends that many bytes. */
  source: 9003,
  /** Says `first` and ends its direction at once, then reads to the end. */
  endsFirst: 9004,
  /** Reads one byte and resets the connection. */
  reset: 9005,
  /** As `sink`, but reads nothing for a while. */
  slowSink: 9006,
} as const;
export type AppServer = keyof typeof APP_PORT;
/** How long a slow reader reads nothing: buffers of every hop fill meanwhile. */
export const SLOW_READER_MS = 3_000;

/** How a connection was found: ended in order, ended by a reset or another error, or not ended. */
export type Ending = "eof" | "reset" | "open";
export interface Target {
  readonly host: string;
  readonly port: number;
}
/** What a server heard on one connection, kept when that ended. */
export interface Heard {
  /** 1 for the first connection that ended in this pod, and so on. */
  readonly number: number;
  readonly port: number;
  readonly bytes: number;
  readonly sha256: string;
  readonly ending: Ending;
}

const CHUNK_BYTES = 64 * 1024;
const ANSWER_TIMEOUT_MS = 60_000;
const HEARD_MAX = 64;
const heard: Heard[] = [];
const held = new Map<number, Deno.TcpConn>();
let lastHandle = 0, heardCount = 0;

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

async function writeAll(socket: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await socket.write(bytes.subarray(at));
}

/** Sends bytes of which no two chunks are equal, so that a lost or doubled one is noticed. @returns Their digest. */
async function sendPattern(socket: Deno.Conn, total: number): Promise<string> {
  const hash = createHash("sha256"), words = crypto.getRandomValues(new Uint32Array(CHUNK_BYTES / 4));
  const chunk = new Uint8Array(words.buffer);
  for (let sent = 0; sent < total;) {
    words[0] = sent;
    const part = chunk.subarray(0, Math.min(CHUNK_BYTES, total - sent));
    hash.update(part);
    await writeAll(socket, part);
    sent += part.length;
  }
  return hash.digest("hex");
}

/** Reads to the end, whichever it is. */
async function readToEnd(socket: Deno.Conn): Promise<{ bytes: number; sha256: string; ending: Ending; text: string }> {
  const hash = createHash("sha256"), chunk = new Uint8Array(CHUNK_BYTES), decoder = new TextDecoder();
  let bytes = 0, text = "", ending: Ending = "eof";
  try {
    for (let count; (count = await socket.read(chunk)) !== null;) {
      hash.update(chunk.subarray(0, count));
      bytes += count;
      if (text.length < 1_000) text += decoder.decode(chunk.subarray(0, count), { stream: true });
    }
  } catch (error) {
    ignore(error, "how it ended is what is asked");
    ending = "reset";
  }
  return { bytes, sha256: hash.digest("hex"), ending, text };
}

async function readLine(socket: Deno.Conn): Promise<string> {
  const one = new Uint8Array(1);
  let line = "";
  while (line.length < 1_000) {
    if (await socket.read(one) === null) throw new Error("the connection ended without an answer");
    const character = String.fromCharCode(one[0]!);
    if (character === "\n") return line;
    line += character;
  }
  throw new Error("the line has no end");
}

function keep(port: number, { bytes, sha256, ending }: { bytes: number; sha256: string; ending: Ending }): void {
  heard.push({ number: ++heardCount, port, bytes, sha256, ending });
  if (heard.length > HEARD_MAX) heard.shift();
}

type Serve = (socket: Deno.TcpConn) => Promise<void>;
const SERVE: Readonly<Record<Exclude<AppServer, "http">, Serve>> = {
  async echo(socket) {
    socket.setNoDelay(true);
    const chunk = new Uint8Array(CHUNK_BYTES);
    let bytes = 0, ending: Ending = "eof";
    try {
      for (let count; (count = await socket.read(chunk)) !== null;) {
        bytes += count;
        await writeAll(socket, chunk.subarray(0, count));
      }
    } catch (error) {
      ignore(error, "how it ended is what is asked");
      ending = "reset";
    }
    keep(APP_PORT.echo, { bytes, sha256: "", ending });
  },
  async sink(socket) {
    const result = await readToEnd(socket);
    keep(APP_PORT.sink, result);
    await writeAll(socket, new TextEncoder().encode(`${result.bytes} ${result.sha256}\n`));
  },
  async source(socket) {
    const bytes = Number(await readLine(socket));
    keep(APP_PORT.source, { bytes, sha256: await sendPattern(socket, bytes), ending: "open" });
  },
  async endsFirst(socket) {
    await writeAll(socket, new TextEncoder().encode("first\n"));
    await socket.closeWrite();
    keep(APP_PORT.endsFirst, await readToEnd(socket));
  },
  async reset(socket) {
    // Closing a socket that still holds unread bytes makes the kernel send a reset (RFC 2525 §2.17).
    await socket.read(new Uint8Array(1));
  },
  async slowSink(socket) {
    await sleep(SLOW_READER_MS);
    await SERVE.sink(socket);
  },
};

async function listen(port: number, serve: Serve): Promise<void> {
  for await (const socket of Deno.listen({ hostname: "::", port })) {
    serve(socket).catch((error) => ignore(error, "the caller vanished")).finally(() => socket.close());
  }
}

const connect = ({ host, port }: Target) => Deno.connect({ hostname: host, port });

/** Connects, says a line, hears it again. */
async function echoOnce(target: Target, text: string): Promise<void> {
  using socket = await connect(target);
  await writeAll(socket, new TextEncoder().encode(`${text}\n`));
  const reply = await readLine(socket);
  if (reply !== text) throw new Error(`said ${text}, heard ${reply}`);
}

/** Ends a connection whose time is up, which ends what waits for it. */
function closeAfter(socket: Deno.Conn, ms: number): Disposable {
  const id = setTimeout(() => socket.close(), ms);
  return { [Symbol.dispose]: () => clearTimeout(id) };
}

/** Counts successes, and failures by their text. */
async function tally(work: readonly Promise<unknown>[]): Promise<{ ok: number; failures: string[] }> {
  const failures: string[] = [];
  for (const result of await Promise.allSettled(work)) {
    if (result.status === "rejected") failures.push((result.reason as Error).message);
  }
  return { ok: work.length - failures.length, failures: failures.slice(0, 5) };
}

const operations = {
  async http({ url }: { url: string }) {
    using client = Deno.createHttpClient({ poolMaxIdlePerHost: 0 });
    const response = await fetch(url, { client, signal: AbortSignal.timeout(5_000) });
    return { status: response.status, body: await response.text() };
  },
  async echo({ text, ...target }: Target & { text: string }) {
    await echoOnce(target, text);
    return {};
  },
  /** Tries a connection that should not carry: how did it end before an answer? */
  async refused(target: Target) {
    using socket = await connect(target);
    try {
      await writeAll(socket, new TextEncoder().encode("hello\n"));
    } catch (error) {
      ignore(error, "the end below tells");
    }
    const { ending, bytes } = await readToEnd(socket);
    return { ending, bytes };
  },
  async upload({ bytes, ...target }: Target & { bytes: number }) {
    using socket = await connect(target);
    const sha256 = await sendPattern(socket, bytes);
    await socket.closeWrite();
    return { sha256, reply: (await readToEnd(socket)).text.trim() };
  },
  /** Asks for bytes, and reads none of them for `idleMs`. */
  async download({ bytes, idleMs = 0, ...target }: Target & { bytes: number; idleMs?: number }) {
    using socket = await connect(target);
    await writeAll(socket, new TextEncoder().encode(`${bytes}\n`));
    await sleep(idleMs);
    const { bytes: received, sha256, ending } = await readToEnd(socket);
    return { bytes: received, sha256, ending };
  },
  /** Short connections, so many at a time. */
  async burst({ count, parallel, ...target }: Target & { count: number; parallel: number }) {
    let left = count, done = 0;
    const lane = async () => {
      while (left-- > 0) {
        await echoOnce(target, `hello ${left}`);
        done++;
      }
    };
    const { failures } = await tally(Array.from({ length: parallel }, lane));
    return { done, failures };
  },
  /** Hears the other end its direction first, then goes on talking. */
  async heardEndFirst({ bytes, ...target }: Target & { bytes: number }) {
    using socket = await connect(target);
    const { text, ending } = await readToEnd(socket);
    const sha256 = await sendPattern(socket, bytes);
    await socket.closeWrite();
    return { text, ending, sha256 };
  },
  /** Resets a connection in use: by closing it with an echo unread. */
  async abort(target: Target) {
    using socket = await connect(target);
    await writeAll(socket, new Uint8Array(1_000));
    await socket.read(new Uint8Array(1));
    return {};
  },
  /** Opens connections that stay, each proven by an echo. */
  async hold({ count, ...target }: Target & { count: number }) {
    const handles: number[] = [];
    const result = await tally(Array.from({ length: count }, async () => {
      const socket = await connect(target), handle = ++lastHandle;
      held.set(handle, socket);
      using _deadline = closeAfter(socket, ANSWER_TIMEOUT_MS);
      await writeAll(socket, new TextEncoder().encode("hold\n"));
      await readLine(socket);
      handles.push(handle);
    }));
    return { handles, ...result };
  },
  /** Says a line on each of the connections and hears it again. */
  async say({ handles, text }: { handles: number[]; text: string }) {
    return await tally(handles.map(async (handle) => {
      const socket = held.get(handle)!;
      await writeAll(socket, new TextEncoder().encode(`${text}\n`));
      const reply = await readLine(socket);
      if (reply !== text) throw new Error(`said ${text}, heard ${reply}`);
    }));
  },
  /** Waits for the other side to end a connection that stays. */
  async ended({ handle, timeoutMs }: { handle: number; timeoutMs: number }): Promise<{ ending: Ending }> {
    let id: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<{ ending: Ending }>((resolve) =>
      id = setTimeout(() => resolve({ ending: "open" }), timeoutMs)
    );
    const { ending } = await Promise.race([readToEnd(held.get(handle)!), late]);
    clearTimeout(id);
    return { ending };
  },
  release({ handles }: { handles: number[] }) {
    for (const handle of handles) {
      try {
        held.get(handle)?.close();
      } catch (error) {
        ignore(error, "its time was up");
      }
      held.delete(handle);
    }
    return {};
  },
  /** What this pod's servers heard, oldest first, after so many. */
  heard({ port, after }: { port: number; after: number }) {
    return heard.filter((it) => it.port === port && it.number > after);
  },
  /** How many connections of this pod's servers have ended. */
  heardCount(_input: Record<never, never>) {
    return heardCount;
  },
};
export type AppOperations = typeof operations;

async function answer(question: { id: number; operation: keyof AppOperations; input: never }): Promise<void> {
  let line: string;
  try {
    line = JSON.stringify({ id: question.id, output: await operations[question.operation](question.input) });
  } catch (error) {
    line = JSON.stringify({ id: question.id, error: error instanceof Error ? error.message : String(error) });
  }
  write(line);
}

function write(line: string): void {
  const bytes = new TextEncoder().encode(`${line}\n`);
  for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
}

if (import.meta.main) {
  const name = Deno.args[0]!;
  for (const [kind, serve] of Object.entries(SERVE)) listen(APP_PORT[kind as AppServer], serve);
  Deno.serve(
    { hostname: "::", port: APP_PORT.http, onListen: () => write(`{"ready":true}`) },
    (request, { remoteAddr }) =>
      new Response(`${name} heard ${remoteAddr.hostname.replace(/^::ffff:/, "")} at ${new URL(request.url).pathname}`),
  );
  let partial = "";
  for await (const text of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
    const lines = (partial + text).split("\n");
    partial = lines.pop() ?? "";
    for (const line of lines) answer(JSON.parse(line));
  }
  Deno.exit(0); // Whoever asked is gone: so are we, whatever is still open.
}
