/** The admin pages of profiles: limits of what may be asked for, and texts of what is wrong (ZT-218). */
import type { Profiler } from "./profiler.ts";

const SECONDS_DEFAULT = 10, SECONDS_MAX = 300, FREQUENCY_DEFAULT = 100, FREQUENCY_MAX = 1_000;
const INACTIVE = "heap profiling not active; activate with /debug/pprof/heap/profiling?activate=true";

/** Answers a path below /debug/pprof/. */
export async function profilePage(profiler: Profiler, url: URL, signal: AbortSignal): Promise<Response> {
  switch (url.pathname) {
    case "/debug/pprof/profile": {
      const seconds = numberOf(url, "seconds", SECONDS_DEFAULT, SECONDS_MAX);
      if (seconds === undefined) return text(400, `invalid seconds value; expected 1-${SECONDS_MAX}\n`);
      const frequency = numberOf(url, "frequency", FREQUENCY_DEFAULT, FREQUENCY_MAX);
      if (frequency === undefined) return text(400, `invalid frequency value; expected 1-${FREQUENCY_MAX}\n`);
      return bytes(await profiler.cpu({ seconds, frequency, signal })) ??
        text(500, "a profile is being taken already\n");
    }
    case "/debug/pprof/heap":
      return bytes(await profiler.heap()) ?? text(500, INACTIVE);
    case "/debug/pprof/heap/profiling": {
      const wanted = url.searchParams.get("activate");
      if (wanted !== null && wanted !== "true" && wanted !== "false") {
        return text(400, `invalid activate value ${JSON.stringify(wanted)}; expected true or false\n`);
      }
      if (wanted !== null) await profiler.activateHeap(wanted === "true");
      return text(200, `heap profiling active: ${profiler.heapActive}\n`);
    }
    default:
      return text(404, "Not Found\n");
  }
}

/** @returns undefined if it is no number in 1 to `max`. */
function numberOf(url: URL, name: string, fallback: number, max: number): number | undefined {
  const given = url.searchParams.get(name);
  if (given === null) return fallback;
  const number = /^\d{1,4}$/.test(given) ? Number(given) : 0;
  return number >= 1 && number <= max ? number : undefined;
}

function bytes(profile: Uint8Array | undefined): Response | undefined {
  if (profile === undefined) return undefined;
  return new Response(new Uint8Array(profile), { headers: { "content-type": "application/octet-stream" } });
}

function text(status: number, body: string): Response {
  return new Response(body, { status });
}
