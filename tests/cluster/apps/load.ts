/**
 * Load in a pod: for each protocol one lane that keeps its connection and one that opens a new one for each request.
 * Every answer is compared with what was asked. `GET 127.0.0.1:9000/` says what became of them; `/?clear` forgets it then,
 * and `/?anew` has connections that are kept closed, and others kept in their place.
 */
import { LANES } from "./lanes.ts";

const PAUSE_MS = Number(Deno.env.get("PAUSE_MS") ?? 50);
const FAILURES_MAX = 5_000;

interface Failure {
  readonly atMs: number;
  /** From the question, or the connection that it needed. */
  readonly tookMs: number;
  readonly error: string;
  /** Whether the connection had served before it failed. */
  readonly open: boolean;
}

/** Which connections are kept: those of before are closed. */
let edition = 0;
const lanes = LANES.map(({ name, connect }) => ({ name, connect, asked: 0, wrong: 0, failures: [] as Failure[] }));

async function drive(lane: typeof lanes[number], kept: boolean): Promise<never> {
  let asker: Awaited<ReturnType<typeof lane.connect>> | undefined, served = false, own = edition;
  for (let number = 0;; number++) {
    const question = `ambit-plain-${number}`, askedMs = Date.now();
    if (own !== edition) {
      asker?.close();
      asker = undefined;
      served = false;
      own = edition;
    }
    try {
      asker ??= await lane.connect();
      const answer = await asker.ask(question);
      lane.asked++;
      served = true;
      if (answer !== question) lane.wrong++;
    } catch (error) {
      lane.asked++;
      if (lane.failures.length < FAILURES_MAX) {
        const atMs = Date.now();
        lane.failures.push({ atMs, tookMs: atMs - askedMs, error: String(error), open: served });
      }
      asker?.close();
      asker = undefined;
      served = false;
    }
    if (!kept) {
      asker?.close();
      asker = undefined;
      served = false;
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

for (const lane of lanes) drive(lane, lane.name.startsWith("kept"));

Deno.addSignalListener("SIGTERM", () => Deno.exit(0));
Deno.serve({ hostname: "127.0.0.1", port: 9000, onListen: () => undefined }, (request) => {
  const answer = Response.json(lanes.map(({ connect: _, ...rest }) => rest));
  if (request.url.endsWith("?clear")) {
    for (const lane of lanes) Object.assign(lane, { asked: 0, wrong: 0, failures: [] });
  }
  if (request.url.endsWith("?anew")) edition++;
  return answer;
});
