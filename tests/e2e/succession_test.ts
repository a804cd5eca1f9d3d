/** A takeover in which one of the two is killed, and DNS across takeovers: nobody notices. */
import { assert, assertEquals } from "@std/assert";
import { askNodeAgent } from "../../cli/enrol_client.ts";
import { PodUpstreamSockets } from "../../dataplane/agent/dns/upstream_sockets.ts";
import { queryBytes, recordsOf } from "../../dataplane/agent/dns/testing.ts";
import { parseIp } from "../../base/address.ts";
import { Poller } from "../../os/poller.ts";
import type { ConnectKind } from "../../demo/lab/pattern_protocol.ts";
import type { Program } from "../../demo/lab/program.ts";
import { serviceYaml } from "../../demo/lab/yaml.ts";
import { meshTest, until } from "./mesh.ts";

const PORT = 7000, IDLE_CONNECTIONS = 100, KILLS = 3;
/** Ways in which nobody resets a connection on purpose. */
const ORDERLY: readonly ConnectKind[] = ["short", "long", "upload", "bulk", "farewell"];
const QUERY_INTERVAL_MS = 20, QUERY_TIMEOUT_MS = 5_000, QUERY_TRIES = 3, DNS_TAKEOVERS = 3;
const KEPT = ["the successor has gone before it took anything", "the takeover was called off", "came to nothing"];

const turn = () => new Promise((resolve) => setTimeout(resolve, 0));

/** Looks at each turn for a line with one of `texts` in one of the logs: what follows happens right after it. */
async function saidBy(programs: readonly Program[], ...texts: string[]): Promise<string> {
  const deadline = performance.now() + 120_000, from = programs.map((it) => it.lineCount);
  for (;;) {
    const lines = programs.flatMap((it, at) => it.linesSince(from[at]!));
    const said = lines.find((line) => texts.some((text) => line.includes(text)));
    if (said !== undefined) return said;
    assert(performance.now() < deadline, `${texts[0]}:\n${programs.map((it) => it.tail()).join("\n")}`);
    await turn();
  }
}

meshTest("a successor that is killed in the middle, and a predecessor at the end: no connection ends", async (rig) => {
  const { mesh, client, server } = rig;
  const crowd = await mesh.addPod({ name: "crowd", namespace: "e2e", serviceAccount: "crowd", node: "node-a" });
  await server.probe.do("listenPattern", { port: PORT });
  const load = { targets: [{ host: server.ipv4, port: PORT }], pauseMs: 20, bulkBytesMax: 20_000_000 };
  await crowd.probe.do("startPattern", {
    ...load,
    lanes: IDLE_CONNECTIONS,
    seed: 1,
    kinds: ["long"],
    longMs: 3_600_000,
  });
  await client.probe.do("startPattern", { ...load, lanes: 8, seed: 2, kinds: ORDERLY, longMs: 2_000 });
  const open = async () => (await crowd.probe.do("patternTallies", {})).client.open;
  await until(`${IDLE_CONNECTIONS} connections`, 60_000, async () => await open() === IDLE_CONNECTIONS);

  const said: string[] = [];
  for (let kill = 0; kill < KILLS; kill++) {
    const node = mesh.nodes[kill % 2 === 0 ? "node-a" : "node-b"], predecessor = node.ztunnel;
    // It gets no certificates, so that it is still at it when it is killed, however late that is.
    const kept = saidBy([predecessor], ...KEPT), successor = node.startSuccessor({ CA_ADDRESS: "https://127.0.0.1:1" });
    await saidBy([successor], "taking over");
    await node.crashSuccessor();
    said.push(await kept);
    await node.ztunnelReady();
    assertEquals(await open(), IDLE_CONNECTIONS, `after kill ${kill}`);
  }
  for (const name of ["node-a", "node-b"] as const) {
    const node = mesh.nodes[name], predecessor = node.ztunnel, successor = node.startSuccessor();
    await saidBy([predecessor, successor], name === "node-a" ? "the successor serves" : "taken over");
    predecessor.kill("SIGKILL");
    await predecessor.status;
    await node.ztunnelReady();
    assertEquals(await open(), IDLE_CONNECTIONS, `without the predecessor on ${name}`);
  }
  const ended = async () => {
    const { good } = (await client.probe.do("patternTallies", {})).client;
    return Object.values(good).reduce((sum, count) => sum + count, 0);
  };
  const before = await ended();
  await until("further connections begin and end well", 60_000, async () => await ended() > before + 8);
  const tallies = await Promise.all([client, crowd].map((pod) => pod.probe.do("stopPattern", {})));
  const good = tallies[0]!.good;
  Deno.stdout.writeSync(new TextEncoder().encode(`${JSON.stringify({ said, good })}\n`));
  const { server: served } = await server.probe.do("patternTallies", {});
  for (const { failures, truncated, wrong } of [...tallies, served]) {
    assertEquals([failures, truncated, wrong], [{}, {}, []]);
  }
});

meshTest("what is asked of a pod's DNS proxy every 20 ms is answered, also while ztunnel is replaced", async (rig) => {
  const { mesh, client } = rig;
  const addresses = ["10.96.7.7", "fd00:96::7"];
  mesh.writeConfig(
    "service.yaml",
    serviceYaml({ name: "server", namespace: "e2e", addresses, port: 80, targetPort: 8080 }),
  );
  await mesh.seen("the service", (dump) => JSON.stringify(dump).includes("server.e2e.svc.cluster.local"));
  const { name, namespace, serviceAccount } = client.spec, target = `netns/${client.place.name}`;
  const body = { target, namespace, serviceAccount, name, dnsCapture: true };
  await askNodeAgent(client.node.enrolSocket, { method: "POST", path: "/enrol", body });
  await using poller = new Poller();
  const sockets = new PodUpstreamSockets({ netns: client.place.netns, mark: 0, poller }), stop = new AbortController();
  const query = queryBytes("server.e2e.svc.cluster.local", "A"), nobody = parseIp("10.255.255.1")!;
  const counts = { asked: 0, retried: 0, unanswered: 0, wrong: 0 };
  const ask = async () => {
    counts.asked++;
    for (let tries = 0; tries < QUERY_TRIES; tries++) {
      if (tries > 0) counts.retried++;
      const exchanged = await sockets.exchangeUdp(nobody, query, {
        timeoutMs: QUERY_TIMEOUT_MS,
        accept: () => ({ code: 0, truncated: false, records: [] }),
        signal: stop.signal,
      });
      if (exchanged === undefined) continue;
      if (recordsOf(exchanged.bytes).join() !== "server.e2e.svc.cluster.local A 10.96.7.7") counts.wrong++;
      return;
    }
    counts.unanswered++;
  };
  const asking: Promise<void>[] = [], timer = setInterval(() => asking.push(ask()), QUERY_INTERVAL_MS);
  try {
    for (let round = 0; round < DNS_TAKEOVERS; round++) {
      await client.node.takeOver();
      await client.node.ztunnelReady();
    }
  } finally {
    clearInterval(timer);
    await Promise.all(asking);
    stop.abort();
  }
  Deno.stdout.writeSync(new TextEncoder().encode(`${JSON.stringify({ takeovers: DNS_TAKEOVERS, ...counts })}\n`));
  assertEquals([counts.unanswered, counts.wrong], [0, 0]);
  assert(counts.asked > 50 && counts.retried <= counts.asked / 50, JSON.stringify(counts));
}, { ztunnelEnvironment: { AMBIT_RESOLV_CONF: "/dev/null" } });
