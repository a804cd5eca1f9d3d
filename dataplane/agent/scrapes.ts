/** Metrics as scrapers get them: anybody on the network may ask, and answering takes a share of the agent's thread, never all of it. */
import { compress, encodingFor } from "./compression.ts";
import { contentTypeFor } from "./metrics.ts";

/** Of the thread's time, for scrapers that ask in a loop; they get the last page again when it is used up. */
const SHARE = 1 / 5;
/** What may be used at once: whoever asks now and then gets a page of this moment. */
const BURST_MS = 500;
/** No page is older. */
const AGE_MS_MAX = 5_000;

export class Scrapes {
  readonly #make: () => string;
  readonly #now: () => number;
  /** The last page by its encoding, `""` for none. */
  readonly #bodies = new Map<string, Uint8Array<ArrayBuffer>>();
  #madeAtMs = -Infinity;
  #creditMs = BURST_MS;
  #creditAtMs: number;

  /** @param make the text of all metrics. @param now milliseconds that only grow. */
  constructor(make: () => string, now: () => number = () => performance.now()) {
    this.#make = make;
    this.#now = now;
    this.#creditAtMs = now();
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
    this.#creditMs = Math.min(this.#creditMs + SHARE * (beganAtMs - this.#creditAtMs), BURST_MS);
    this.#creditAtMs = beganAtMs;
    if (this.#creditMs > 0 || beganAtMs >= this.#madeAtMs + AGE_MS_MAX) {
      bodies.clear();
      bodies.set("", new TextEncoder().encode(this.#make()));
      this.#madeAtMs = beganAtMs;
    }
    let body = bodies.get(encoding);
    if (body === undefined) bodies.set(encoding, body = compress(bodies.get("")!, encoding));
    this.#creditMs -= this.#now() - beganAtMs;
    return body;
  }
}
