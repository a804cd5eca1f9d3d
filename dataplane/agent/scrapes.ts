/** Metrics as scrapers get them: anybody on the network may ask, and answering takes a share of the agent's thread, never all of it. */
import { compress, encodingFor } from "./compression.ts";
import { contentTypeFor } from "./metrics.ts";

/** So many times as long as a page took to make it is given again as it is: a fifth of the thread goes to scrapers at most. */
const REST = 4;
/** No page is older. */
const REST_MS_MAX = 5_000;

export class Scrapes {
  readonly #make: () => string;
  readonly #now: () => number;
  /** The last page by its encoding, `""` for none. */
  readonly #bodies = new Map<string, Uint8Array<ArrayBuffer>>();
  #madeAtMs = 0;
  #freshUntilMs = -Infinity;

  /** @param make the text of all metrics. @param now milliseconds that only grow. */
  constructor(make: () => string, now: () => number = () => performance.now()) {
    this.#make = make;
    this.#now = now;
  }

  /** ZT-191. */
  answer(request: Request): Response {
    const { pathname } = new URL(request.url);
    if (pathname !== "/metrics" && pathname !== "/stats/prometheus") {
      return new Response("Not Found\n", { status: 404 });
    }
    const encoding = encodingFor(request.headers.get("accept-encoding") ?? "") ?? "";
    const body = this.#body(encoding), compressed = body !== this.#bodies.get("");
    return new Response(body, {
      headers: {
        "content-type": contentTypeFor(request.headers.get("accept") ?? ""),
        vary: "accept-encoding",
        ...(compressed ? { "content-encoding": encoding } : {}),
      },
    });
  }

  #body(encoding: string): Uint8Array<ArrayBuffer> {
    const beganAtMs = this.#now(), bodies = this.#bodies;
    if (beganAtMs >= this.#freshUntilMs) {
      bodies.clear();
      bodies.set("", new TextEncoder().encode(this.#make()));
      this.#madeAtMs = this.#freshUntilMs = beganAtMs;
    }
    let body = bodies.get(encoding);
    if (body === undefined) bodies.set(encoding, body = compress(bodies.get("")!, encoding));
    const endedAtMs = this.#now(), restMs = REST * (endedAtMs - beganAtMs);
    this.#freshUntilMs = Math.min(Math.max(this.#freshUntilMs, endedAtMs) + restMs, this.#madeAtMs + REST_MS_MAX);
    return body;
  }
}
