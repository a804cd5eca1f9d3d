/** A probe's open connections and servers. */
import { ignore } from "../../base/errors.ts";
import { accepted } from "./accepted.ts";
import { digestOf } from "./probe_loads.ts";
import { sendRandom, type ServerKind, type Target, writeAll } from "./probe_operations.ts";

/** How a connection was found: ended in order, ended by a reset or another error, or not ended. */
export type Ending = "eof" | "reset" | "open";

const LINE_BYTES_MAX = 64 * 1024;

interface Connection {
  readonly socket: Deno.TcpConn;
  received: number;
  /** Bytes that came after the last line. */
  rest: string;
}

/** What a server has seen. */
export interface Served {
  accepted: number;
  open: number;
  /** Digest of what the last connection brought or, with a `source`, was given. */
  lastSha256: string;
  /** Why the last connection that failed did. */
  lastError: string;
}

interface Server extends Served {
  readonly held: Deno.TcpConn[];
}

export class Handles {
  readonly #connections = new Map<number, Connection>();
  readonly #servers = new Map<number, Server>();
  #last = 0;

  async open({ host, port }: Target, timeoutMs: number): Promise<number> {
    const socket = await within(
      timeoutMs,
      `connecting to ${host} port ${port}`,
      Deno.connect({ hostname: host, port }),
    );
    socket.setNoDelay(true);
    const handle = ++this.#last;
    this.#connections.set(handle, { socket, received: 0, rest: "" });
    return handle;
  }

  async send(handle: number, bytes: Uint8Array): Promise<void> {
    await writeAll(this.#get(handle).socket, bytes);
  }

  async say(handle: number, text: string, timeoutMs: number): Promise<string> {
    const connection = this.#get(handle);
    await writeAll(connection.socket, new TextEncoder().encode(`${text}\n`));
    return await within(timeoutMs, "waiting for a line", readLine(connection));
  }

  async ended(handle: number, timeoutMs: number): Promise<Ending> {
    const connection = this.#get(handle), chunk = new Uint8Array(LINE_BYTES_MAX);
    const read = async (): Promise<Ending> => {
      try {
        for (let count; (count = await connection.socket.read(chunk)) !== null;) connection.received += count;
        return "eof";
      } catch (error) {
        ignore(error, "how it ended is the answer");
        return "reset";
      }
    };
    const deadline = timer(timeoutMs);
    const ending = await Promise.race([read(), deadline.passed.then(() => "open" as const)]);
    deadline.cancel();
    return ending;
  }

  receivedBytes(handle: number): number {
    return this.#get(handle).received;
  }

  close(handle: number): void {
    const connection = this.#connections.get(handle);
    if (connection === undefined) return;
    this.#connections.delete(handle);
    connection.socket.close();
  }

  served(port: number): Served {
    const { held: _, ...served } = this.#servers.get(port)!;
    return served;
  }

  /**
   * - `line`: answers each line by `YOU <caller's address> <line>`.
   * - `sink`: reads to the end, then answers `<bytes> <sha256>` and closes.
   * - `source`: reads a line with a number, sends that many bytes and closes.
   * - `farewell`: says a line, ends its direction, and reads to the end.
   * - `reset`: reads one byte and resets the connection, with bytes unread.
   * - `silent`: accepts, and neither reads nor writes.
   */
  listen(port: number, kind: ServerKind): Promise<number> {
    const listener = Deno.listen({ hostname: "::", port });
    const actual = (listener.addr as Deno.NetAddr).port;
    const server: Server = { accepted: 0, open: 0, lastSha256: "", lastError: "", held: [] };
    this.#servers.set(actual, server);
    acceptAll(listener, server, kind);
    return Promise.resolve(actual);
  }

  #get(handle: number): Connection {
    const connection = this.#connections.get(handle);
    if (connection === undefined) throw new Error(`there is no connection ${handle}`);
    return connection;
  }
}

async function acceptAll(listener: Deno.TcpListener, server: Server, kind: ServerKind): Promise<void> {
  for await (const socket of accepted(listener)) {
    server.accepted++;
    server.open++;
    if (kind === "silent") {
      server.held.push(socket);
      continue;
    }
    SERVE[kind](socket, server).catch((error) => server.lastError = String(error)).finally(() => {
      server.open--;
      try {
        socket.close();
      } catch (error) {
        ignore(error, "closed by its own turn");
      }
    });
  }
}

type Serve = (socket: Deno.TcpConn, server: Server) => Promise<void>;

const SERVE: Readonly<Record<Exclude<ServerKind, "silent">, Serve>> = {
  async line(socket) {
    socket.setNoDelay(true);
    const connection: Connection = { socket, received: 0, rest: "" };
    const caller = socket.remoteAddr.hostname.replace(/^::ffff:/, "");
    while (true) {
      const line = await readLine(connection);
      await writeAll(socket, new TextEncoder().encode(`YOU ${caller} ${line}\n`));
    }
  },
  async sink(socket, server) {
    const { bytes, sha256 } = await digestOf(socket);
    server.lastSha256 = sha256;
    await writeAll(socket, new TextEncoder().encode(`${bytes} ${sha256}\n`));
  },
  async farewell(socket, server) {
    await writeAll(socket, new TextEncoder().encode("that was all\n"));
    await socket.closeWrite();
    server.lastSha256 = (await digestOf(socket)).sha256;
  },
  async source(socket, server) {
    const bytes = Number(await readLine({ socket, received: 0, rest: "" }));
    server.lastSha256 = await sendRandom(socket, bytes);
  },
  async reset(socket) {
    // Closing a socket that still holds unread bytes makes the kernel send a reset (RFC 2525 §2.17).
    await socket.read(new Uint8Array(1));
  },
};

async function readLine(connection: Connection): Promise<string> {
  const chunk = new Uint8Array(LINE_BYTES_MAX), decoder = new TextDecoder();
  while (true) {
    const end = connection.rest.indexOf("\n");
    if (end >= 0) {
      const line = connection.rest.slice(0, end);
      connection.rest = connection.rest.slice(end + 1);
      return line;
    }
    if (connection.rest.length > LINE_BYTES_MAX) throw new Error("the line has no end");
    const count = await connection.socket.read(chunk);
    if (count === null) throw new Error("the connection ended without an answer");
    connection.received += count;
    connection.rest += decoder.decode(chunk.subarray(0, count), { stream: true });
  }
}

function timer(ms: number): { passed: Promise<void>; cancel: () => void } {
  let id: ReturnType<typeof setTimeout> | undefined;
  const passed = new Promise<void>((resolve) => id = setTimeout(resolve, ms));
  return { passed, cancel: () => clearTimeout(id) };
}

async function within<T>(ms: number, doing: string, work: Promise<T>): Promise<T> {
  const deadline = timer(ms);
  try {
    return await Promise.race([
      work,
      deadline.passed.then(() => {
        throw new Error(`${doing} took longer than ${ms} ms`);
      }),
    ]);
  } finally {
    deadline.cancel();
  }
}
