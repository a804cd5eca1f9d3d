/** Who owns the connections when either side of a takeover falls silent, at every step; workers are played. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { MeshError } from "../../../base/errors.ts";
import { Logger } from "../../../base/log.ts";
import { createMemoryFile } from "../../../os/memory_file.ts";
import { countDescriptors } from "../../../os/descriptors_testing.ts";
import { ownNetns } from "../../../os/netns.ts";
import { SeqpacketListener, SeqpacketSocket } from "../../../os/seqpacket.ts";
import { closeFd, createToken, takeToken } from "../../../os/sockets.ts";
import { createTables, openTables, type Tables } from "../../tables/handles.ts";
import { TAKEOVER, TakeoverPhase } from "../../tables/layout.ts";
import { ADOPTION_CODEC, TAKEOVER_VERSION, WORKER_STATE_CODEC } from "../../tables/takeover_format.ts";
import { readMemoryFile } from "../../../os/memory_file.ts";
import { Predecessor } from "./client.ts";
import { decodeMessage, encodeMessage, type Message, PACKET_BYTES_MAX } from "./messages.ts";
import { TakeoverServer } from "./server.ts";
import { WorkerPhases } from "./worker_phases.ts";

const SILENT = new Logger("test", { sink: () => {} });
const SIZES = { pods: 4, identities: 2, flowsPerWorker: 4, connectionsPerWorker: 4, snapshotBytes: 4096 };
/** Names every descriptor that is handed over, so that none can be left unseen. */
const MARK = `takeover-test-${crypto.randomUUID()}`;
const HANDLES = 600; // More than three packets hold.
const HELLO: Message = { kind: "hello", version: TAKEOVER_VERSION, hash: WORKER_STATE_CODEC.hash, program: "test" };

/** Workers that do at once what they are asked for. */
class Workers {
  readonly tables: Tables;
  readonly phases: WorkerPhases;
  /** What each worker was asked for, in order. */
  readonly asked: number[] = [];
  /** Fails in this phase. */
  failsAt = -1;
  readonly handles: number[];
  /** What was adopted: descriptors. */
  readonly adopted: number[] = [];

