/** Callers at port 15008 that mean no good, and that nobody else notices them. */
import { assert, assertEquals } from "@std/assert";
import { type ClientCertificate, Issuer } from "../../demo/lab/certificates.ts";
import type { Mesh, Pod } from "../../demo/lab/mesh.ts";
import { WIRE } from "../../demo/lab/network.ts";
import type { Probe } from "../../demo/lab/probe.ts";
import { Wiretap } from "../../demo/lab/wiretap.ts";
import { meshTest, type Rig, until } from "./mesh.ts";

const HBONE_PORT = 15008, GOOD_PORT = 7000;
const HOUR_MS = 3_600_000;
// A handshake has 10 s. How much later than that the end is noticed is the machine's affair.
const HANDSHAKE_MS_MIN = 9_500, ENDED_MS = 60_000;
/** How long an attack goes on, and how long the good connection may stand still on a busy machine: not all the while. */
const ATTACK_MS = 10_000, GAP_MS_MAX = 8_000;
const MIB = 1024 ** 2;

/** A test with a stranger outside the mesh, beside a good connection that must keep flowing all the while. */
function strangerTest(name: string, run: (stranger: Probe, host: string, rig: Rig) => Promise<void>): void {
  meshTest(name, async (rig) => {
    const { mesh, client, server } = rig;
    const stranger = await mesh.addPod({
      name: "stranger",
      namespace: "outside",
      serviceAccount: "stranger",
      node: "node-a",
      enrolled: false,
    });
    await server.probe.do("listen", { port: GOOD_PORT, kind: "line" });
    await client.probe.do("startFlow", { host: server.ipv4, port: GOOD_PORT });
    await run(stranger.probe, server.ipv4, rig);
    const { exchanges, longestGapMs, error } = await client.probe.do("stopFlow", {});
    assertEquals(error, "", "the good connection goes on");
    assert(exchanges > 0 && longestGapMs < GAP_MS_MAX, `${exchanges} exchanges, a gap of ${longestGapMs} ms`);
    const { reply } = await client.probe.do("line", { host: server.ipv4, port: GOOD_PORT, text: "still there?" });
    assertEquals(reply, `YOU ${client.ipv4} still there?`);
    for (const { ztunnel } of Object.values(mesh.nodes)) assert(!ztunnel.ended, ztunnel.tail());
  });
}

strangerTest(
  "certificates that are none of the mesh's are refused (ZT-083)",
  async (stranger, host, { mesh, client }) => {
    const identity = `spiffe://${client.principal}`, now = Date.now();
    const own = await Issuer.ofMesh(`${mesh.folder}/state`), foreign = await Issuer.foreign();
    const callers: Readonly<Record<string, ClientCertificate | undefined>> = {
      "no certificate": undefined,
      "a foreign CA": await foreign.issue(identity),
      "a foreign CA and trust domain": await foreign.issue("spiffe://elsewhere.example/ns/e2e/sa/client"),
      "our CA and a foreign trust domain": await own.issue("spiffe://elsewhere.example/ns/e2e/sa/client"),
      "an expired one": await own.issue(identity, { fromMs: now - 2 * HOUR_MS, untilMs: now - HOUR_MS }),
      "one that is not valid yet": await own.issue(identity, { fromMs: now + HOUR_MS, untilMs: now + 2 * HOUR_MS }),
      "no SPIFFE identity": await own.issue("https://shop.example/client"),
    };
    for (const [what, certificate] of Object.entries(callers)) {
      const outcome = await stranger.do("tls", { host, port: HBONE_PORT, ...certificate });
      assert(!outcome.answered && outcome.ending !== "open", `${what}: ${JSON.stringify(outcome)}`);
    }
    const good = await stranger.do("tls", { host, port: HBONE_PORT, ...await own.issue(identity) });
    assert(
      good.answered,
      "the same call with a good certificate is answered: it is the certificates that were refused",
    );
  },
);

