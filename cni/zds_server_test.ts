import { assertEquals, assertRejects } from "@std/assert";
import { assert } from "../base/assert.ts";
import { chain, MeshError } from "../base/errors.ts";
import { Logger } from "../base/log.ts";
import {
  decodeZdsRequest,
  encodeZdsAcknowledgement,
  encodeZdsHello,
  encodeZdsRequest,
  type ZdsRequest,
} from "../mesh/proto/zds_codec.ts";
import { countDescriptors } from "../os/descriptors_testing.ts";
import { createAnonymousNetns } from "../os/netns.ts";
import { closeDescriptor, SeqpacketSocket } from "../os/seqpacket.ts";
import { type AnnouncedPod, ZdsServer } from "./zds_server.ts";

/** Whether a descriptor is of this file. */
function countsAs(fd: number, path: string): boolean {
  try {
    return Deno.readLinkSync(`/proc/self/fd/${fd}`) === path;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

const privileged = Deno.uid() === 0;
const silent = new Logger("zds", { sink: () => {} });
const workload = { name: "web-0", namespace: "shop", serviceAccount: "web" };
const pod = (uid: string): AnnouncedPod => ({ uid, workload });

/** ztunnel's end, driven by the test. */
class FakeZtunnel implements AsyncDisposable {
  readonly socket: SeqpacketSocket;

  constructor(path: string) {
    this.socket = SeqpacketSocket.connect(path);
  }

  static async greeted(path: string): Promise<FakeZtunnel> {
    const ztunnel = new FakeZtunnel(path);
    assert(await ztunnel.socket.send(encodeZdsHello({ version: 1 })), "hello was sent");
    return ztunnel;
  }

  /** Takes one request, whose descriptor is closed, and answers it. */
  async answer(error = ""): Promise<ZdsRequest & { descriptor: boolean }> {
    const packet = await this.socket.receive(1024, { timeoutMs: 60_000 });
    assert(typeof packet !== "string", `a request comes: ${packet}`);
    closeDescriptor(packet.descriptor);
    assert(await this.socket.send(encodeZdsAcknowledgement({ error })), "the answer was sent");
    return { ...decodeZdsRequest(packet.bytes), descriptor: packet.descriptor !== undefined };
  }

  async isClosed(): Promise<boolean> {
    return await this.socket.receive(1024, { timeoutMs: 60_000 }) === "closed";
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.socket.close();
  }
}

function test(
  name: string,
  pods: readonly string[],
  fn: (server: ZdsServer, path: string) => Promise<void>,
  options = {},
) {
  Deno.test(name, async () => {
    const folder = Deno.makeTempDirSync();
    const path = `${folder}/zds.sock`;
    {
      await using server = ZdsServer.listen(
        {
          path,
          log: silent,
          acceptIntervalMs: 0,
          acknowledgeTimeoutMs: 60_000,
          syncWaitMs: 60_000,
          successorWaitMs: 20,
          ...options,
        },
        pods.map(pod),
      );
      await fn(server, path);
    }
    Deno.removeSync(folder, { recursive: true });
  });
}

async function until(claim: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!condition()) {
    assert(performance.now() < deadline, claim);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

const codeOf = async (promise: Promise<unknown>) => (await assertRejects(() => promise, MeshError)).code;

test(
  "ZdsServer sends the snapshot, then what comes, one acknowledged message at a time (CNI-243)",
  ["a", "b"],
  async (server, path) => {
    await using ztunnel = await FakeZtunnel.greeted(path);
    assertEquals(await ztunnel.answer(), { kind: "keep", uid: "a", descriptor: false });
    const adding = server.addPod(pod("c")); // During the snapshot, so behind it.
    assertEquals(await ztunnel.answer("not this one"), { kind: "keep", uid: "b", descriptor: false });
    assertEquals(await ztunnel.answer(), { kind: "snapshotSent", descriptor: false });
    assertEquals(await ztunnel.answer(), { kind: "add", uid: "c", workload, descriptor: false });
    await adding;
    const deleting = server.deletePod("a");
    assertEquals(await ztunnel.answer(), { kind: "delete", uid: "a", descriptor: false });
    await deleting;
  },
);

Deno.test({
  name: "ZdsServer passes the pod's namespace beside an add, and only there (CNI-242, CNI-244)",
  ignore: !privileged,
  async fn() {
    const folder = Deno.makeTempDirSync();
    using _folder = { [Symbol.dispose]: () => Deno.removeSync(folder, { recursive: true }) };
    const path = `${folder}/zds.sock`;
    using netns = createAnonymousNetns();
    await using server = ZdsServer.listen({ path, log: silent, acceptIntervalMs: 0 }, [{ ...pod("a"), netns }]);
    await using ztunnel = await FakeZtunnel.greeted(path);
    assertEquals(await ztunnel.answer(), { kind: "add", uid: "a", workload, descriptor: true });
    assertEquals(await ztunnel.answer(), { kind: "snapshotSent", descriptor: false });
    await until("in sync", () => server.synchronized);
  },
});

Deno.test({
  name: "ZdsServer gives the next ztunnel the sockets that the last one listened on, and one of another make none",
  ignore: !privileged,
  async fn() {
    const folder = Deno.makeTempDirSync(), path = `${folder}/zds.sock`;
    using _folder = { [Symbol.dispose]: () => Deno.removeSync(folder, { recursive: true }) };
    using netns = createAnonymousNetns();
    await using server = ZdsServer.listen({ path, log: silent, acceptIntervalMs: 0, successorWaitMs: 20 }, [
      { ...pod("a"), netns },
    ]);
    /** A ztunnel's start: what came with the pod beside its namespace, and whether more is kept. */
    const serve = async (features: number, gives: readonly number[]) => {
      await using ztunnel = new FakeZtunnel(path);
      await ztunnel.socket.send(encodeZdsHello({ version: 1, features }));
      const packet = await ztunnel.socket.receiveLoaded(1024, { timeoutMs: 2_000 });
      assert(typeof packet !== "string", "the pod comes");
      const request = decodeZdsRequest(packet.bytes), [, ...kept] = packet.descriptors;
      const names = kept.map((fd) => Deno.readLinkSync(`/proc/self/fd/${fd}`));
      packet.descriptors.forEach(closeDescriptor);
      const answer = encodeZdsAcknowledgement({ error: "", sockets: gives.length > 0 });
      await ztunnel.socket.sendLoaded(answer, gives);
      assertEquals(await ztunnel.answer(), { kind: "snapshotSent", descriptor: false });
      await until("in sync", () => server.synchronized);
      return { asked: request.kind === "add" && request.keepsSockets === true, names };
    };
    using file = Deno.openSync(`${folder}/socket`, { create: true, write: true });
    const fds = [...Deno.readDirSync("/proc/self/fd")].map(({ name }) => Number(name));
    const fd = fds.find((it) => countsAs(it, `${folder}/socket`))!;
    assert(file.statSync().isFile, "it stands for a socket");
    assertEquals(await serve(3, [fd]), { asked: true, names: [] });
    assertEquals(await serve(3, []), { asked: true, names: [`${folder}/socket`] }, "and none said: as it was");
    assertEquals(await serve(3, []), { asked: true, names: [`${folder}/socket`] });
    assertEquals(await serve(1, []), { asked: false, names: [] });
    assertEquals(await serve(3, [fd]), { asked: true, names: [] }, "let go for the one of another make");
    assertEquals(countDescriptors(`${folder}/socket`), 2);
    await server.deletePod("a");
    assertEquals(countDescriptors(`${folder}/socket`), 1, "the test's own");
  },
});

test(
  "ZdsServer gives no pods to a ztunnel that it cannot serve, and says why (CNI-202)",
  ["a"],
  async (server, path) => {
    await using ztunnel = await FakeZtunnel.greeted(path);
    assertEquals(await ztunnel.answer(), { kind: "keep", uid: "a", descriptor: false });
    assertEquals(await ztunnel.answer(), { kind: "snapshotSent", descriptor: false });
    await until("in sync", () => server.synchronized);
    const error = await assertRejects(() => server.addPod(pod("b")), MeshError);
    assertEquals(chain(error), "ztunnel refused pod web-0: it is of another make");
  },
  { refuses: (features: number) => features === 0 ? "it is of another make" : undefined },
);

test(
  "ZdsServer sends what Istio's protocol lacks only to a ztunnel that said it knows it (CNI-256)",
  [],
  async (server, path) => {
    const shared = { outboundPort: 15100, plaintextPort: 15300, inboundPorts: [80], address: "", dnsPort: 0 };
    const plain = encodeZdsRequest({ kind: "add", uid: "a", workload });
    await using foreign = await FakeZtunnel.greeted(path);
    await foreign.answer();
    const adding = server.addPod(pod("a"));
    const packet = await foreign.socket.receive(1024, { timeoutMs: 2_000 });
    assert(typeof packet !== "string", "the pod comes");
    assertEquals(packet.bytes.toHex(), plain.toHex(), "not one byte more");
    await foreign.socket.send(encodeZdsAcknowledgement({ error: "" }));
    await adding;
    const error = await assertRejects(() => server.addPod({ ...pod("b"), shared }), MeshError);
    assertEquals(chain(error).includes("serves no workloads in the host's network namespace"), true);
    await using ours = new FakeZtunnel(path);
    await ours.socket.send(encodeZdsHello({ version: 1, features: 1 }));
    for (let at = 0; at < 3; at++) assert((await ours.answer()).kind !== "add", "what it may have from before");
    await until("in sync", () => server.synchronized);
    const telling = server.addPod({ ...pod("b"), shared }), told = await ours.answer();
    await telling;
    assertEquals(told.kind === "add" && told.shared, shared);
    const asking = { ...pod("c"), shared: { ...shared, dnsPort: 15500 } };
    const deaf = await assertRejects(() => server.addPod(asking), MeshError);
    assertEquals(chain(deaf).includes("serves no DNS to units"), true, "rather than queries that nobody answers");
  },
);

test(
  "ZdsServer reports a refusal to whoever added the pod, and the next request goes through (CNI-252)",
  [],
  async (server, path) => {
    await using ztunnel = await FakeZtunnel.greeted(path);
    await ztunnel.answer();
    const adding = server.addPod(pod("a"));
    await ztunnel.answer("failure to start proxy: address in use");
    const error = await assertRejects(() => adding, MeshError);
    assertEquals(error.code, "AMB7211");
    assertEquals(chain(error), "ztunnel refused pod web-0: failure to start proxy: address in use");
    const again = server.addPod(pod("a"));
    await ztunnel.answer();
    await again;
  },
);

test(
  "ZdsServer sends adds to the newest, deletes to all, and falls back when the newest goes (CNI-248)",
  [],
  async (server, path) => {
    await using older = await FakeZtunnel.greeted(path);
    await older.answer();
    await until("the older is in sync", () => server.synchronized);
    const newer = await FakeZtunnel.greeted(path);
    await until("both are connected", () => server.connectionCount === 2);
    await newer.answer();
    const first = server.addPod(pod("a"));
    assertEquals((await newer.answer()).kind, "add");
    await first;
    const deleting = server.deletePod("a");
    assertEquals([(await newer.answer("one")).kind, (await older.answer("two")).kind], ["delete", "delete"]);
    assertEquals(chain(await assertRejects(() => deleting)), "ztunnel did not delete pod a: two; one");
    const second = server.addPod(pod("b"));
    assert(typeof await newer.socket.receive(1024) !== "string", "the newer gets it, and goes without an answer");
    await newer.socket.close();
    assertEquals((await older.answer()).kind, "add");
    await second;
  },
);

test("ZdsServer without ztunnel: add fails after its wait, delete is done (CNI-248, CNI-257)", [], async (server) => {
  assertEquals(await codeOf(server.addPod(pod("a"))), "AMB7210");
  await server.deletePod("a");
}, { syncWaitMs: 20 });

test(
  "ZdsServer lets a pod that leaves wait for the ztunnel behind one that has just gone, so that it ends what it took over",
  ["a", "b"],
  async (server, path) => {
    let left = false;
    const first = server.deletePod("a").then(() => left = true); // None yet: one may have outlived the agent before this.
    const crashing = await FakeZtunnel.greeted(path);
    assertEquals(await crashing.answer(), { kind: "keep", uid: "b", descriptor: false });
    await crashing.answer();
    assert(typeof await crashing.socket.receive(1024) !== "string", "the delete comes, and is not answered");
    await crashing.socket.close();
    await until("it has gone", () => server.connectionCount === 0);
    const second = server.deletePod("b"); // Nobody is connected, but somebody was.
    const successor = await FakeZtunnel.greeted(path);
    assertEquals([(await successor.answer()).kind, left], ["snapshotSent", false]);
    assertEquals([await successor.answer(), await successor.answer()], [
      { kind: "delete", uid: "a", descriptor: false },
      { kind: "delete", uid: "b", descriptor: false },
    ]);
    await Promise.all([first, second]);
    await successor.socket.close();
  },
  { successorWaitMs: 60_000, acknowledgeTimeoutMs: 5_000 },
);

test("ZdsServer waits no longer for a successor than that", [], async (server, path) => {
  const crashing = await FakeZtunnel.greeted(path);
  await crashing.answer();
  const startedMs = performance.now(), deleting = server.deletePod("a");
  assert(typeof await crashing.socket.receive(1024) !== "string", "the delete comes");
  await crashing.socket.close();
  await deleting;
  const waitedMs = performance.now() - startedMs;
  assert(waitedMs > 290, `${waitedMs} ms`);
}, { successorWaitMs: 300 });

test("ZdsServer waits for no successor once it closes", [], async (server, path) => {
  await using another = await FakeZtunnel.greeted(path);
  await another.answer();
  await another.socket.close();
  await until("it has gone", () => server.connectionCount === 0);
  let waited = false;
  const waiting = server.deletePod("b").then(() => waited = true);
  await Promise.resolve();
  assertEquals(waited, false);
  await server.close();
  await waiting; // Long before its time.
}, { successorWaitMs: 600_000 });

test(
  "ZdsServer ends a connection whose answer is late (CNI-246, CNI-247)",
  [],
  async (server, path) => {
    const late = await FakeZtunnel.greeted(path);
    await late.answer();
    const adding = server.addPod(pod("a"));
    assertEquals(
      chain(await assertRejects(() => adding)),
      "ztunnel refused pod web-0: no acknowledgement within 1000 ms",
    );
    assert(typeof await late.socket.receive(1024) !== "string", "the request had come");
    assertEquals(await late.isClosed(), true);
    await late.socket.close();
    await server.deletePod("a");
  },
  { acknowledgeTimeoutMs: 1_000 },
);

test(
  "ZdsServer ends a connection whose answer is unexpected, malformed or of another version (CNI-246, CNI-247)",
  [],
  async (server, path) => {
    const broken: [string, boolean, Uint8Array][] = [
      ["an acknowledgement of nothing", true, encodeZdsAcknowledgement({ error: "" })],
      ["malformed", true, Uint8Array.of(0x0a, 5)],
      ["too long", true, new Uint8Array(1025)],
      ["another version", false, encodeZdsHello({ version: 2 })],
      ["no hello", false, Uint8Array.of(0xff)],
    ];
    for (const [name, greeted, bytes] of broken) {
      await using ztunnel = greeted ? await FakeZtunnel.greeted(path) : new FakeZtunnel(path);
      if (greeted) await ztunnel.answer();
      assert(await ztunnel.socket.send(bytes), "sent");
      assertEquals(await ztunnel.isClosed(), true, name);
    }
    await until("none is left", () => server.connectionCount === 0);
  },
);

test("ZdsServer releases everyone who waits when it closes or they cancel (CNI-249)", [], async (server, path) => {
  await using ztunnel = await FakeZtunnel.greeted(path);
  await ztunnel.answer();
  await until("in sync", () => server.synchronized);
  const stop = new AbortController();
  const waiting = [server.addPod(pod("a")), server.addPod(pod("b")), server.deletePod("c")];
  const cancelled = server.addPod(pod("d"), { signal: stop.signal });
  await Promise.resolve();
  stop.abort();
  assertEquals(await codeOf(cancelled), "AMB7211");
  const outcomes = Promise.allSettled(waiting);
  await server.close();
  assertEquals((await outcomes).map(({ status }) => status), ["rejected", "rejected", "fulfilled"]);
}, { acknowledgeTimeoutMs: 5000, syncWaitMs: 5000 });

test(
  "ZdsServer takes connections one after the other, with a pause between them (CNI-245, CNI-254)",
  [],
  async (server, path) => {
    const startedMs = performance.now(), ztunnels = [];
    for (let at = 0; at < 4; at++) ztunnels.push(await FakeZtunnel.greeted(path));
    await until("all are connected", () => server.connectionCount === 4);
    assert(performance.now() - startedMs >= 90, "three pauses");
    for (const ztunnel of ztunnels) await ztunnel.socket.close();
    await until("none is", () => server.connectionCount === 0);
  },
  { acceptIntervalMs: 30 },
);
