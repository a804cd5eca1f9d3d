/** Dedicated mode beside a ztunnel of another make: both read one local file, and tell an application the same of its caller. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { APP_PORT, localYaml, Rig } from "../e2e/dedicated_rig.ts";

const PEER = Deno.env.get("AMBIT_PEER_ZTUNNEL");
const OPTIONS = { ignore: PEER === undefined };

Deno.test(
  "both makes serve a mesh from the same local file, either way (ZT-001, ZT-145, ZT-146)",
  OPTIONS,
  async () => {
    await using rig = new Rig();
    await rig.start();
    await rig.pods.server.probe.do("listen", { port: APP_PORT, kind: "line" });
    const policies = `[{ name: only-client, namespace: shop, scope: Namespace, action: Allow, dryRun: false,
    rules: [[[{ principals: [!Exact cluster.local/ns/shop/sa/client] }]]] }]`;
    const environment = { XDS_ADDRESS: "", LOCAL_XDS: localYaml(rig, { policies }) };
    for (const [clientPath, serverPath] of [[undefined, PEER], [PEER, undefined]]) {
      await using client = rig.ztunnel("client", environment, clientPath);
      await using server = rig.ztunnel("server", environment, serverPath);
      await Promise.all([rig.ready("client", client), rig.ready("server", server)]);
      const text = `client ${clientPath === undefined ? "ours" : "theirs"}`;
      assertStringIncludes(await rig.say(text), text);
    }
  },
);

Deno.test("both makes write the same PROXY header, over both families (ZT-095, ZT-097)", OPTIONS, async () => {
  await using rig = new Rig();
  await rig.start();
  await using _application = await rig.proxyApplication(9100);
  const server = ", applicationTunnel: { protocol: PROXY, port: 9100 } ";
  const environment = { XDS_ADDRESS: "", LOCAL_XDS: localYaml(rig, { server }) };
  const heard: string[][] = [];
  for (const path of [undefined, PEER]) {
    await using client = rig.ztunnel("client", environment);
    await using server = rig.ztunnel("server", environment, path);
    await Promise.all([rig.ready("client", client), rig.ready("server", server)]);
    const replies: string[] = [];
    for (const [family, portAt] of [["ipv4", 24], ["ipv6", 48]] as const) {
      const host = rig.pods.server.place[family];
      const { reply } = await rig.pods.client.probe.do("line", { host, port: APP_PORT, text: "hello" });
      const [from, header] = reply.split(" ") as [string, string];
      // The source's port is whichever the client's ztunnel was given.
      replies.push(`${from} ${header.slice(0, 2 * portAt)}____${header.slice(2 * portAt + 4)}`);
    }
    heard.push(replies);
  }
  assertEquals(heard[0], heard[1]);
});
