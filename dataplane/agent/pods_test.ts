/** Pods while, and after, their connections go to a successor. */
import { assertEquals, assertRejects } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { KEEPALIVE_DEFAULT } from "../../os/keepalive.ts";
import { createTables, openTables } from "../tables/handles.ts";
import type { Identities } from "./identities.ts";
import { OWN_NETNS, Pods, type PodsOptions } from "./pods.ts";
import { MeshState } from "./state.ts";
import type { WorkerPool } from "./worker_pool.ts";

const SIZES = { pods: 4, identities: 2, flowsPerWorker: 4, connectionsPerWorker: 4, snapshotBytes: 4096 };
const POD = { uid: "uid", netnsFd: OWN_NETNS, info: { name: "pod", namespace: "test", serviceAccount: "test" } };

/** Pods without a listener, of workers that do at once what they are told. */
function pods(redirected: PodsOptions["redirected"] = () => undefined, lines: string[] = []): Pods {
  return new Pods({
    tables: openTables(createTables({ ...SIZES, workers: 1 })),
    workers: { count: 1, tellAll() {}, tellAllAndWait: () => Promise.resolve() } as unknown as WorkerPool,
    identities: {} as Identities, // Nobody's: the workload is not known.
    state: new MeshState("node"),
    packetMark: 0,
    ipv6: false,
    reusePort: false,
    keepalive: false,
    keepaliveTimes: KEEPALIVE_DEFAULT,
    congestionControl: "",
    proxy: false,
    socks: false,
    originalSource: undefined,
    dns: undefined,
    redirected,
    log: new Logger("test", { sink: (line) => lines.push(line) }),
    onAdded() {},
    onChange() {},
  });
}

// Who said so would have the node agent take the rules away, and the wire see what the successor still carries.
Deno.test("that a pod's connections have ended is said by nobody who has handed them over", async () => {
  const own = pods();
  await own.addPod(POD);
  const release = await own.hold(), leaving = own.deletePod(POD.uid);
  release(true);
  assertEquals((await assertRejects(() => leaving, MeshError) as MeshError).code, "AMB2424");
});

Deno.test("a pod that leaves during a takeover which is called off leaves then", async () => {
  const own = pods();
  await own.addPod(POD);
  const release = await own.hold(), leaving = own.deletePod(POD.uid);
  assertEquals(own.list().size, 1, "it waits");
  release(false);
  await leaving;
  assertEquals(own.list().size, 0);
});

Deno.test("pods are served where pins of eBPF cannot be looked at, and it is said once (CNI-202)", async () => {
  const lines: string[] = [];
  const own = pods(() => {
    throw new MeshError("AMB7150", "could not open the pinned BPF object x: EACCES", { remedy: "none" });
  }, lines);
  for (const uid of ["one", "other"]) await own.addPod({ ...POD, uid });
  assertEquals([...own.list().keys()], ["one", "other"]);
  assertEquals(lines.filter((line) => line.includes("pins of BPF")).length, 1);
});
