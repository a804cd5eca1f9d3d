/** Failures in the middle of churn: whatever restarts, in the end every proxy knows what the API server has. */
import { assert, assertEquals } from "@std/assert";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { type ApiServer, startApiServer } from "./api_server.ts";
import { ApiWriter } from "./api_writer.ts";
import { installManifests, Istiod } from "./istiod.ts";
import type { MeshReader } from "./mesh_reader.ts";
import { account, namespace, pod, service } from "./objects.ts";
import type { EtcdVersion } from "./parts.ts";

const SPACE = "shop", PODS = 12, CHANGES_PER_FAILURE = 40;
const CONVERGED_MS = 120_000, PATIENT_MS = 600_000;

/** Pods that come, go and change, one change after the other; an API server that is away is asked again. */
class Churn {
  readonly #api: ApiWriter;
  readonly #random: () => number;
  #stopping = false;
  #running: Promise<void> | undefined;
  changes = 0;

  constructor(api: ApiWriter, random: () => number) {
    this.#api = api;
    this.#random = random;
  }

  start(): void {
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#running;
  }

  /** Resolves after so many more changes. */
  async after(count: number): Promise<void> {
    const target = this.changes + count;
    while (this.changes < target) await new Promise((resolve) => setTimeout(resolve, 20));
  }

  async #run(): Promise<void> {
    while (!this.#stopping) {
      try {
        await this.#change();
        this.changes++;
      } catch (error) {
        if (!isPassing(error)) throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }

  async #change(): Promise<void> {
    const number = Math.floor(this.#random() * PODS), name = `pod-${number}`, path = `/api/v1/namespaces/${SPACE}/pods`;
    const ready = this.#random() < 0.7, octet = 1 + Math.floor(this.#random() * 250);
    await this.#api.call("DELETE", `${path}/${name}`, { gracePeriodSeconds: 0 }).catch(unlessMissing);
    if (this.#random() < 0.3) return;
    const object = pod(SPACE, name, { ip: `10.1.${number}.${octet}`, ready, labels: { app: "shop" } });
    await this.#api.call("POST", path, object);
    const { status } = object as { status: object };
    await this.#api.call("PATCH", `${path}/${name}/status`, { status }, "application/merge-patch+json");
  }
}

/** The API server or its etcd is away, or comes back and has not all of it yet. */
function isPassing(error: unknown): boolean {
  return error instanceof TypeError || error instanceof Error && /: (403|404|409|429|500|503|504) /.test(error.message);
}

function unlessMissing(error: unknown): void {
  if (!(error instanceof Error && error.message.includes(": 404 "))) throw error;
}

function seeded(seed: number): () => number {
  let state = seed;
  return () => (state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff) / 0x7fffffff;
}

/** What a proxy must know of the pods, as the API server has them. */
async function expected(server: ApiServer): Promise<string[]> {
  const { items } = JSON.parse(await server.kubectl(["get", "pods", "-n", SPACE, "-o", "json"])) as {
    items: { metadata: { name: string }; status: { podIP?: string; conditions?: { status: string }[] } }[];
  };
  return items.filter(({ status }) => status.podIP !== undefined).map(({ metadata, status }) =>
    `${metadata.name} ${status.podIP} ${status.conditions?.[0]?.status === "True"}`
  ).sort();
}

function known(reader: MeshReader): string[] {
  const names = reader.names(ADDRESS_TYPE_URL).filter((name) => name.startsWith(`Kubernetes//Pod/${SPACE}/`));
  return names.map((name) => {
    const workload = reader.get(name) as { name: string; addresses: string[]; status: string };
    return `${workload.name} ${workload.addresses[0]} ${workload.status === "HEALTHY"}`;
  }).sort();
}

async function assertConverged(server: ApiServer, reader: MeshReader): Promise<void> {
  const wanted = await expected(server);
  assert(wanted.length > 0);
  const same = () => JSON.stringify(known(reader)) === JSON.stringify(wanted);
  await reader.until(same, "what the API server has", CONVERGED_MS).catch(() => {}); // Said better by the next line.
  assertEquals(known(reader), wanted);
}

for (const etcd of ["3.6", "3.4"] as readonly EtcdVersion[]) {
  Deno.test(`CP-101: API server, etcd ${etcd} and replicas are killed during churn, and every proxy ends with the same mesh`, async () => {
    await using server = await startApiServer({ etcd, definitions: ["istio", "gateway"] });
    await installManifests(server);
    await server.apply(namespace(SPACE), account(SPACE, "default"), service(SPACE, "shop", { app: "shop" }));
    await using first = await Istiod.start(server, "istiod-1");
    await using second = await Istiod.start(server, "istiod-2");
    using onFirst = await first.reader();
    using api = await ApiWriter.open(server);
    const churn = new Churn(api, seeded(7));
    churn.start();
    for (const part of [server.apiServer, server.etcd, server.apiServer]) {
      await churn.after(CHANGES_PER_FAILURE);
      await part.kill();
      await part.start();
    }
    await churn.after(CHANGES_PER_FAILURE);
    await second.process.kill();
    await churn.after(CHANGES_PER_FAILURE);
    await second.process.start();
    using onSecond = await second.reader();
    await churn.after(CHANGES_PER_FAILURE);
    await churn.stop();
    assertEquals(onFirst.ended, undefined, "the stream to the istiod that was left alone stands");
    await assertConverged(server, onFirst);
    await assertConverged(server, onSecond);
    const isSame = () => onFirst.print() === onSecond.print();
    await onSecond.until(isSame, "what the other one has", CONVERGED_MS).catch(() => {}); // Said better by the next line.
    assertEquals(onFirst.print(), onSecond.print());
  });
}

Deno.test("CP-101: a version that etcd has forgotten (410) makes istiod list anew, and what vanished meanwhile is gone", async () => {
  await using server = await startApiServer({ watchCache: false, definitions: ["istio", "gateway"] });
  await installManifests(server);
  await server.apply(namespace(SPACE), account(SPACE, "default"));
  const pods = Array.from({ length: PODS }, (_, at) => pod(SPACE, `pod-${at}`, { ip: `10.1.0.${at + 1}` }));
  await server.apply(...pods);
  await using istiod = await Istiod.start(server);
  // It may be paused for longer than a proxy waits for the answer to a PING: this one waits.
  using reader = await istiod.reader(undefined, { intervalMs: PATIENT_MS, timeoutMs: PATIENT_MS });
  await assertConverged(server, reader);
  istiod.process.pause();
  await server.kubectl(["delete", "pod", "pod-1", "pod-2", "-n", SPACE, "--force", "--grace-period=0"]);
  await server.apply(pod(SPACE, "pod-3", { ip: "10.1.0.4", ready: false }), pod(SPACE, "new", { ip: "10.1.0.99" }));
  await server.compact();
  await server.apiServer.kill(); // What it had sent already is lost on the way.
  await server.apiServer.start();
  istiod.process.resume();
  await assertConverged(server, reader);
  assertEquals(reader.ended, undefined, "to list anew ends no stream");
});
