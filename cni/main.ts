/** Role cni: has the pods of a cluster's node in the mesh, or, on a node without Kubernetes, network namespaces (CNI-270 to CNI-278). */
import { chain, MeshError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { parseCidr } from "../mesh/enrolment.ts";
import { requireCapabilities } from "../os/capabilities.ts";
import { NAMED_NETNS_FOLDER } from "../os/netns.ts";
import { groupsAtUdpPort } from "../os/netlink/sock_diag.ts";
import { notifyReady } from "../os/service_notify.ts";
import { refusesForeign } from "./bpf/foreign_ztunnel.ts";
import type { CniConfig } from "./config.ts";
import { FolderWatch } from "./bare/folder_watch.ts";
import { NamespaceWatch } from "./bare/namespace_watch.ts";
import { type Cgroup, findCgroupRoot, findCgroupsById, openCgroup, unifiedPathOf } from "./bare/cgroups.ts";
import { WorkloadFolder } from "./bare/workload_folder.ts";
import { DNS_PORT } from "./bare/shared_dns.ts";
import { serveEnrolSocket } from "./enrol_api.ts";
import { Enrolments } from "./enrolments.ts";
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
  checkRanges(config.neverCapture);
  await using cleanup = new AsyncDisposableStack();
  let processIds = (): number[] => [];
  const redirection = cleanup.use(await chooseRedirection(config, { log: log.child("redirection") }));
  const enrolments = cleanup.use(
    new Enrolments({
      file: `${config.stateDir}/enrolled.json`,
      rules: { dnsCapture: config.dnsCapture },
      shared: { never: config.neverCapture, exempt: () => processIds().flatMap(cgroupsOf), resolvers: resolversWithin },
      redirection,
      log: log.child("enrolments"),
    }),
  );
  const pods = await enrolments.restore();
  const zds = ZdsServer.listen({
    path: config.zdsSocket,
    log: log.child("zds"),
    refuses: refusesForeign({ settings: config, redirection }),
  }, pods);
  processIds = () => zds.processIds;
  const folder = new WorkloadFolder(config.enrolDir, {
    enrol: (request, file) => enrolments.enrol(request, zds, { signal, file }),
    unenrol: (target) => enrolments.unenrol(target, zds),
    ofFiles: () => enrolments.ofFiles(),
  }, { log: log.child("enrol-dir") });
  const watch = cleanup.use(new FolderWatch(log));
  const changes = cleanup.use(new NamespaceWatch({ onChange: () => watch.poke(), log }));
  let http: UnixHttpServer;
  try {
    http = await serveEnrolSocket(config.enrolSocket, {
      enrol: async (request, requestSignal) => {
        const status = await enrolments.enrol(request, zds, { signal: AbortSignal.any([requestSignal, signal]) });
        watch.poke(); // What it is enrolled by may lie in a folder that nobody watches yet.
        return status;
      },
      unenrol: (target) => enrolments.unenrol(target, zds),
      status: () => ({
        ztunnel: { connections: zds.connectionCount, synchronized: zds.synchronized },
        pods: enrolments.status(),
        problems: folder.problems(),
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
  notifyReady();
  const kept = cleanup.move();
  return { done: serve(config, { signal, log, enrolments, zds, http, folder, watch, changes, kept }) };
}

interface Serving extends RoleOptions {
  readonly enrolments: Enrolments;
  readonly zds: ZdsServer;
  readonly http: UnixHttpServer;
  readonly folder: WorkloadFolder;
  readonly watch: FolderWatch;
  readonly changes: NamespaceWatch;
  readonly kept: AsyncDisposableStack;
}

async function serve(
  config: CniConfig,
  { signal, log, enrolments, zds, http, folder, watch, changes, kept }: Serving,
): Promise<void> {
  try {
    do { // The first time it finishes what the agent before left undone.
      if (signal.aborted) break;
      watch.watch([NAMED_NETNS_FOLDER, config.enrolDir, ...enrolments.cgroupFolders().map(absolute)]);
      await enrolments.audit(zds);
      await folder.reconcile(signal);
      changes.watch(enrolments.namespaces());
      watch.watch([NAMED_NETNS_FOLDER, config.enrolDir, ...enrolments.cgroupFolders().map(absolute)]);
    } while (await watch.changed(folder.looksOut || enrolments.waits ? LOOK_MS : config.auditIntervalMs, signal));
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
    await kept.disposeAsync();
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

/** How often it is looked for what no folder that is watched shows: containers, and units in slices of their own. */
const LOOK_MS = 1_000;

const absolute = (path: string) => `${findCgroupRoot()}/${path}`;

/** ztunnel's own control group, if it has one to itself. */
function cgroupsOf(pid: number): Cgroup[] {
  try {
    const path = unifiedPathOf(Deno.readTextFileSync(`/proc/${pid}/cgroup`));
    const cgroup = path === undefined || path === "" ? undefined : openCgroup(findCgroupRoot(), path);
    return cgroup === undefined ? [] : [cgroup];
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof MeshError) return []; // It has ended, or there are none.
    throw error;
  }
}

/** Who answers DNS on this host, as far as it is in one of these groups. */
const resolversWithin = (paths: readonly string[]) =>
  findCgroupsById(findCgroupRoot(), paths, groupsAtUdpPort(DNS_PORT));

/** Throws AMB7168 for what is no address or range. */
function checkRanges(ranges: readonly string[]): void {
  const wrong = ranges.find((range) => parseCidr(range) === undefined);
  if (wrong === undefined) return;
  throw new MeshError("AMB7168", `--never-capture names ${JSON.stringify(wrong)}, which is no address or range`, {
    remedy: "Give addresses such as 10.0.0.1 or ranges such as 10.0.0.0/24, with commas between them.",
  });
}
