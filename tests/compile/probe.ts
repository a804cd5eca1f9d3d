/** Compiled for a test: two workers of the data path inside a compiled program, with FFI, OpenSSL and shared memory. Says what it found. */
import { LogFilter, Logger } from "../../base/log.ts";
import { WorkerPool } from "../../dataplane/agent/worker_pool.ts";
import { createTables, openTables } from "../../dataplane/tables/handles.ts";
import { WORKER } from "../../dataplane/tables/layout.ts";
import { SnapshotWriter } from "../../dataplane/tables/publish.ts";
import { OPENSSL } from "../../os/openssl_library.ts";
import { opensslVersion } from "../../os/openssl.ts";
import { createEventFd } from "../../os/sockets.ts";

const WORKERS = 2;

const print = (line: string) => void Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));

/** Threads of this process that have the library mapped see one and the same file. */
function mappedLibraries(): Set<string> {
  const lines = Deno.readTextFileSync("/proc/self/maps").split("\n").filter((line) => line.includes("libossl.so"));
  return new Set(lines.map((line) => line.trim().split(/\s+/)[4]!));
}

const handles = createTables({ workers: WORKERS }), tables = openTables(handles);
const log = new Logger("probe", { filter: new LogFilter("info"), sink: print });
const pool = new WorkerPool(handles, tables, log);
const snapshots = new SnapshotWriter(tables, (worker) => pool.wake(worker), 1);
pool.start(handles, snapshots, {
  network: "",
  packetMark: 0,
  keepalive: false,
  congestionControl: "",
  streamsPerSessionMax: 100,
  responseBaggage: true,
  ownPorts: [],
  reservedPorts: [],
  localhostAppTunnel: false,
  onDemand: false,
}, { memoryBytes: 64 << 20, agentFd: createEventFd(), tls: { tls12: false, fips: false } as never });
const failed = pool.failure.promise.then(() => "", (error) => `${error}`);
const deadline = performance.now() + 10_000;
const turns = () => Array.from({ length: WORKERS }, (_, worker) => tables.workers.getF64(worker, WORKER.turns));
while (!turns().every((count) => count > 0) && performance.now() < deadline) {
  for (let worker = 0; worker < WORKERS; worker++) pool.wake(worker);
  const wrong = await Promise.race([failed, new Promise<string>((resolve) => setTimeout(() => resolve(""), 10))]);
  if (wrong !== "") {
    print(`failed: ${wrong}`);
    Deno.exit(1);
  }
}
const turned = turns().filter((count) => count > 0).length, libraries = mappedLibraries().size;
print(
  JSON.stringify({
    turned,
    libraries,
    openssl: opensslVersion(),
    libssl: OPENSSL.libssl,
    standalone: Deno.build.standalone,
  }),
);
await pool.stop();
Deno.exit(0);
