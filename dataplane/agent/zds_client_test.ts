import { assertEquals, assertStringIncludes } from "@std/assert";
import { assert } from "../../base/assert.ts";
import { MeshError } from "../../base/errors.ts";
import { LogFilter, Logger } from "../../base/log.ts";
import {
  decodeZdsAcknowledgement,
  decodeZdsHello,
  encodeZdsRequest,
  type ZdsRequest,
} from "../../mesh/proto/zds_codec.ts";
import { countDescriptors, countNetnsDescriptors } from "../../os/descriptors_testing.ts";
import * as libc from "../../os/libc_cold.ts";
import { createAnonymousNetns, type Netns } from "../../os/netns.ts";
import { SeqpacketListener, type SeqpacketSocket } from "../../os/seqpacket.ts";
import { type EnrolledPod, ZdsClient } from "./zds_client.ts";

const privileged = Deno.uid() === 0;
const silent = new Logger("zds", { sink: () => {} });
const workload = { name: "web-0", namespace: "shop", serviceAccount: "web" };

/** Records what it is told, and fails for the uids in `failing`. */
class Recorder {
  readonly events: string[] = [];
  readonly failing = new Set<string>();

  addPod(pod: EnrolledPod): Promise<void> {
    if (this.failing.has(pod.uid)) return Promise.reject(new Error("address in use"));
    assert(Deno.readLinkSync(`/proc/self/fd/${pod.netnsFd}`).startsWith("net:"), "the descriptor is open");
    this.events.push(`add ${pod.uid} ${pod.info.name}`);
    return Promise.resolve();
  }

  deletePod(uid: string): Promise<void> {
    this.events.push(`delete ${uid}`);
    return Promise.resolve();
  }
}

/** The node agent's end, driven by the test. */
class FakeAgent implements AsyncDisposable {
  readonly path = `${Deno.makeTempDirSync()}/zds.sock`;
  readonly pods = new Recorder();
  readonly stop = new AbortController();
  readonly client: ZdsClient;
  /** How the client's run ended. */
  readonly outcome: Promise<unknown>;
  readonly readiness: boolean[] = [];
  readonly servesDns: boolean;
  #listener = SeqpacketListener.listen(this.path, { mode: 0o600 });
  socket!: SeqpacketSocket;

  constructor(options: { pendingRetryMs?: number; servesDns?: boolean } = {}) {
    this.servesDns = options.servesDns === true;
    this.client = new ZdsClient({
      path: this.path,
      pods: this.pods,
      log: silent,
      random: () => 0.5,
      onReady: (ready) => this.readiness.push(ready),
      ...options,
    });
    this.outcome = this.client.run(this.stop.signal).then(() => "stopped", (error) => error);
  }

  async accept(): Promise<void> {
    const socket = await this.#listener.accept();
    assert(socket !== undefined, "the client connects");
    this.socket = socket;
    const hello = await socket.receive(1024, { timeoutMs: 60_000 });
    assert(typeof hello !== "string", "the client says hello first");
    assertEquals(decodeZdsHello(hello.bytes), { version: 1, features: this.servesDns ? 7 : 3 });
  }

  /** @returns The acknowledgement's error. */
  async ask(request: ZdsRequest | Uint8Array, netns?: Netns | number): Promise<string> {
    const bytes = request instanceof Uint8Array ? request : encodeZdsRequest(request);
    assert(await this.socket.send(bytes, { descriptor: typeof netns === "number" ? netns : netns?.fd }), "sent");
    const answer = await this.socket.receive(1024, { timeoutMs: 60_000 });
    assert(typeof answer !== "string", `the client answers: ${answer}`);
    return decodeZdsAcknowledgement(answer.bytes).error;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop.abort();
    await this.outcome;
    this.client[Symbol.dispose]();
    await this.socket?.close();
    await this.#listener.close();
    Deno.removeSync(this.path.slice(0, -"/zds.sock".length), { recursive: true });
  }
}

const add = (uid: string): ZdsRequest => ({ kind: "add", uid, workload });

function test(name: string, fn: (agent: FakeAgent, netns: Netns) => Promise<void>, options = {}): void {
  Deno.test({
    name,
    ignore: !privileged,
    async fn() {
      using netns = createAnonymousNetns();
      {
        await using agent = new FakeAgent(options);
        await agent.accept();
        await fn(agent, netns);
      }
      assertEquals(countNetnsDescriptors(netns), 1, "none is left open but the test's own");
    },
  });
}

