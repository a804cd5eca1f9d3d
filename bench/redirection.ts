/** How long a pod's rules take on each redirection backend: `deno run -A bench/redirection.ts`, as root. */
import { createAnonymousNetns, type Netns } from "../os/netns.ts";
import { RouteSocket } from "../os/netlink/rtnetlink.ts";
import type { Redirection } from "../cni/redirection/redirection.ts";
import { NETFILTER_BACKENDS, openBackend } from "../tests/e2e/backends.ts";

const PODS = 100;

function percentile(sorted: readonly number[], part: number): string {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))]!.toFixed(1);
}

/** Milliseconds of each pod, one after the other. */
async function timed(pods: readonly Netns[], work: (netns: Netns) => unknown): Promise<string> {
  const times: number[] = [];
  for (const netns of pods) {
    const before = performance.now();
    await work(netns);
    times.push(performance.now() - before);
  }
  times.sort((one, other) => one - other);
  return `${percentile(times, 0.5)} / ${percentile(times, 0.99)}`;
}

async function row(backend: Redirection): Promise<string[]> {
  using cleanup = new DisposableStack();
  const pods = Array.from({ length: PODS }, () => cleanup.use(createAnonymousNetns()));
  for (const netns of pods) {
    using routes = RouteSocket.open(netns);
    routes.setUp("lo"); // As a pod's is when its network has been made.
  }
  const plain = {}, dns = { dnsCapture: true };
  using warm = createAnonymousNetns();
  await backend.apply(warm, plain); // The thread that runs programs has started.
  return [
    await timed(pods, (it) => backend.apply(it, plain)),
    await timed(pods, (it) => backend.apply(it, plain)),
    await timed(pods, (it) => backend.check(it, plain)),
    await timed(pods, (it) => backend.apply(it, dns)),
    await timed(pods, (it) => backend.remove(it)),
  ];
}

const lines = ["| backend | clean | again, equal | check | other rules | remove |", "|---|---|---|---|---|---|"];
for (const name of NETFILTER_BACKENDS) {
  using backend = await openBackend(name);
  lines.push(`| ${name} | ${(await row(backend)).join(" | ")} |`);
}
Deno.stdout.writeSync(new TextEncoder().encode(`${lines.join("\n")}\n`));
