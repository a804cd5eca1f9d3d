/** Chapter: who may talk to the store, decided by YAML while connections are open. */
import { SHOP_PORT } from "../shop.ts";
import type { PodName } from "../shop.ts";
import type { Chapter, Stage } from "./stage.ts";

const CUT_TIMEOUT_MS = 60_000; // A check says how long it took: a fifth of a second, where nothing else runs.

export const POLICIES: Chapter = {
  title: "Policies, in force within the second",
  story: "Authorization policies are dropped into istiod's folder. What they refuse ends, also where it is open " +
    "already; everybody else notices nothing.",
  async run(stage) {
    await openConnections(stage);
    await denies(stage);
    await allows(stage);
  },
};

async function openConnections(stage: Stage): Promise<void> {
  const { checks, tell } = stage;
  const store = stage.pod("store"), target = { host: store.ipv4, port: SHOP_PORT.store };
  const shopper = stage.pod("shopper").probe, frontend = stage.pod("frontend").probe;
  await tell("Shopper and front end each hold a connection to the store open. Then: DENY for the shopper.");
  const [cut, kept] = await Promise.all([shopper.do("open", target), frontend.do("open", target)]);
  await Promise.all([shopper.do("say", { ...cut, text: "WHO" }), frontend.do("say", { ...kept, text: "WHO" })]);
  const end = shopper.do("ended", { ...cut, timeoutMs: CUT_TIMEOUT_MS });
  const appliedAtMs = Date.now();
  stage.apply("deny-principal");
  await checks.check("an open connection is cut by a DENY", async () => {
    const { ending, atMs } = await end;
    return { ok: ending !== "open", detail: `${ending} after ${atMs - appliedAtMs} ms` };
  });
  await checks.check("other open connections stay", async () => {
    const { reply } = await frontend.do("say", { ...kept, text: "WHO" });
    return { ok: reply.includes(`YOU ${stage.pod("frontend").ipv4}`), detail: reply };
  });
  await Promise.all([shopper.do("close", cut), frontend.do("close", kept)]);
  await refuses(stage, "DENY by principal refuses that identity and no other", "deny-principal", {
    refused: "shopper",
    admitted: "frontend",
  });
}

async function denies(stage: Stage): Promise<void> {
  const { checks, tell } = stage;
  await tell("DENY for everybody of the namespace warehouse, where the courier is.");
  stage.apply("deny-namespace");
  await refuses(stage, "DENY by namespace refuses its pods and no others", "deny-namespace", {
    refused: "courier",
    admitted: "shopper",
  });
  await tell("DENY for a block of addresses, which is the front end's.");
  stage.apply("deny-address");
  await refuses(stage, "DENY by address block refuses it and no other", "deny-address", {
    refused: "frontend",
    admitted: "shopper",
  });
  await tell("DENY for one port of the store's pod.");
  const otherPort = 7004;
  await stage.pod("store").probe.do("listen", { port: otherPort, kind: "line" });
  stage.apply("deny-port");
  await checks.check("DENY by port refuses that port and no other", async () => {
    const tookMs = await stage.becomes(false, "shopper");
    const other = await stage.askStore("shopper", { port: otherPort });
    return { ok: "answer" in other, detail: `refused after ${tookMs} ms; port ${otherPort}: ${JSON.stringify(other)}` };
  });
  stage.withdraw("deny-port");
  await stage.becomes(true, "shopper");
}

async function allows(stage: Stage): Promise<void> {
  await stage.tell("ALLOW for the front end alone.");
  stage.apply("allow-frontend");
  await refuses(stage, "an ALLOW policy admits only whom it names", "allow-frontend", {
    refused: "shopper",
    admitted: "frontend",
  });
}

/** The policy is applied already; afterwards it is withdrawn, and the refused one admitted again. */
async function refuses(
  stage: Stage,
  name: string,
  step: string,
  { refused, admitted }: { refused: PodName; admitted: PodName },
): Promise<void> {
  await stage.checks.check(name, async () => {
    const tookMs = await stage.becomes(false, refused);
    const other = await stage.askStore(admitted);
    const detail = `${refused} refused after ${tookMs} ms; ${admitted}: ${JSON.stringify(other)}`;
    return { ok: "answer" in other, detail };
  });
  stage.withdraw(step);
  await stage.becomes(true, refused);
}
