/**
 * The shop's customer: asks for the page again and again, and talks to the store on connections of its own. Once a
 * half second it prints, as one line of JSON, how each of its targets fared.
 */

const frontendUrl = Deno.env.get("FRONTEND_URL") ?? "http://127.0.0.1:8080/";
const storeAddress = Deno.env.get("STORE_ADDRESS") ?? "127.0.0.1:9000";
const banner = Deno.env.get("SHOP_BANNER") ?? "welcome";
const REQUEST_TIMEOUT_MS = 2_000;
const PAUSE_MS = 25; // about 40 requests a second and target: enough to see, little to pay
const REPORT_MS = 500;

/** What happened to one target since the last report. */
class Tally {
  readonly name: string;
  #latenciesMs: number[] = [];
  #failures = 0;
  #lastError = "";

  constructor(name: string) {
    this.name = name;
  }

  async time(work: () => Promise<void>): Promise<void> {
    const startedAtMs = performance.now();
    try {
      await work();
      this.#latenciesMs.push(performance.now() - startedAtMs);
    } catch (error) {
      this.#failures++;
      this.#lastError = error instanceof Error ? error.message : String(error);
    }
  }

  /** The figures so far; begins anew. */
  take() {
    const sorted = this.#latenciesMs.sort((left, right) => left - right);
    const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
    const figures = {
      target: this.name,
      succeeded: sorted.length,
      failed: this.#failures,
      p50Ms: at(0.5),
      p99Ms: at(0.99),
      error: this.#lastError,
    };
    this.#latenciesMs = [];
    this.#failures = 0;
    this.#lastError = "";
    return figures;
  }
}

async function visitPage(): Promise<void> {
  const response = await fetch(frontendUrl, {
    headers: { "x-shop-banner": banner, connection: "close" },
    signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
  });
  const text = await response.text();
  if (response.status !== 200 || !text.includes(banner)) throw new Error(`the page answers ${response.status}`);
}

async function askStore(round: number): Promise<void> {
  const [, hostname, port] = /^\[?(.*?)\]?:(\d+)$/.exec(storeAddress) ?? [];
  using connection = await Deno.connect({ hostname: hostname!, port: Number(port) });
  const giveUp = setTimeout(() => connection.close(), REQUEST_TIMEOUT_MS);
  try {
    await connection.write(new TextEncoder().encode(`PUT visits ${round} ${banner}\n`));
    const answer = new Uint8Array(4096);
    const count = await connection.read(answer);
    const text = new TextDecoder().decode(answer.subarray(0, count ?? 0));
    if (!text.includes("STORED")) throw new Error(count === null ? "the store hung up" : `the store says ${text}`);
  } finally {
    clearTimeout(giveUp);
  }
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function shop(tally: Tally, work: (round: number) => Promise<void>): Promise<never> {
  for (let round = 0;; round++) {
    await tally.time(() => work(round));
    await pause(PAUSE_MS);
  }
}

const tallies = [new Tally("frontend"), new Tally("store")] as const;
shop(tallies[0], visitPage);
shop(tallies[1], askStore);
while (true) {
  await pause(REPORT_MS);
  const line = JSON.stringify({ intervalMs: REPORT_MS, targets: tallies.map((tally) => tally.take()) });
  Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
}
