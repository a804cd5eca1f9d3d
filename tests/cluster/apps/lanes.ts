/** One question and its answer by each protocol, over a connection that the caller keeps or not. */
import * as grpc from "@grpc/grpc-js";
import { Buffer } from "node:buffer";

/** A connection that questions are asked over, one at a time. */
export interface Asker {
  ask(question: string): Promise<string>;
  close(): void;
}

const TIMEOUT_MS = 4_000;
const BYTES_MAX = 65_536;
const host = (name: string, port: number) => ({ hostname: Deno.env.get(name) ?? name.toLowerCase(), port });

/** Bytes of a TCP connection, with a deadline for every wait. */
class Stream {
  readonly #connection: Deno.TcpConn;
  #text = "";

  constructor(connection: Deno.TcpConn) {
    this.#connection = connection;
  }

  static async connect(options: { hostname: string; port: number }): Promise<Stream> {
    return new Stream(await Deno.connect({ ...options, signal: AbortSignal.timeout(TIMEOUT_MS) }));
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) at += await this.#connection.write(bytes.subarray(at));
  }

  /** Reads until `pattern` matches what has come, as Latin-1, and takes that away. */
  async until(pattern: RegExp): Promise<RegExpExecArray> {
    const timer = setTimeout(() => this.close(), TIMEOUT_MS), bytes = new Uint8Array(BYTES_MAX);
    try {
      for (;;) {
        const found = pattern.exec(this.#text);
        if (found !== null) {
          this.#text = this.#text.slice(found.index + found[0].length);
          return found;
        }
        const count = await this.#connection.read(bytes);
        if (count === null) throw new Error("the connection ended");
        this.#text += Buffer.from(bytes.subarray(0, count)).toString("latin1");
      }
    } finally {
      clearTimeout(timer);
    }
  }

  close(): void {
    try {
      this.#connection.close();
    } catch (error) {
      if (!(error instanceof Deno.errors.BadResource)) throw error; // The deadline was first.
    }
  }
}

const encode = (text: string) => new TextEncoder().encode(text);

async function http(): Promise<Asker> {
  const stream = await Stream.connect(host("SERVER", 8080));
  return {
    ask: async (question) => {
      await stream.write(encode(`GET /${question} HTTP/1.1\r\nhost: server\r\n\r\n`));
      const [, length] = await stream.until(/content-length: (\d+)\r\n[^]*?\r\n\r\n/i);
      const [body] = await stream.until(new RegExp(`[^]{${length}}`));
      return body.split(" ")[0]!;
    },
    close: () => stream.close(),
  };
}

async function redis(): Promise<Asker> {
  const stream = await Stream.connect(host("REDIS", 6379));
  return {
    ask: async (question) => {
      await stream.write(encode(`*2\r\n$4\r\nECHO\r\n$${question.length}\r\n${question}\r\n`));
      return (await stream.until(/\$\d+\r\n(.*)\r\n/))[1]!;
    },
    close: () => stream.close(),
  };
}

/** PostgreSQL's protocol, version 3: a start without a password, then simple queries. */
async function postgres(): Promise<Asker> {
  const stream = await Stream.connect(host("POSTGRES", 5432));
  const message = (type: string, body: string) => {
    const bytes = new Uint8Array(type.length + 4 + body.length);
    bytes.set(encode(type));
    new DataView(bytes.buffer).setUint32(type.length, 4 + body.length);
    bytes.set(encode(body), type.length + 4);
    return bytes;
  };
  await stream.write(message("", "\0\x03\0\0user\0postgres\0database\0postgres\0\0"));
  const idle = new RegExp("[^]*?Z\0\0\0\u0005I"); // ReadyForQuery, idle
  await stream.until(idle);
  return {
    ask: async (question) => {
      await stream.write(message("Q", `SELECT '${question}'\0`));
      const [all] = await stream.until(idle);
      return /ambit-plain-\d+/.exec(all)?.[0] ?? all;
    },
    close: () => stream.close(),
  };
}

const raw = (bytes: Buffer): Buffer => bytes;

function grpcAsker(): Promise<Asker> {
  const { hostname, port } = host("SERVER", 9090);
  const client = new grpc.Client(`${hostname}:${port}`, grpc.credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.enable_retries": 0,
  });
  const ask = (question: string) =>
    new Promise<string>((resolve, reject) => {
      const options = { deadline: Date.now() + TIMEOUT_MS };
      client.makeUnaryRequest(
        "/ambit.test.Echo/Ask",
        raw,
        raw,
        Buffer.from(question),
        new grpc.Metadata(),
        options,
        (error, answer) => error === null && answer !== undefined ? resolve(answer.toString()) : reject(error),
      );
    });
  return Promise.resolve({ ask, close: () => client.close() });
}

const PROTOCOLS = { http, redis, postgres, grpc: grpcAsker };

const ASKED = Deno.env.get("PROTOCOLS")?.split(",") ?? Object.keys(PROTOCOLS);

export const LANES = Object.entries(PROTOCOLS).filter(([name]) => ASKED.includes(name)).flatMap(([name, connect]) => [
  { name: `kept ${name}`, connect },
  { name: `new ${name}`, connect },
]);
