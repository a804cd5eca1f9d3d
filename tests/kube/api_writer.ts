/** Writes to an API server as fast as it takes it: many requests at once, over few connections. */
import type { ApiServer } from "./api_server.ts";

const AT_ONCE = 32;

/** Calls as the administrator. */
export class ApiWriter implements Disposable {
  readonly #url: string;
  readonly #client: Deno.HttpClient;
  readonly #headers: Readonly<Record<string, string>>;

  private constructor(url: string, client: Deno.HttpClient, token: string) {
    this.#url = url;
    this.#client = client;
    this.#headers = { authorization: `Bearer ${token}` };
  }

  static async open(server: ApiServer): Promise<ApiWriter> {
    const caCerts = [await Deno.readTextFile(server.rootsPath)];
    return new ApiWriter(
      server.url,
      Deno.createHttpClient({ caCerts, poolMaxIdlePerHost: AT_ONCE }),
      server.adminToken,
    );
  }

  /** @throws Error for any answer but a success. */
  async call(method: string, path: string, body?: object, contentType = "application/json"): Promise<unknown> {
    const response = await fetch(`${this.#url}${path}`, {
      method,
      client: this.#client,
      headers: { ...this.#headers, ...(body === undefined ? {} : { "content-type": contentType }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text.slice(0, 500)}`);
    return JSON.parse(text);
  }

  /** Does it for every number below `count`, many at once. */
  async each(count: number, work: (index: number) => Promise<unknown>): Promise<void> {
    let next = 0;
    const worker = async () => {
      for (let index = next++; index < count; index = next++) await work(index);
    };
    await Promise.all(Array.from({ length: Math.min(AT_ONCE, count) }, worker));
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}
