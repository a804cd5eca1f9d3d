/**
 * Our data path, node agent and istiod with a ztunnel of another make on the other node. Needs root and
 * AMBIT_PEER_ZTUNNEL, the path of its program; without the variable the tests are shown as ignored.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { parseMetrics } from "../../demo/lab/metrics.ts";
import { WIRE } from "../../demo/lab/network.ts";
import { TLS_1_3 } from "../../demo/lab/tls_records.ts";
import { isHbone, Wiretap } from "../../demo/lab/wiretap.ts";
import { until } from "../../demo/lab/until.ts";
import { APP_PORT, SLOW_READER_MS } from "./dataplane_app.ts";
import { OPTIONS, type RigNode } from "./dataplane_node.ts";
import { bothWays, hearing, Rig, type RigPod } from "./dataplane_rig.ts";

const MEBIBYTE = 1_048_576;

/** What every reader of the wire would find if it were not encrypted. */
const MARKER = "in-the-clear-7f3a";
const HBONE_PORT = 15008;

/** Names of the fields of a log line. */
function fieldsOf(line: string): string[] {
  return [...line.matchAll(/([\w.]+)=(?:"(?:[^"\\]|\\.)*"|\S+)/g)].map((match) => match[1]!);
}

const SERVICES = `apiVersion: v1
kind: Service
metadata: { name: everyone, namespace: shop }
spec:
  clusterIPs: [10.96.5.1, "fd96::1"]
  ipFamilies: [IPv4, IPv6]
  selector: { mesh: both }
  ports: [{ name: http, port: 80, targetPort: web }]
`;

Deno.test("a ztunnel of another make exchanges traffic with ours in every manner", OPTIONS, async (t) => {
  await using rig = await Rig.start({ key: "traffic" });
  const keys: string[] = [];
  const ours = await rig.pod("ours", "node-a"), theirs = await rig.pod("theirs", "node-b");

  await t.step("on the wire there is TLS 1.3 on port 15008 and nothing to be read (ZT-079)", async () => {
    await using wiretap = new Wiretap(rig.network.nodes["node-a"].netns, WIRE, MARKER);
    for (const { from, to } of bothWays(ours, theirs)) {
      for (const [host, caller] of [[to.ip, from.ip], [`[${to.place.ipv6}]`, from.place.ipv6]]) {
        const { body } = await from.do("http", { url: `http://${host}:${APP_PORT.http}/${MARKER}` });
        assertEquals(body, `${to.name} heard ${caller} at /${MARKER}`);
      }
    }
    const answering = async () => (await wiretap.seen()).filter((it) => it.sourcePort === HBONE_PORT);
    await until(
      "all four handshakes were seen",
      60_000,
      async () => (await answering()).filter((it) => it.tls?.version === TLS_1_3).length === 4,
    );
    assertEquals((await answering()).length, 4);
    assertEquals((await wiretap.seen()).filter((it) => !isHbone(it) || it.markers > 0 || it.tls?.broken !== false), []);
  });

  for (const { name, from, to } of bothWays(ours, theirs)) {
    await t.step(`${name}: HTTP, over IPv4 and IPv6, with the source's address (ZT-054)`, async () => {
      assertEquals(await from.do("http", { url: `http://${to.ip}:${APP_PORT.http}/hello` }), {
        status: 200,
        body: `${to.name} heard ${from.ip} at /hello`,
      });
      assertEquals(await from.do("http", { url: `http://[${to.place.ipv6}]:${APP_PORT.http}/six` }), {
        status: 200,
        body: `${to.name} heard ${from.place.ipv6} at /six`,
      });
      assert(to.hboneSessions().inbound >= 2, "both went by HBONE");
    });

    await t.step(`${name}: the access logs of both sides name both identities (ZT-202)`, async () => {
      for (const [node, direction] of [[from.node, "outbound"], [to.node, "inbound"]] as const) {
        const line = await node.ztunnel.line(
          "an access record",
          (it) =>
            it.includes("connection complete") && it.includes(`direction="${direction}"`) &&
            it.includes(`src.identity="${from.identity}"`) && it.includes(`dst.identity="${to.identity}"`),
        );
        assertMatch(line, new RegExp(`src.workload="${from.name}" src.namespace="shop"`));
        assertMatch(line, /dst.hbone_addr="?[0-9a-f:.[\]]+:8080"?/);
        keys.push(`${direction} ${fieldsOf(line).join(" ")}`);
      }
    });

    await t.step(`${name}: 64 MiB up and down arrive unchanged`, async () => {
      const bytes = 64 * MEBIBYTE;
      const up = await from.do("upload", { host: to.ip, port: APP_PORT.sink, bytes });
      assertEquals(up.reply, `${bytes} ${up.sha256}`);
      const down = await hearing(
        to,
        APP_PORT.source,
        () => from.do("download", { host: to.ip, port: APP_PORT.source, bytes }),
      );
      assertEquals(down.result, { bytes, sha256: down.heard.sha256, ending: "eof" });
    });

    await t.step(`${name}: 64 uploads at once share sessions and arrive unchanged`, async () => {
      const bytes = 4 * MEBIBYTE;
      const upload = () => from.do("upload", { host: to.ip, port: APP_PORT.sink, bytes });
      for (const { sha256, reply } of await Promise.all(Array.from({ length: 64 }, upload))) {
        assertEquals(reply, `${bytes} ${sha256}`);
      }
    });

    await t.step(`${name}: 2,000 short connections, 64 at a time`, async () => {
      const burst = await from.do("burst", { host: to.ip, port: APP_PORT.echo, count: 2_000, parallel: 64 });
      assertEquals(burst, { done: 2_000, failures: [] });
    });

    await t.step(`${name}: each side may end its direction first (ZT-065)`, async () => {
      const { result, heard } = await hearing(
        to,
        APP_PORT.endsFirst,
        () => from.do("heardEndFirst", { host: to.ip, port: APP_PORT.endsFirst, bytes: MEBIBYTE }),
      );
      assertEquals({ text: result.text, ending: result.ending }, { text: "first\n", ending: "eof" });
      assertEquals([heard.bytes, heard.sha256, heard.ending], [MEBIBYTE, result.sha256, "eof"]);
      const up = await from.do("upload", { host: to.ip, port: APP_PORT.sink, bytes: MEBIBYTE });
      assertEquals(up.reply, `${MEBIBYTE} ${up.sha256}`); // Answered after the caller had ended its direction.
    });

    await t.step(`${name}: a reset by either side ends the other (ZT-066 to ZT-068)`, async () => {
      const { heard } = await hearing(to, APP_PORT.echo, () => from.do("abort", { host: to.ip, port: APP_PORT.echo }));
      assertEquals([heard.bytes, heard.ending], [1_000, "eof"]);
      const cut = await from.do("refused", { host: to.ip, port: APP_PORT.reset });
      assertEquals(cut, { ending: "eof", bytes: 0 });
    });

    await t.step(`${name}: a reader that sleeps gets everything`, async () => {
      const bytes = 32 * MEBIBYTE;
      const up = await from.do("upload", { host: to.ip, port: APP_PORT.slowSink, bytes });
      assertEquals(up.reply, `${bytes} ${up.sha256}`);
      const source = { host: to.ip, port: APP_PORT.source, bytes, idleMs: SLOW_READER_MS };
      const echo = { host: to.ip, port: APP_PORT.echo, count: 200, parallel: 4 };
      const { result, heard } = await hearing(to, APP_PORT.source, async () => {
        const slow = from.do("download", source);
        // What sleeps holds up nobody else in the same session.
        assertEquals(await from.do("burst", echo), { done: 200, failures: [] });
        return await slow;
      });
      assertEquals(result, { bytes, sha256: heard.sha256, ending: "eof" });
    });
    await t.step(`${name}: 450 connections at once are spread over sessions of 100 (ZT-071)`, async () => {
      const held = await from.do("hold", { host: to.ip, port: APP_PORT.echo, count: 450 });
      assertEquals([held.ok, held.failures], [450, []]);
      const { outbound } = from.hboneSessions();
      assert(outbound >= 5 && outbound <= 9, `${outbound} sessions carry 450 connections`);
      assertEquals(await from.do("say", { handles: held.handles, text: "all of us" }), { ok: 450, failures: [] });
      await from.do("release", { handles: held.handles });
    });
  }

  await t.step("access records of both have the same fields in the same order (ZT-202)", () => {
    for (const direction of ["inbound", "outbound"]) {
      const [one, other] = keys.filter((it) => it.startsWith(direction));
      assertEquals(one, other);
    }
  });

  await t.step("both count the same connections under the same labels (ZT-193, ZT-196)", async () => {
    const opened = async (node: RigNode, reporter: string, from: RigPod, to: RigPod) =>
      parseMetrics(await node.metrics()).filter(({ name, labels }) =>
        name === "istio_tcp_connections_opened_total" && labels.reporter === reporter &&
        labels.source_workload === from.name && labels.destination_workload === to.name
      ).map(({ labels }) => labels);
    for (const { from, to } of bothWays(ours, theirs)) {
      const source = await opened(from.node, "source", from, to);
      const destination = await opened(to.node, "destination", from, to);
      assert(source.length === 1 && destination.length === 1);
      assertEquals({ ...source[0], reporter: "destination" }, { ...destination[0] });
    }
  });

  await rig.pod("ours-2", "node-a");
  await rig.pod("theirs-2", "node-b");
  rig.writeConfig("service", SERVICES);
  await rig.seen(
    "the service's endpoints",
    ({ services }) => services.filter((it) => Object.keys(it.endpoints).length === 4).length === 1,
  );
  for (const [node, from] of [["ours", ours], ["theirs", theirs]] as const) {
    await t.step(
      `${node}: a service of four endpoints on both nodes, by a named port, over IPv4 and IPv6`,
      async () => {
        for (const host of ["10.96.5.1", "[fd96::1]"]) {
          const answered = new Set<string>();
          for (let count = 0; count < 60; count++) {
            const { status, body } = await from.do("http", { url: `http://${host}/` });
            assertEquals(status, 200);
            answered.add(body.split(" ")[0]!);
          }
          assertEquals([...answered].sort(), ["ours", "ours-2", "theirs", "theirs-2"]);
        }
      },
    );
  }
});
