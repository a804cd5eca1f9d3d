/** Our istiod and Istio's (AMBIT_PEER_ISTIOD) in one namespace: by the same locks one of them writes, and they take turns. */
import { assert, assertEquals } from "@std/assert";
import { parseControlOptions } from "../../bench/control/options.ts";
import { choosePeers } from "../../bench/control/peers.ts";
import { Cleanup } from "../../bench/macro/cleanup.ts";
import { type ApiServer, startApiServer } from "./api_server.ts";
import { installManifests, Istiod, SYSTEM } from "./istiod.ts";
import { namespace } from "./objects.ts";
import { until } from "./until.ts";

const PROGRAM = Deno.env.get("AMBIT_PEER_ISTIOD"), WITHIN_MS = 120_000;
const OURS = "istiod-1", THEIRS = "istiod-bench";

interface Held {
  readonly holder: string;
  readonly renewedAt: string;
}

/** Of a lock that is a Lease, and of one that is a ConfigMap. */
async function locks(server: ApiServer): Promise<readonly Held[]> {
  const read = async (...args: readonly string[]) =>
    JSON.parse(await server.kubectl(["get", ...args, "-n", SYSTEM, "-o", "json"]));
  const { spec } = await read("lease", "istio-status-leader"), map = await read("configmap", "istio-ip-autoallocate");
  const record = JSON.parse(map.metadata.annotations["control-plane.alpha.kubernetes.io/leader"]);
  return [spec, record].map((it) => ({ holder: it.holderIdentity, renewedAt: it.renewTime }));
}

async function untilHeldBy(server: ApiServer, holder: string): Promise<void> {
  await until(async () => (await locks(server)).every((it) => it.holder === holder), `${holder} leads`, WITHIN_MS);
}

/** The holder renews both locks twice more: time enough for another to have tried for them. */
async function staysWith(server: ApiServer, holder: string): Promise<void> {
  for (let times = 0; times < 2; times++) {
    const before = await locks(server);
    const renewed = async () => {
      const now = await locks(server);
      assertEquals(now.map((it) => it.holder), [holder, holder]);
      return now.every((it, at) => it.renewedAt !== before[at]!.renewedAt);
    };
    await until(renewed, `${holder} renews`, WITHIN_MS);
  }
}

async function addressesOf(server: ApiServer, name: string): Promise<string> {
  return await server.kubectl([
    "get",
    "serviceentry",
    name,
    "-n",
    "shop",
    "-o",
    "jsonpath={.status.addresses[*].value}",
  ]);
}

async function entry(server: ApiServer, name: string): Promise<string> {
  const spec = { hosts: [`${name}.test`], ports: [{ number: 80, name: "http", protocol: "HTTP" }], resolution: "DNS" };
  const metadata = { name, namespace: "shop" };
  await server.apply({ apiVersion: "networking.istio.io/v1", kind: "ServiceEntry", metadata, spec });
  await until(async () => await addressesOf(server, name) !== "", `${name} has addresses`, WITHIN_MS);
  return await addressesOf(server, name);
}

Deno.test({
  name: "our istiod and Istio's take turns at the locks, and keep the addresses that the other gave (CP-240, CP-650)",
  ignore: PROGRAM === undefined,
  async fn() {
    await using server = await startApiServer({ definitions: ["istio", "gateway"] });
    await installManifests(server);
    await server.apply(namespace("shop"));
    const folder = await Deno.makeTempDir({ prefix: "istiod-peer-" }), cleanup = new Cleanup();
    try {
      const first = await Istiod.start(server, OURS);
      await until(
        async () => (await first.page("/debug/leaderz")).text.includes('"leading":true'),
        "it leads",
        WITHIN_MS,
      );
      assertEquals(await entry(server, "first"), "240.240.0.1 2001:2::1");
      await untilHeldBy(server, OURS);
      const [peer] = choosePeers(parseControlOptions([`--peer=istiod=${PROGRAM}`, "--only=istiod"]));
      const theirs = await peer!.start({ server, folder, cleanup });
      await staysWith(server, OURS);

      await first[Symbol.asyncDispose]();
      await untilHeldBy(server, THEIRS);
      assertEquals(await entry(server, "second"), "240.240.0.2 2001:2::2");

      await using second = await Istiod.start(server, "istiod-2");
      await staysWith(server, THEIRS);
      const leaders = JSON.parse((await second.page("/debug/leaderz")).text) as { lock: string; holder: string }[];
      assertEquals(leaders.find(({ lock }) => lock === "istio-status-leader")?.holder, THEIRS);
      await theirs.stop();
      await untilHeldBy(server, "istiod-2");
      assertEquals(await entry(server, "third"), "240.240.0.3 2001:2::3");
      assert((await addressesOf(server, "second")).startsWith("240.240.0.2 "));
    } finally {
      cleanup.run();
      await Deno.remove(folder, { recursive: true });
    }
  },
});