  constructor(count: number, handles = 0) {
    this.tables = openTables(createTables({ ...SIZES, workers: count }));
    this.handles = Array.from({ length: handles }, () => createMemoryFile(MARK, new Uint8Array(0)));
    this.phases = new WorkerPhases(this.tables, { count, wake: (worker) => this.#step(worker) });
  }

  /** How the workers ended up. */
  get phase(): number {
    return this.tables.takeover.load(0, TAKEOVER.reached);
  }

  #step(worker: number): void {
    const { takeover } = this.tables, asked = takeover.load(worker, TAKEOVER.asked);
    this.asked.push(asked);
    if (asked === TakeoverPhase.FROZEN) {
      takeover.set(worker, TAKEOVER.stateFd, createMemoryFile(MARK, Uint8Array.of(1, 2, 3)));
      takeover.set(
        worker,
        TAKEOVER.handlesFd,
        createMemoryFile(MARK, new Uint8Array(Int32Array.from(this.handles).buffer)),
      );
      takeover.set(worker, TAKEOVER.connections, this.handles.length);
      takeover.setF64(worker, TAKEOVER.frozenAtMs, performance.timeOrigin + performance.now());
    } else if (asked === TakeoverPhase.RUN || asked === TakeoverPhase.RELEASED) {
      if (takeover.load(worker, TAKEOVER.reached) === TakeoverPhase.FROZEN) {
        for (const field of [TAKEOVER.stateFd, TAKEOVER.handlesFd]) closeFd(takeover.getI32(worker, field));
      }
    } else if (asked === TakeoverPhase.ADOPTED) {
      const fd = takeover.getI32(worker, TAKEOVER.adoptionFd), adoption = ADOPTION_CODEC.decode(readMemoryFile(fd)!)!;
      closeFd(fd);
      for (const state of adoption.states) {
        assertEquals(readMemoryFile(state.fd), Uint8Array.of(1, 2, 3));
        closeFd(state.fd);
        this.adopted.push(...state.handles);
      }
    }
    takeover.store(worker, TAKEOVER.reached, asked === this.failsAt ? TakeoverPhase.FAILED : asked);
  }

  [Symbol.dispose](): void {
    for (const fd of [...this.handles, ...this.adopted]) closeFd(fd);
  }
}

interface Scene {
  readonly path: string;
  readonly workers: Workers;
  readonly server: TakeoverServer;
  /** Pods that the predecessor has. */
  readonly pods: Map<string, { row: number; pod: { uid: string; netnsFd: number; info: PodInfo } }>;
  /** Holds that have not ended. */
  holds(): number;
  /** What holds ended with: whether the pods are a successor's. */
  readonly released: readonly boolean[];
}
type PodInfo = { name: string; namespace: string; serviceAccount: string };

/** A predecessor of two workers and a pod; afterwards no descriptor may be left. */
function withPredecessor(name: string, body: (scene: Scene) => Promise<void>): void {
  Deno.test(name, async () => {
    const folder = await Deno.makeTempDir(), path = `${folder}/takeover.sock`;
    {
      using netns = ownNetns();
      using workers = new Workers(2, HANDLES);
      let holds = 0;
      const released: boolean[] = [];
      const info = { name: "pod", namespace: "test", serviceAccount: "test" };
      const pods: Scene["pods"] = new Map([["uid", { row: 3, pod: { uid: "uid", netnsFd: netns.fd, info } }]]);
      const server = TakeoverServer.listen({
        path,
        program: "test",
        tables: workers.tables,
        phases: workers.phases,
        pods: {
          list: () => pods,
          dnsSocketsOf: () => [],
          hold: () => {
            holds++;
            return Promise.resolve((handedOver) => {
              holds--;
              released.push(handedOver);
            });
          },
        },
        log: SILENT,
      });
      if (server === undefined) throw new Error("somebody else listens");
      await body({ path, workers, server, pods, holds: () => holds, released });
      assertEquals(holds, 0, "pods are free again");
      await server[Symbol.asyncDispose]();
    }
    await Deno.remove(folder, { recursive: true });
    await until("no descriptor is left", () => countDescriptors(`/memfd:${MARK} (deleted)`) === 0);
  });
}

async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!condition()) {
    assert(performance.now() < deadline, `it came in time that ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** Takes over as a ztunnel does. */
async function takeOver(path: string, own: Workers): Promise<{ connections: number; descriptors: number }> {
  const predecessor = await Predecessor.connect(path, "test");
  assert(predecessor !== undefined, "somebody is there");
  await using _closed = predecessor;
  return await predecessor!.takeOver(own.phases, own.tables, (pods) => {
    for (const { netns } of pods) netns[Symbol.dispose]();
    return Promise.resolve(new Map(pods.map(({ row }) => [row, 0])));
  }, SILENT);
}

/** A successor that takes `packets` packets after its wish for the connections, and then is no more. */
async function diesAfter(path: string, packets: number): Promise<void> {
  const socket = SeqpacketSocket.connect(path);
  const next = async () => {
    const packet = await socket.receiveLoaded(PACKET_BYTES_MAX, { timeoutMs: 60_000 });
    if (typeof packet === "string") throw new Error(`the predecessor fell silent: ${packet}`);
    for (const fd of packet.descriptors) closeFd(fd);
    return decodeMessage(packet.bytes)!;
  };
  await socket.sendLoaded(encodeMessage(HELLO), []);
  const welcome = await next();
  if (welcome.kind === "refused") { // The one before is not forgotten yet.
    await socket.close();
    return await diesAfter(path, packets);
  }
  await next();
  if (packets >= 0) {
    await socket.sendLoaded(encodeMessage({ kind: "freeze", edition: (welcome as { edition: string }).edition }), []);
    for (let count = 0; count < packets; count++) await next();
  }
  await socket.close();
}

withPredecessor("everything goes over, to fewer workers and to more, and the predecessor is told so", async (scene) => {
  using own = new Workers(3);
  const taken = await takeOver(scene.path, own);
  assertEquals([taken.connections, taken.descriptors], [2 * HANDLES, 2 * HANDLES]);
  assertEquals(own.adopted.length, 2 * HANDLES);
  await scene.server.handedOver;
  assertEquals(scene.released, [true], "no pod is ended here any more");
  assertEquals([scene.workers.phase, own.phase], [TakeoverPhase.RELEASED, TakeoverPhase.LIVE]);
  assertEquals(await Predecessor.connect(scene.path, "test"), undefined, "nobody listens there any more");
});

withPredecessor(
  "a successor that dies at any step before it has read the token leaves everything as it was",
  async (scene) => {
    // Two states of three packets of descriptors each, and the token: nine packets.
    for (let packets = -1; packets <= 9; packets++) {
      await diesAfter(scene.path, packets);
      await until("pods are free again", () => scene.holds() === 0);
      if (packets >= 0) await until("workers go on", () => scene.workers.phase === TakeoverPhase.RUN);
    }
    using own = new Workers(1);
    assertEquals((await takeOver(scene.path, own)).connections, 2 * HANDLES, "the next one takes over");
    await scene.server.handedOver;
  },
);

withPredecessor("a successor that cannot build what it got gives up, and the predecessor goes on", async (scene) => {
  using own = new Workers(1);
  own.failsAt = TakeoverPhase.ADOPTED;
  const failure = await assertRejects(() => takeOver(scene.path, own), MeshError);
  assertEquals((failure as MeshError).code, "AMB2421");
  await until("workers go on", () => scene.workers.phase === TakeoverPhase.RUN);
  assert(!own.asked.includes(TakeoverPhase.LIVE), "nothing was touched");
  assertEquals(scene.released, [false], "pods are ended here as before");
});

withPredecessor("workers that cannot freeze go on", async (scene) => {
  scene.workers.failsAt = TakeoverPhase.FROZEN;
  using own = new Workers(1);
  await assertRejects(() => takeOver(scene.path, own), MeshError);
  await until("workers go on", () => scene.workers.phase === TakeoverPhase.RUN);
  for (const field of [TAKEOVER.stateFd, TAKEOVER.handlesFd]) {
    for (const worker of [0, 1]) closeFd(scene.workers.tables.takeover.getI32(worker, field));
  }
});

withPredecessor("one successor at a time, and only one that reads our format", async ({ path }) => {
  const first = SeqpacketSocket.connect(path);
  await first.sendLoaded(encodeMessage(HELLO), []);
  const welcome = await first.receiveLoaded(PACKET_BYTES_MAX, { timeoutMs: 60_000 });
  assert(typeof welcome !== "string", "the first is welcome");
  for (
    const [hello, reason] of [
      [HELLO, "another successor came first"],
      [{ ...HELLO, version: TAKEOVER_VERSION + 1 }, "reads another format"],
      [{ ...HELLO, hash: 1 }, "reads another format"],
      [{ kind: "freeze", edition: "" }, "does not say"],
    ] as [Message, string][]
  ) {
    const socket = SeqpacketSocket.connect(path);
    await socket.sendLoaded(encodeMessage(hello), []);
    const answer = await socket.receiveLoaded(PACKET_BYTES_MAX, { timeoutMs: 60_000 });
    assert(typeof answer !== "string", "it is told why");
    const refused = decodeMessage((answer as { bytes: Uint8Array }).bytes) as { kind: string; reason: string };
    assertEquals(refused.kind, "refused");
    assert(refused.reason.includes(reason), refused.reason);
    await socket.close();
  }
  const pod = await first.receiveLoaded(PACKET_BYTES_MAX, { timeoutMs: 60_000 });
  if (typeof pod !== "string") { for (const fd of pod.descriptors) closeFd(fd); }
  await first.close();
});

withPredecessor("of successors that come at the same moment one is welcome", async ({ path }) => {
  for (let round = 0; round < 20; round++) {
    const sockets = Array.from({ length: 8 }, () => SeqpacketSocket.connect(path));
    await new Promise((resolve) => setTimeout(resolve, 5)); // All of them are waited for.
    await Promise.all(sockets.map((socket) => socket.sendLoaded(encodeMessage(HELLO), [])));
    const kinds = await Promise.all(sockets.map(async (socket) => {
      const packet = await socket.receiveLoaded(PACKET_BYTES_MAX, { timeoutMs: 60_000 });
      return typeof packet === "string" ? packet : decodeMessage(packet.bytes)!.kind;
    }));
    assert(kinds.filter((kind) => kind === "welcome").length <= 1, kinds.join());
    await Promise.all(sockets.map((socket) => socket.close()));
  }
});

Deno.test("that a phase failed before is no answer to the wish to go on as if nothing had been", async () => {
  using own = new Workers(1);
  const { takeover } = own.tables;
  takeover.store(0, TAKEOVER.reached, TakeoverPhase.FAILED);
  const phases = new WorkerPhases(own.tables, {
    count: 1,
    wake: () => setTimeout(() => takeover.store(0, TAKEOVER.reached, TakeoverPhase.RUN), 5),
  });
  assertEquals(await phases.reach(TakeoverPhase.RUN, 60_000), undefined);
});

withPredecessor(
  "a successor that no descriptor is left for ends nothing: it is let in once there is one",
  async (scene) => {
    const { accept } = SeqpacketListener.prototype;
    let refusals = 2;
    SeqpacketListener.prototype.accept = function () {
      if (refusals-- <= 0) return accept.call(this);
      return Promise.reject(new MeshError("AMB7031", "could not accept a connection: EMFILE", { remedy: "wait" }));
    };
    try {
      await SeqpacketSocket.connect(scene.path).close(); // It is let in still.
      using own = new Workers(1);
      assertEquals((await takeOver(scene.path, own)).connections, 2 * HANDLES);
      await scene.server.handedOver;
      assert(refusals < 0, "it was tried again");
    } finally {
      SeqpacketListener.prototype.accept = accept;
    }
  },
);

withPredecessor("pods that change while the successor prepares are told again", async ({ path, pods, server }) => {
  using own = new Workers(1);
  const predecessor = await Predecessor.connect(path, "test");
  await using _closed = predecessor!;
  const seen: number[] = [], pod = pods.get("uid")!;
  await predecessor!.takeOver(own.phases, own.tables, (offered) => {
    seen.push(offered.length);
    for (const { netns } of offered) netns[Symbol.dispose]();
    if (seen.length === 1) pods.set("other", { row: 2, pod: { ...pod.pod, uid: "other" } });
    return Promise.resolve(new Map());
  }, SILENT);
  assertEquals(seen, [1, 2]);
  await server.handedOver;
});

/** A predecessor that says these things to whoever comes, and then is no more. */
async function plays(
  say: (send: (message: Message, fds?: number[]) => Promise<boolean>) => Promise<void>,
): Promise<MeshError | undefined> {
  const folder = await Deno.makeTempDir(), path = `${folder}/takeover.sock`;
  const listener = SeqpacketListener.listen(path, { mode: 0o600 });
  const playing = (async () => {
    const socket = (await listener.accept())!;
    await socket.receiveLoaded(PACKET_BYTES_MAX); // Its hello.
    await say(async (message, fds = []) => {
      const sent = await socket.sendLoaded(encodeMessage(message), fds);
      if (message.kind === "welcome") await socket.receiveLoaded(PACKET_BYTES_MAX); // Its wish for the connections.
      return sent;
    });
    await socket.close();
    await listener.close();
  })();
  using own = new Workers(1);
  try {
    await takeOver(path, own);
    assertEquals(own.phase, TakeoverPhase.LIVE);
    return undefined;
  } catch (error) {
    assert(!own.asked.includes(TakeoverPhase.LIVE), "nothing was touched");
    return error as MeshError;
  } finally {
    await playing;
    await Deno.remove(folder, { recursive: true });
  }
}

const WELCOME: Message = { kind: "welcome", workers: 1, pods: 0, descriptors: 9, edition: "", program: "played" };
const STATE: Message = { kind: "state", handles: 1, sessions: 0, connections: 0, left: 0, frozenAtMs: 1 };

Deno.test("a predecessor that dies before all was said leaves nothing to take over; after it the successor owns it all", async () => {
  const state = createMemoryFile("state", Uint8Array.of(1, 2, 3)), token = createToken();
  const script: [Message, number[]][] = [
    [WELCOME, []],
    [STATE, [state]],
    [{ kind: "handles", count: 1 }, [state]],
    [{ kind: "token", workers: 1 }, [token]],
  ];
  for (let said = 0; said <= script.length; said++) {
    const failure = await plays(async (send) => {
      for (const [message, fds] of script.slice(0, said)) await send(message, fds);
    });
    assertEquals(failure?.code, said < script.length ? "AMB2421" : undefined, `${said} messages`);
  }
  assertEquals(takeToken(token), false, "the successor has read it");
  const late = await plays(async (send) => {
    for (const [message, fds] of script) await send(message, fds);
  });
  assertEquals(late?.code, "AMB2421", "a token that somebody has read gives nobody the right");
  for (const fd of [state, token]) closeFd(fd);
});

Deno.test("a predecessor that refuses, or talks nonsense, is left alone", async () => {
  assertEquals((await plays(async (send) => void await send({ kind: "refused", reason: "no" })))?.code, "AMB2420");
  assertEquals((await plays(async (send) => void await send({ kind: "live", pauseMs: 0 })))?.code, "AMB2421");
  assertEquals(
    (await plays(async (send) => {
      await send(WELCOME);
      await send({ ...STATE, handles: 2 ** 31 } as Message, [0]);
    }))?.code,
    "AMB2421",
  );
});
