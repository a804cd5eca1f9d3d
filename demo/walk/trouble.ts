/** Chapters: a slip of the pen in the configuration, and a proxy that dies. */
import { until } from "../lab/until.ts";
import { SHOP_PORT } from "../shop.ts";
import type { Chapter } from "./stage.ts";

const RECOVERY_MS = 120_000; // A check says how long it took.
const LOCAL_PORT = 7005;
const NOT_SERVED_MS = 1_000; // Who comes while a ztunnel is away waits for the next one.

export const BAD_YAML: Chapter = {
  title: "A slip of the pen",
  story: "A policy that is in force is overwritten by one with a mistake. It is refused with file and line, and what " +
    "was in force stays: a typing error opens no door.",
  async run(stage) {
    const { shop, checks, tell } = stage;
    stage.apply("deny-principal", "deny-shopper");
    await stage.becomes(false, "shopper");
    await tell("The file is overwritten; line 9 says `form` for `from`.");
    const since = shop.mesh.istiod.lineCount;
    stage.apply("deny-broken", "deny-shopper");
    await checks.check("bad YAML is refused with its file and line", async () => {
      const line = await shop.mesh.istiod.line(
        "a refusal",
        (it) => it.includes("document refused") && it.includes("deny-shopper.yaml"),
        60_000,
        since,
      );
      const facts = line.split("\t").at(-1)!;
      return { ok: /\bline=9\b/.test(facts) && facts.includes("previousKept=true"), detail: facts };
    });
    await checks.check("the last good state stays in force", async () => {
      const [shopper, frontend] = [await stage.askStore("shopper"), await stage.askStore("frontend")];
      return {
        ok: "failure" in shopper && "answer" in frontend,
        detail: `shopper: ${JSON.stringify(shopper)}, frontend: ${JSON.stringify(frontend)}`,
      };
    });
    stage.withdraw("deny-shopper");
    await stage.becomes(true, "shopper");
  },
};

export const CRASH: Chapter = {
  title: "A proxy dies",
  story:
    "ztunnel of node B is killed with -9. While it is away who comes to its pods waits, and is never served in plaintext; " +
    "the other node notices nothing; the next one finds them waiting.",
  async run(stage) {
    const { shop, checks, tell } = stage;
    const nodeA = shop.mesh.nodes["node-a"], nodeB = shop.mesh.nodes["node-b"];
    const courier = stage.pod("courier").probe, frontend = stage.pod("frontend");
    await frontend.probe.do("listen", { port: LOCAL_PORT, kind: "line" });
    const local = await courier.do("open", { host: frontend.ipv4, port: LOCAL_PORT });
    await courier.do("say", { ...local, text: "before" });
    const processA = nodeA.ztunnel.pid, processB = nodeB.ztunnel.pid;
    await shop.wiretap.clear();
    await tell(`kill -9 ${processB}`);
    await nodeB.crashZtunnel();
    await checks.check("while its ztunnel is away, a pod is not served, and not in plaintext", async () => {
      const reply = await stage.askStore("shopper", { timeoutMs: NOT_SERVED_MS });
      const markers = (await shop.wiretap.seen()).reduce((sum, it) => sum + it.markers, 0);
      return {
        ok: "failure" in reply && markers === 0,
        detail: `${JSON.stringify(reply)}, read on the wire: ${markers}`,
      };
    });
    await checks.check("the other node is undisturbed", async () => {
      const { reply } = await courier.do("say", { ...local, text: "after" });
      const same = nodeA.ztunnel.pid === processA && !nodeA.ztunnel.ended;
      return { ok: same && reply.endsWith("after"), detail: `its open connection answers: ${reply}` };
    });
    await tell("The next ztunnel starts.");
    const startedAtMs = performance.now();
    nodeB.restartZtunnel();
    await checks.check("traffic recovers after the restart", async () => {
      await until("the store answers", RECOVERY_MS, () => stage.admitted("shopper"));
      const storeMs = Math.round(performance.now() - startedAtMs);
      const before = shop.reportCount;
      await until("the customer is served again", RECOVERY_MS, () => {
        const report = shop.reports.at(-1);
        return shop.reportCount > before + 1 && report?.targets.every((it) => it.failed === 0 && it.succeeded > 0);
      });
      return { ok: true, detail: `answered ${storeMs} ms after the new process was started` };
    });
    await courier.do("close", local);
    await checks.check("nothing was read on the wire meanwhile", async () => {
      const seen = await shop.wiretap.seen();
      const plain = seen.filter((it) =>
        [it.sourcePort, it.destinationPort].some((port) => port === SHOP_PORT.store || port === SHOP_PORT.http)
      );
      const markers = seen.reduce((sum, it) => sum + it.markers, 0);
      return { ok: markers === 0, detail: `${plain.length} directions with the shop's own ports, none with its words` };
    });
  },
};
