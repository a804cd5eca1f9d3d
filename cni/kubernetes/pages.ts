/** The node agent's pages: whether it is ready and alive, what it counts, and how each pod fares (CNI-052, CNI-290, CNI-293). */
import type { ListenAddress } from "../../base/config.ts";
import { MeshError } from "../../base/errors.ts";

/** A page's answer; whoever may not come here does not reach the address. */
export type Page = () => Response | Promise<Response>;

/** @returns The server, which ends with the signal. Throws AMB7123. */
export function servePages(
  { host: hostname, port }: ListenAddress,
  pages: Readonly<Record<string, Page>>,
  { signal, flag }: { readonly signal: AbortSignal; readonly flag: string },
): Deno.HttpServer {
  try {
    return Deno.serve({ hostname, port, signal, onListen: () => {} }, (request) => {
      const { pathname } = new URL(request.url);
      if (!Object.hasOwn(pages, pathname)) return text(404, `not found; there are ${Object.keys(pages).join(", ")}\n`);
      if (request.method !== "GET" && request.method !== "HEAD") return text(405, "only GET\n");
      return pages[pathname]!();
    });
  } catch (cause) {
    throw new MeshError("AMB7123", `cannot serve pages on ${hostname}:${port}`, {
      remedy: `choose another ${flag}, or stop what listens there`,
      cause,
    });
  }
}

/** `/readyz` and `/healthz`: ready when nothing is missing, alive as long as it answers. */
export function healthPages(missing: () => readonly string[]): Readonly<Record<string, Page>> {
  return {
    "/healthz": () => text(200, "ok\n"),
    "/readyz": () => {
      const lacks = missing();
      return text(lacks.length === 0 ? 200 : 503, `${lacks.join("; ") || "ok"}\n`);
    },
  };
}

/** In Prometheus' text format. */
export function metricsPage(render: () => string): Page {
  return () => new Response(render(), { headers: { "content-type": "text/plain; version=0.0.4" } });
}

export function jsonPage(read: () => Promise<unknown>): Page {
  return async () =>
    new Response(`${JSON.stringify(await read(), undefined, 2)}\n`, {
      headers: { "content-type": "application/json" },
    });
}

function text(status: number, body: string): Response {
  return new Response(body, { status });
}
