/** Role cni: has the pods of a cluster's node in the mesh, or, on a node without Kubernetes, network namespaces (CNI-270 to CNI-278). */
import { chain } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { requireCapabilities } from "../os/capabilities.ts";
import type { CniConfig } from "./config.ts";
import { serveEnrolSocket } from "./enrol_api.ts";
import { Enrolments } from "./enrolments.ts";
import { NamedNetnsWatch } from "./named_netns_watch.ts";
import { chooseRedirection } from "./redirection/choose.ts";
import type { UnixHttpServer } from "./unix_http.ts";
import { ZdsServer } from "./zds_server.ts";

export interface RoleOptions {
  /** Aborting it stops the role; capture stays in place unless the config says `release`. */
  readonly signal: AbortSignal;
  readonly log: Logger;
}

/** A node agent that is up and serves. */
export interface RunningCni {
  /** Resolves when everything is closed after the signal. */
  readonly done: Promise<void>;
}

/** Runs until the signal. Throws MeshError if it cannot start. */
export async function runCni(config: CniConfig, options: RoleOptions): Promise<void> {
  if (config.nodeMode) return await (await startCni(config, options)).done;
  const { runKubernetesMode } = await import("./kubernetes/main.ts");
  await runKubernetesMode(config, options);
}

/** Starts the node mode and returns once both sockets serve. Throws MeshError if it cannot. */
export async function startCni(config: CniConfig, { signal, log }: RoleOptions): Promise<RunningCni> {
  requireCapabilities(["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
  Deno.mkdirSync(config.stateDir, { recursive: true, mode: 0o700 });
  using cleanup = new DisposableStack();
  const enrolments = cleanup.use(
    new Enrolments({
      file: `${config.stateDir}/enrolled.json`,
      rules: { dnsCapture: config.dnsCapture },
      redirection: cleanup.use(await chooseRedirection(config, { log: log.child("redirection") })),
      log: log.child("enrolments"),
    }),
  );
  const pods = await enrolments.restore();
  const zds = ZdsServer.listen({ path: config.zdsSocket, log: log.child("zds") }, pods);
  let http: UnixHttpServer;
  try {
    http = await serveEnrolSocket(config.enrolSocket, {
      enrol: (request, requestSignal) => enrolments.enrol(request, zds, AbortSignal.any([requestSignal, signal])),
      unenrol: (target) => enrolments.unenrol(target, zds),
      status: () => ({
        ztunnel: { connections: zds.connectionCount, synchronized: zds.synchronized },
        pods: enrolments.status(),
      }),
    }, log.child("enrol"));
  } catch (error) {
    await zds.close();
    throw error;
  }
  log.info("node agent serves", {
    enrolSocket: config.enrolSocket,
    zdsSocket: config.zdsSocket,
    restored: pods.length,
  });
  const names = cleanup.use(new NamedNetnsWatch(log));
  const kept = cleanup.move();
  return { done: serve(config, { signal, log, enrolments, zds, http, names, kept }) };
}

interface Serving extends RoleOptions {
  readonly enrolments: Enrolments;
  readonly zds: ZdsServer;
  readonly http: UnixHttpServer;
  readonly names: NamedNetnsWatch;
  readonly kept: DisposableStack;
}

async function serve(config: CniConfig, { signal, log, enrolments, zds, http, names, kept }: Serving): Promise<void> {
  try {
    if (!signal.aborted) await enrolments.audit(zds); // Finishes what the agent before left undone.
    while (await auditDue(config.auditIntervalMs, names, signal)) await enrolments.audit(zds);
    await http.shutdown();
    if (config.release) {
      await enrolments.releaseAll(zds);
      log.info("all pods released");
    } else log.info("stopping; pods stay captured", { pods: enrolments.status().length });
  } catch (error) {
    log.error("stopping failed", { error: chain(error) });
    throw error;
  } finally {
    await zds.close();
    kept.dispose();
    removeSocket(config.enrolSocket);
  }
}

function removeSocket(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Waits for the interval or a removed name. @returns False, at once, when the signal aborts. */
function auditDue(ms: number, names: NamedNetnsWatch, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve(!signal.aborted);
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
    names.onRemoved(end);
    if (signal.aborted) end();
  });
}
