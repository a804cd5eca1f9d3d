/** Chapter: what goes over the wire, who it says it is, and that applications notice nothing. */
import { sumOf } from "../lab/metrics.ts";
import { until } from "../lab/until.ts";
import { TLS_1_3 } from "../lab/tls_records.ts";
import { type Direction, isHbone } from "../lab/wiretap.ts";
import { SERVICE } from "../shop.ts";
import type { Chapter, Stage } from "./stage.ts";

const SINK_PORT = 7001, SOURCE_PORT = 7002, WORLD_PORT = 7003;
const MIB = 1024 * 1024;

export const TRAFFIC: Chapter = {
  title: "Encrypted without being asked",
  story: "The shop's programs speak plain HTTP and TCP and know nothing of a mesh. We listen on the wire between the " +
    "nodes and compare a pod in the mesh with one outside it.",
  async run(stage) {
    await customerIsServed(stage);
    await wire(stage);
    await identities(stage);
    await transparency(stage);
  },
};

async function customerIsServed({ shop, checks, tell }: Stage): Promise<void> {
  await tell("The customer asks for the page and talks to the store, about 60 times a second.");
  await checks.check("the shop serves its customer through the mesh", async () => {
    const report = await until("a report without failures", 60_000, () => {
      const last = shop.reports.at(-1);
      return last?.targets.every((target) => target.succeeded > 0 && target.failed === 0) ? last : undefined;
    });
    const figures = report.targets.map((it) => `${it.target}: ${it.succeeded} in ${report.intervalMs} ms`);
    return { ok: true, detail: figures.join(", ") };
  });
}

async function wire(stage: Stage): Promise<void> {
  const { shop, checks, tell } = stage;
  await tell("We capture what crosses the wire, while the customer shops and a passer-by asks the store, too.");
  await shop.wiretap.clear();
  const reportsBefore = shop.reportCount;
  const passerBy = stage.pod("passer-by");
  const plain = await stage.askStore("passer-by");
  await stage.askStore("shopper");
  await until("more of the customer's requests", 60_000, () => shop.reportCount >= reportsBefore + 3);
  const ofPasserBy = (it: Direction) => it.source === passerBy.ipv4 || it.destination === passerBy.ipv4;
  const directions = await shop.wiretap.seen();
  const inMesh = directions.filter((it) => !ofPasserBy(it)), outside = directions.filter(ofPasserBy);
  await checks.check("packets between the nodes are for port 15008 alone", () => {
    const others = inMesh.filter((it) => !isHbone(it));
    const bytes = inMesh.reduce((sum, it) => sum + it.bytes, 0);
    const first = others[0];
    return {
      ok: others.length === 0 && inMesh.length > 0 && bytes > 0,
      detail: first === undefined
        ? `${inMesh.length} directions of connections, ${bytes} bytes`
        : `${first.source}:${first.sourcePort} to ${first.destination}:${first.destinationPort}`,
    };
  });
  await checks.check("what crosses is TLS 1.3, record by record", async () => {
    // A connection opened from now on, so that it is seen from its first byte: an address of its own pool entry.
    await stage.askStore("shopper", { host: stage.pod("store").ipv6 });
    await stage.askStore("courier");
    const followed = await until("a TLS connection seen from its start", 60_000, async () => {
      const all = (await shop.wiretap.seen()).filter((it) => it.tls !== undefined && it.tls.recordCount > 0);
      return all.some((it) => it.tls!.version !== 0 && it.tls!.applicationRecordCount > 0) ? all : undefined;
    });
    const records = followed.reduce((sum, it) => sum + it.tls!.recordCount, 0);
    const versions = [...new Set(followed.map((it) => it.tls!.version).filter((version) => version !== 0))];
    return {
      ok: followed.every((it) => !it.tls!.broken) && versions.length === 1 && versions[0] === TLS_1_3,
      detail: `${records} records, version 0x${versions.map((it) => it.toString(16).padStart(4, "0")).join(", 0x")}`,
    };
  });
  await checks.check("no byte of the applications can be read on the wire", () => {
    const markers = inMesh.reduce((sum, it) => sum + it.markers, 0);
    const bytes = inMesh.reduce((sum, it) => sum + it.bytes, 0);
    return { ok: markers === 0 && bytes > 1_000, detail: `"${shop.banner}" seen ${markers} times in ${bytes} bytes` };
  });
  await checks.check("the same words can be read where a pod is outside the mesh", () => {
    const markers = outside.reduce((sum, it) => sum + it.markers, 0);
    return {
      ok: "answer" in plain && markers > 0 && outside.every((it) => !isHbone(it)),
      detail: `seen ${markers} times in what the passer-by said and heard`,
    };
  });
}