strangerTest("bytes that are no TLS end the connection at once", async (stranger, host) => {
  const garbage = [
    "00".repeat(64),
    "ff".repeat(4096),
    "474554202f20485454502f312e310d0a0d0a",
    "1603010200" + "aa".repeat(512),
  ];
  for (const hex of garbage) {
    const outcome = await stranger.do("raw", { host, port: HBONE_PORT, hex, waitMs: ENDED_MS });
    assert(outcome.ending !== "open" && outcome.ms < HANDSHAKE_MS_MIN, JSON.stringify(outcome));
    assert(outcome.receivedBytes < 64, "an alert at most is said to it");
  }
});

strangerTest("who says nothing is hung up on after ten seconds", async (stranger, host) => {
  const hello = "16030100c8010000c40303"; // the beginning of a ClientHello that never goes on
  const outcomes = await Promise.all(
    ["", hello].map((hex) => stranger.do("raw", { host, port: HBONE_PORT, hex, waitMs: ENDED_MS })),
  );
  for (const { ending, ms } of outcomes) {
    assert(ending !== "open" && ms > HANDSHAKE_MS_MIN, `${ending} after ${ms} ms`);
  }
});

/** A caller's certificate that the mesh's CA signed, with the roots to know the mesh by. */
async function genuine({ folder }: Mesh, { principal }: Pod): Promise<ClientCertificate & { roots: string }> {
  const certificate = await (await Issuer.ofMesh(`${folder}/state`)).issue(`spiffe://${principal}`);
  return { ...certificate, roots: Deno.readTextFileSync(`${folder}/state/root-cert.pem`) };
}

const residentBytes = (pid: number) =>
  Number(/^VmRSS:\s+(\d+) kB/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))![1]) * 1024;

strangerTest("who pings and never reads fills no memory", async (stranger, host, { mesh, client }) => {
  const { pid } = mesh.nodes["node-b"].ztunnel;
  const certificate = await genuine(mesh, client);
  const before = residentBytes(pid);
  const { sentBytes, error } = await stranger.do("deafPings", {
    host,
    port: HBONE_PORT,
    ...certificate,
    ms: ATTACK_MS,
  });
  const grownBytes = residentBytes(pid) - before;
  assert(sentBytes > 0, "it did ask");
  assert(
    grownBytes < 64 * MIB,
    `grew by ${Math.round(grownBytes / MIB)} MiB for ${sentBytes} bytes, then ${error}`,
  );
});

strangerTest("who asks for gigabytes and never reads fills no memory", async (stranger, host, rig) => {
  const { mesh, client, server } = rig, port = 7001, tunnels = 50, bytes = 1024 ** 3;
  await server.probe.do("listen", { port, kind: "source" });
  const { pid } = mesh.nodes["node-b"].ztunnel, { ipv4 } = mesh.pods.get("stranger")!;
  const certificate = await genuine(mesh, client);
  await using wiretap = new Wiretap(mesh.network.nodes["node-a"].netns, WIRE, "nothing in particular");
  const before = residentBytes(pid), authority = `${host}:${port}`;
  const caller = { host, port: HBONE_PORT, ...certificate, authority, tunnels, bytes, ms: ATTACK_MS };
  const asked = stranger.do("deafDownloads", caller);
  await until(
    "all tunnels are there",
    60_000,
    async () => (await server.probe.do("served", { port })).accepted === tunnels,
  );
  await asked;
  const grownBytes = residentBytes(pid) - before;
  const sentBytes = (await wiretap.seen()).filter((it) => it.sourcePort === HBONE_PORT && it.destination === ipv4)
    .reduce((sum, it) => sum + it.bytes, 0);
  assert(sentBytes > 10_000 && sentBytes < 64 * MIB, `what its socket holds was sent, and no more: ${sentBytes} bytes`);
  // Each tunnel may hold what its buffers hold; what was asked for is four hundred times that.
  assert(grownBytes < 128 * MIB, `grew by ${Math.round(grownBytes / MIB)} MiB`);
  await until("all are let go", 60_000, async () => (await server.probe.do("served", { port })).open === 0);
});

strangerTest("two hundred at once that say nothing keep nobody else waiting", async (stranger, host) => {
  const input = { host, port: HBONE_PORT, hex: "", waitMs: ENDED_MS };
  const outcomes = await Promise.all(Array.from({ length: 200 }, () => stranger.do("raw", input)));
  assertEquals(outcomes.filter(({ ending }) => ending === "open"), []);
});
