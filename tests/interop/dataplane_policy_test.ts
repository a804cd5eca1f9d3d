/** Policies of our istiod, enforced by our ztunnel and by one of another make, each against the other. */
import { assertEquals } from "@std/assert";
import { APP_PORT } from "./dataplane_app.ts";
import { OPTIONS } from "./dataplane_node.ts";
import { bothWays, Rig } from "./dataplane_rig.ts";

const rules = (account: string) =>
  `rules: [{ from: [{ source: { principals: [cluster.local/ns/shop/sa/${account}] } }] }]`;
const selector = (to: string | undefined) => to === undefined ? "" : `selector: { matchLabels: { app: ${to} } }, `;
const deny = (from: string, to?: string) => `{ ${selector(to)}action: DENY, ${rules(from)} }`;
const allowNobody = (to: string) => `{ ${selector(to)}action: ALLOW, ${rules("nobody")} }`;
/** What istiod makes of it for ztunnels (CP-350). */
const STRICT_POLICY = "istio_converted_static_strict";
const STRICT = `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: shop }
spec: { mtls: { mode: STRICT } }
`;

Deno.test("policies hold between our ztunnel and one of another make, whichever enforces", OPTIONS, async (t) => {
  await using rig = await Rig.start({ key: "policy" });
  const ours = await rig.pod("ours", "node-a"), theirs = await rig.pod("theirs", "node-b");

  for (const { name, from, to } of bothWays(ours, theirs)) {
    const echo = { host: to.ip, port: APP_PORT.echo };
    const logged = (line: string, ...parts: string[]) => parts.every((part) => line.includes(part));

    // Of the whole namespace: the other ztunnel judges an open connection by those policies that its workload named when
    // the connection began, so that one with a selector cuts nothing there, whatever istiod sends.
    await t.step(`${name}: a new DENY cuts an open connection (ZT-120)`, async () => {
      const held = await from.do("hold", { ...echo, count: 1 });
      assertEquals(held.failures, []);
      const since = to.node.ztunnel.lineCount;
      await rig.policy("no-callers", deny(from.name), "namespace");
      const { ending } = await from.do("ended", { handle: held.handles[0]!, timeoutMs: 60_000 });
      assertEquals(ending, "eof");
      await from.do("release", { handles: held.handles });
      await to.node.ztunnel.line(
        "the cut connection",
        (line) => logged(line, 'direction="inbound"', "connection closed due to policy change", from.identity),
        60_000,
        since,
      );
      await from.node.ztunnel.line(
        "its other half",
        (line) => logged(line, "connection complete", 'direction="outbound"', `dst.identity="${to.identity}"`),
        5_000,
      );
      await rig.removePolicy("no-callers");
    });

    await t.step(`${name}: DENY is answered by 401, and both say why (ZT-059, ZT-060, ZT-107)`, async () => {
      await rig.policy("no-callers", deny(from.name, to.name));
      const since = [to.node.ztunnel.lineCount, from.node.ztunnel.lineCount];
      const refused = await from.do("refused", echo);
      assertEquals(refused.bytes, 0);
      await to.node.ztunnel.line(
        "the denied connection",
        (line) => logged(line, "connection closed due to policy rejection: explicitly denied by: shop/no-callers"),
        5_000,
        since[0],
      );
      await from.node.ztunnel.line(
        "the refusal",
        (line) => logged(line, "http status: 401 Unauthorized", `dst.identity="${to.identity}"`),
        5_000,
        since[1],
      );
      await rig.removePolicy("no-callers");
      await from.do("echo", { ...echo, text: "again" });
    });

    await t.step(`${name}: ALLOW for others lets nobody else in`, async () => {
      await rig.policy("nobody", allowNobody(to.name));
      const since = to.node.ztunnel.lineCount;
      assertEquals((await from.do("refused", echo)).bytes, 0);
      await to.node.ztunnel.line(
        "the denied connection",
        (line) => logged(line, "policy rejection: allow policies exist, but none allowed"),
        60_000,
        since,
      );
      await rig.removePolicy("nobody");
      await from.do("echo", { ...echo, text: "again" });
    });
  }

  await t.step("theirs to ours: a new DENY with a selector cuts an open connection, too", async () => {
    const { handles, failures } = await theirs.do("hold", { host: ours.ip, port: APP_PORT.echo, count: 1 });
    assertEquals(failures, []);
    await rig.policy("no-callers", deny(theirs.name, ours.name));
    assertEquals(await theirs.do("ended", { handle: handles[0]!, timeoutMs: 60_000 }), { ending: "eof" });
    await rig.removePolicy("no-callers");
  });

  await t.step("STRICT: plaintext is refused by both, mutual TLS goes on", async () => {
    const outsider = await rig.pod("outsider", "node-a", { enrolled: false });
    for (const { to } of bothWays(ours, theirs)) {
      await outsider.do("echo", { host: to.ip, port: APP_PORT.echo, text: "plain" });
    }
    rig.writeConfig("strict", STRICT);
    await rig.seen("STRICT", ({ workloads }) => {
      const strict = workloads.filter((it) => it.authorizationPolicies?.includes(`istio-system/${STRICT_POLICY}`));
      return strict.length >= 2;
    });
    for (const { from, to } of bothWays(ours, theirs)) {
      const since = to.node.ztunnel.lineCount, echo = { host: to.ip, port: APP_PORT.echo };
      const refused = await outsider.do("refused", echo);
      assertEquals(refused.bytes, 0);
      await to.node.ztunnel.line(
        "the denied connection",
        (line) => line.includes(`explicitly denied by: istio-system/${STRICT_POLICY}`),
        60_000,
        since,
      );
      await from.do("echo", { ...echo, text: "by mutual TLS" });
    }
  });
});
