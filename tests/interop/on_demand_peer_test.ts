/**
 * On-demand configuration with a ztunnel of another make: its requests to our istiod, and traffic between the two
 * (ZT-127, CP-405, CP-419, CP-420). Needs root and AMBIT_PEER_ZTUNNEL; without the variable it is shown as ignored.
 */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { until } from "../../demo/lab/until.ts";
import { APP_PORT } from "./dataplane_app.ts";
import { OPTIONS, type RigNode } from "./dataplane_node.ts";
import { bothWays, Rig } from "./dataplane_rig.ts";

const SERVICE = (name: string, vip: string, selector: string) =>
  `apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: shop }
spec:
  clusterIPs: [${vip}]
  selector: { app: ${selector} }
  ports: [{ name: http, port: 80, targetPort: web }]
`;

const known = async (node: RigNode) => (await node.dump()).workloads.map(({ name }) => name).sort();

Deno.test("both ztunnels ask our istiod for what they connect to, and exchange traffic", OPTIONS, async (t) => {
  await using rig = await Rig.start({ key: "demand", environment: { XDS_ON_DEMAND: "true" } });
  rig.writeConfig(
    "services",
    `${SERVICE("to-ours", "10.96.5.1", "ours")}---\n${SERVICE("to-theirs", "10.96.5.2", "theirs")}`,
  );
  const ours = await rig.pod("ours", "node-a", { seenBy: [rig.ours] });
  const theirs = await rig.pod("theirs", "node-b", { seenBy: [rig.theirs] });

  await t.step("each knows its own node's pods and nothing else", async () => {
    assertEquals([await known(rig.ours), await known(rig.theirs)], [["ours"], ["theirs"]]);
  });

  for (const { name, from, to } of bothWays(ours, theirs)) {
    await t.step(`${name}: to a pod, to a service, and again`, async () => {
      const vip = to === ours ? "10.96.5.1" : "10.96.5.2";
      for (const url of [`http://${to.ip}:${APP_PORT.http}/pod`, `http://${vip}/service`, `http://${vip}/again`]) {
        const { status, body } = await from.do("http", { url });
        assertEquals([status, body.startsWith(`${to.name} heard ${from.ip}`)], [200, true], body);
      }
      assertEquals(await known(from.node), ["ours", "theirs"]);
      const line = await from.node.ztunnel.line(
        "an access record",
        (it) => it.includes("connection complete") && it.includes(`dst.identity="${to.identity}"`),
      );
      assertStringIncludes(line, `src.identity="${from.identity}"`);
    });
  }

  await t.step("what was asked for in vain is told of when it is made (CP-420)", async () => {
    for (const { from } of bothWays(ours, theirs)) {
      await from.do("http", { url: "http://10.80.1.250:1/" }).catch(() => {}); // Nobody: asked for, and passed through.
    }
    const late = await rig.pod("late", "node-b", { seenBy: [rig.theirs] });
    const { body } = await ours.do("http", { url: `http://${late.ip}:${APP_PORT.http}/late` });
    assertStringIncludes(body, `late heard ${ours.ip}`);
  });

  await t.step("neither stream broke, and nothing was refused", async () => {
    await until("istiod is asked", 60_000, () => true);
    assertEquals(rig.istiod.tail().includes("response refused by the client"), false);
    for (const node of [rig.ours, rig.theirs]) {
      const metrics = await node.metrics();
      assertEquals(/istio_xds_connection_terminations_total\{[^}]*\} [1-9]/.test(metrics), false, metrics);
    }
  });
});