test("ZdsClient starts, keeps and stops pods as it is told (ZT-165, ZT-168, ZT-169, ZT-171)", async (agent, netns) => {
  assertEquals(await agent.ask(add("a"), netns), "");
  assertEquals(await agent.ask(add("a"), netns), "", "same uid, same namespace: nothing to do");
  assertEquals(agent.client.ready, false);
  assertEquals(await agent.ask({ kind: "snapshotSent" }), "");
  assertEquals(agent.client.ready, true);
  using other = createAnonymousNetns();
  assertEquals(await agent.ask(add("a"), other), "");
  assertEquals(await agent.ask({ kind: "delete", uid: "unknown" }), "");
  assertEquals(await agent.ask({ kind: "delete", uid: "a" }), "");
  assertEquals(agent.pods.events, ["add a web-0", "delete a", "add a web-0", "delete a"]);
  assertEquals(agent.client.counts, { active: 0, pending: 0, started: 2, stopped: 2 });
});

test(
  "ZdsClient keeps pods over a reconnect, and stops those that the new snapshot leaves out (CNI-251, ZT-168, ZT-170)",
  async (agent, netns) => {
    for (const uid of ["a", "b", "c", "d"]) assertEquals(await agent.ask(add(uid), netns), "");
    assertEquals(await agent.ask({ kind: "snapshotSent" }), "");
    await agent.socket.close();
    await agent.accept();
    assertEquals(agent.readiness, [true, false]);
    assertEquals(agent.pods.events.length, 4, "all go on meanwhile");
    assertEquals(await agent.ask({ kind: "keep", uid: "a" }), "");
    assertEquals(await agent.ask(add("b"), netns), "");
    assertEquals(await agent.ask(add("d"), netns), "");
    assertEquals(await agent.ask({ kind: "delete", uid: "d" }), "");
    assertEquals(await agent.ask({ kind: "snapshotSent" }), "");
    assertEquals(agent.pods.events.slice(4), ["delete c", "delete d"]);
    assertEquals(agent.readiness, [true, false, true]);
  },
);

test(
  "ZdsClient retries a pod that did not start, and is not ready until then (CNI-252, ZT-166, ZT-171)",
  async (agent, netns) => {
    agent.pods.failing.add("a").add("b");
    assertEquals(await agent.ask(add("a"), netns), "failure to start proxy: address in use");
    assertEquals(await agent.ask(add("b"), netns), "failure to start proxy: address in use");
    assertEquals(await agent.ask({ kind: "snapshotSent" }), "");
    assertEquals([agent.client.ready, agent.client.counts.pending], [false, 2]);
    assertEquals(await agent.ask({ kind: "delete", uid: "b" }), "");
    agent.pods.failing.clear();
    const deadline = performance.now() + 60_000;
    while (!agent.client.ready && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 1));
    assertEquals(agent.pods.events, ["add a web-0"]);
    assertEquals(agent.readiness, [true]);
  },
  { pendingRetryMs: 20 },
);

test(
  "ZdsClient forgets pending pods when the connection ends, and a later add replaces one (ZT-166, ZT-170)",
  async (agent, netns) => {
    agent.pods.failing.add("a").add("b");
    await agent.ask(add("a"), netns);
    await agent.ask(add("b"), netns);
    agent.pods.failing.clear();
    assertEquals(await agent.ask(add("a"), netns), "");
    assertEquals(agent.client.counts.pending, 1);
    assertEquals([...agent.client.pending()].length, 1); // As the config dump shows it (ZT-213).
    await agent.socket.close();
    await agent.accept();
    assertEquals(agent.client.counts, { active: 1, pending: 0, started: 1, stopped: 0 });
  },
);

test("ZdsClient acknowledges a pod when its listeners are there, not before (ZT-227)", async (agent, netns) => {
  const { promise: started, resolve: start } = Promise.withResolvers<void>();
  const record = agent.pods.addPod.bind(agent.pods);
  agent.pods.addPod = async (pod) => {
    await started;
    await record(pod);
  };
  let answer: string | undefined;
  const asked = agent.ask(add("a"), netns).then((error) => answer = error);
  assertEquals(await agent.socket.receive(1024, { timeoutMs: 0 }).catch(() => "busy"), "timeout");
  assertEquals([answer, agent.pods.events], [undefined, []]);
  start();
  await asked;
  assertEquals([answer, agent.pods.events], ["", ["add a web-0"]]);
});

test("ZdsClient says that it serves DNS to units where it does (CNI-256)", async (agent) => {
  assertEquals(await agent.ask({ kind: "snapshotSent" }), "");
}, { servesDns: true });

