/** For tests: a proxy that takes CONNECT, and says whom it was asked for and by whom. */

export interface Asked {
  readonly target: string;
  /** The value of Proxy-Authorization. */
  readonly authorization: string | undefined;
}

/** Leads every CONNECT to one port of this machine, whatever it names; or answers what a test says in its stead. */
export class TestProxy implements AsyncDisposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #open = new Set<Deno.Conn>();
  readonly #running: Promise<void>;
  readonly asked: Asked[] = [];

  /** @param answer in place of the way to the server; undefined: nothing is ever answered. */
  constructor(serverPort: number, answer?: { readonly text: string | undefined }) {
    this.#running = this.#run((client) =>
      answer === undefined ? this.#lead(client, serverPort) : this.#say(client, answer)
    );
  }

  get port(): number {
    return (this.#listener.addr as Deno.NetAddr).port;
  }

  async #run(serve: (client: Deno.Conn) => Promise<void>): Promise<void> {
    const running: Promise<void>[] = [];
    for await (const client of this.#listener) {
      this.#open.add(client);
      running.push(
        serve(client).catch((error) => {
          if (!isEnd(error)) throw error;
        }).finally(() => closeOnce(client)),
      );
    }
    await Promise.all(running);
  }

  async #head(client: Deno.Conn): Promise<void> {
    const bytes = new Uint8Array(4096), count = await client.read(bytes) ?? 0;
    const head = new TextDecoder().decode(bytes.subarray(0, count));
    const target = /^CONNECT (\S+) HTTP\/1\.1\r\n/.exec(head)?.[1] ?? "";
    this.asked.push({ target, authorization: /^proxy-authorization: (.*)\r$/mi.exec(head)?.[1] });
  }

  async #lead(client: Deno.Conn, port: number): Promise<void> {
    await this.#head(client);
    const server = await Deno.connect({ hostname: "127.0.0.1", port });
    this.#open.add(server);
    await client.write(new TextEncoder().encode("HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n"));
    const both = [client.readable.pipeTo(server.writable), server.readable.pipeTo(client.writable)];
    await Promise.allSettled(both);
  }

  async #say(client: Deno.Conn, { text }: { readonly text: string | undefined }): Promise<void> {
    await this.#head(client);
    if (text !== undefined) await client.write(new TextEncoder().encode(text));
    while (await client.read(new Uint8Array(1024)) !== null);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    this.#open.forEach(closeOnce);
    await this.#running;
  }
}

function isEnd(error: unknown): boolean {
  return error instanceof Deno.errors.BadResource || error instanceof Deno.errors.ConnectionReset ||
    error instanceof Deno.errors.BrokenPipe || error instanceof Deno.errors.Interrupted;
}

function closeOnce(connection: Deno.Conn): void {
  try {
    connection.close();
  } catch (error) {
    if (!(error instanceof Deno.errors.BadResource)) throw error; // A pipe has closed it.
  }
}