async function identities(stage: Stage): Promise<void> {
  const { shop, checks, tell } = stage;
  await tell("Each connection carries an identity, which comes from the service account.");
  await checks.check("the server sees the client pod's own address", async () => {
    const reply = await stage.askStore("shopper"), wanted = `YOU ${stage.pod("shopper").ipv4}`;
    return { ok: "answer" in reply && reply.answer.endsWith(wanted), detail: JSON.stringify(reply) };
  });
  await checks.check("both sides are known by the SPIFFE identities of their service accounts", async () => {
    const shopper = `spiffe://${stage.pod("shopper").principal}`, store = `spiffe://${stage.pod("store").principal}`;
    const { ztunnel } = shop.mesh.nodes["node-b"];
    await ztunnel.line(
      "the access record of a connection",
      (line) =>
        line.includes('direction="inbound"') && line.includes(`src.identity="${shopper}"`) &&
        line.includes(`dst.identity="${store}"`),
    );
    return { ok: true, detail: `${shopper} to ${store}` };
  });
  await checks.check("metrics count the connections as mutual_tls, with both principals", async () => {
    const labels = {
      reporter: "destination",
      connection_security_policy: "mutual_tls",
      source_principal: `spiffe://${stage.pod("shopper").principal}`,
      destination_principal: `spiffe://${stage.pod("store").principal}`,
    };
    const count = await until("a count", 60_000, async () => {
      const samples = await shop.mesh.nodes["node-b"].metrics();
      return sumOf(samples, "istio_tcp_connections_opened_total", labels) || undefined;
    });
    return { ok: count > 0, detail: `istio_tcp_connections_opened_total is ${count}` };
  });
}

async function transparency(stage: Stage): Promise<void> {
  const { shop, checks, tell } = stage;
  const shopper = stage.pod("shopper").probe, store = stage.pod("store");
  await tell("Applications get what they would get without a mesh: IPv6, half-closed connections, every byte.");
  await Promise.all([
    store.probe.do("listen", { port: SINK_PORT, kind: "sink" }),
    store.probe.do("listen", { port: SOURCE_PORT, kind: "source" }),
    shop.world.do("listen", { port: WORLD_PORT, kind: "line" }),
  ]);
  await checks.check("IPv6 from pod to pod is encrypted, too", async () => {
    await shop.wiretap.clear();
    const reply = await stage.askStore("shopper", { host: store.ipv6 });
    const seen = (await shop.wiretap.seen()).filter((it) => it.source.startsWith("fd80:"));
    const ok = "answer" in reply && reply.answer.endsWith(`YOU ${stage.pod("shopper").ipv6}`) && seen.length > 0 &&
      seen.every((it) => isHbone(it) && it.markers === 0);
    return { ok, detail: `${JSON.stringify(reply)}, ${seen.length} directions on the wire` };
  });
  await checks.check("a half-closed connection goes on in the other direction", async () => {
    const { sha256, reply } = await shopper.do("upload", { host: store.ipv4, port: SINK_PORT, bytes: MIB });
    return { ok: reply === `${MIB} ${sha256}`, detail: `answered after our end: ${reply.slice(0, 24)}…` };
  });
  await checks.check("64 MiB arrive unchanged, up and down", async () => {
    const bytes = 64 * MIB;
    const up = await shopper.do("upload", { host: store.ipv4, port: SINK_PORT, bytes });
    const down = await shopper.do("download", { host: store.ipv4, port: SOURCE_PORT, bytes });
    const { lastSha256 } = await store.probe.do("served", { port: SOURCE_PORT });
    const ok = up.reply === `${bytes} ${up.sha256}` && down.sha256 === lastSha256 && down.bytes === bytes;
    return { ok, detail: `up in ${Math.round(up.ms)} ms, down in ${Math.round(down.ms)} ms, digests equal: ${ok}` };
  });
  await checks.check("a destination that the mesh does not know is reached as it is", async () => {
    const host = shop.mesh.network.nodes["node-a"].controlIp;
    const { reply } = await shopper.do("line", { host, port: WORLD_PORT, text: "hello" });
    return { ok: reply === `YOU ${stage.pod("shopper").ipv4} hello`, detail: reply };
  });
  await checks.check("a service address leads to its pod", async () => {
    const url = `http://${SERVICE.catalogue}/`;
    const { status, body } = await shopper.do("request", { url });
    const caller = (JSON.parse(body) as { caller: string }).caller;
    return { ok: status === 200 && caller === stage.pod("shopper").ipv4, detail: `${url} from ${caller}` };
  });
}