test(
  "ZdsClient starts a target anew that is somebody else, or is served elsewhere, by the time it is named again (CNI-273, CNI-275)",
  async (agent, netns) => {
    const shared = { outboundPort: 15100, plaintextPort: 15300, inboundPorts: [80], address: "", dnsPort: 0 };
    const as = (serviceAccount: string, more = {}): ZdsRequest => ({
      kind: "add",
      uid: "a",
      workload: { ...workload, serviceAccount },
      ...more,
    });
    assertEquals(await agent.ask(as("web"), netns), "");
    assertEquals(await agent.ask({ kind: "snapshotSent" }), "");
    const events = agent.pods.events.splice(0);
    assertEquals(events, ["add a web-0"]);
    assertEquals(await agent.ask(as("web"), netns), "");
    assertEquals(agent.pods.events, [], "the same again is nothing new");
    for (
      const changed of [as("admin"), as("admin", { shared }), as("admin", { shared: { ...shared, dnsPort: 15500 } })]
    ) {
      assertEquals(await agent.ask(changed, netns), "");
      assertEquals(agent.pods.events.splice(0), ["delete a", "add a web-0"]);
      assertEquals(await agent.ask(changed, netns), "");
    }
    assertEquals(agent.pods.events, []);
  },
);

Deno.test("ZdsClient tries for ever to reach a node agent that is not there yet (CNI-253, ZT-161)", async () => {
  const folder = Deno.makeTempDirSync(), path = `${folder}/zds.sock`, stop = new AbortController();
  const lines: string[] = [];
  const log = new Logger("zds", { filter: new LogFilter("debug"), sink: (line) => lines.push(line) });
  using client = new ZdsClient({ path, pods: new Recorder(), log });
  const done = client.run(stop.signal);
  const deadlineMs = Date.now() + 60_000;
  while (lines.length < 3 && Date.now() < deadlineMs) await new Promise((resolve) => setTimeout(resolve, 5));
  assertEquals(lines.length >= 3, true, "it failed three times, within 20 + 40 ms");
  const listener = SeqpacketListener.listen(path, { mode: 0o600 });
  const socket = (await listener.accept())!;
  const hello = await socket.receive(1024, { timeoutMs: 60_000 });
  assert(typeof hello !== "string", "the client says hello");
  stop.abort();
  await done;
  await socket.close();
  await listener.close();
  Deno.removeSync(folder, { recursive: true });
});

for (
  const [name, requests] of [
    ["add without workload_info", [{ kind: "add", uid: "a", workload: undefined }]],
    ["a second snapshot", [{ kind: "snapshotSent" }, { kind: "snapshotSent" }]],
    ["keep after the snapshot", [{ kind: "snapshotSent" }, { kind: "keep", uid: "a" }]],
  ] as [string, ZdsRequest[]][]
) {
  test(`ZdsClient ends after ${name} (ZT-167)`, async (agent, netns) => {
    let error = "";
    for (const request of requests) error = await agent.ask(request, request.kind === "add" ? netns : undefined);
    assertStringIncludes(error, "failure to process message");
    const outcome = await agent.outcome;
    assert(outcome instanceof MeshError, "the client's run failed");
    assertEquals(outcome.code, "AMB7200");
  });
}

test(
  "ZdsClient answers what it cannot read or is too long, reconnects, and leaks nothing (ZT-161, ZT-164, ZT-167)",
  async (agent, netns) => {
    const whole = encodeZdsRequest(add("a"));
    const hostile: [Uint8Array, Netns | undefined, string][] = [
      [whole, undefined, "without a namespace"],
      [encodeZdsRequest({ kind: "delete", uid: "a" }), netns, "with a descriptor"],
      [encodeZdsRequest({ kind: "snapshotSent" }), netns, "with a descriptor"],
      [whole.subarray(0, whole.length - 1), netns, ""],
      [Uint8Array.of(0x3a, 0), undefined, ""], // a request of a number that is not known
      [new Uint8Array(1025), undefined, "too long"],
      [new Uint8Array(1025), netns, "too long"],
    ];
    for (const [bytes, descriptor, expected] of hostile) {
      assertEquals(await agent.ask({ kind: "snapshotSent" }), ""); // Once ready, the way back is short.
      const error = await agent.ask(bytes, descriptor);
      assertStringIncludes(error, "failure to read message");
      assertStringIncludes(error, expected);
      assertEquals(await agent.socket.receive(1024, { timeoutMs: 60_000 }), "closed");
      await agent.socket.close();
      await agent.accept();
    }
    const notNetns = Deno.makeTempFileSync();
    const descriptor = libc.open(notNetns, libc.O.RDONLY);
    assertStringIncludes(await agent.ask(add("a"), descriptor), "failure to start proxy");
    libc.close(descriptor);
    assertEquals(countDescriptors(notNetns), 0);
    Deno.removeSync(notNetns);
    assertEquals(await agent.ask({ kind: "snapshotSent" }), "", "the connection stays up");
    assertEquals(agent.pods.events, []);
  },
);
