/** Revocation lists of one file, read by our ztunnel and by one of another make: both cut and refuse the same. */
import { assert, assertEquals } from "@std/assert";
import { Issuer } from "../../demo/lab/certificates.ts";
import { parseMetrics, sumOf } from "../../demo/lab/metrics.ts";
import { until } from "../../demo/lab/until.ts";
import { APP_PORT } from "./dataplane_app.ts";
import { OPTIONS, type RigNode } from "./dataplane_node.ts";
import { bothWays, Rig, type RigPod, type Way } from "./dataplane_rig.ts";

const CUT_TIMEOUT_MS = 60_000;

const rejections = async (node: RigNode) => {
  const samples = parseMetrics(await node.metrics());
  return ["source", "destination"].map((reporter) => sumOf(samples, "istio_crl_policy_rejections_total", { reporter }));
};

async function reaches({ from, to }: Way): Promise<boolean> {
  try {
    await from.do("echo", { host: to.ip, port: APP_PORT.echo, text: "hello" });
    return true;
  } catch (error) {
    assert(error instanceof Error);
    return false;
  }
}

Deno.test(
  "a ztunnel of another make and ours cut and refuse alike what a list names (ZT-087, ZT-088, ZT-089)",
  OPTIONS,
  async (t) => {
    const folder = Deno.makeTempDirSync({ prefix: "ambit-interop-crl-" }), path = `${folder}/crl.pem`;
    try {
      await using rig = await Rig.start({ key: "revocation", environment: { CRL_PATH: path } });
      const ours = await rig.pod("ours", "node-a"), theirs = await rig.pod("theirs", "node-b");
      const ways = bothWays(ours, theirs), issuer = await Issuer.ofMesh(`${rig.folder}/state`);
      const serialOf = (pod: RigPod) =>
        until(`the certificate of ${pod.name}`, CUT_TIMEOUT_MS, async () => {
          const { certificates } = await pod.node.dump();
          const decimal = certificates.find((it) => it.identity === pod.identity)?.certChain[0]?.serialNumber;
          if (decimal === undefined) return undefined;
          const hex = BigInt(decimal).toString(16);
          return hex.padStart(hex.length + hex.length % 2, "0");
        });
      const list = async (...serials: string[]) => {
        Deno.writeTextFileSync(`${folder}/.new`, await issuer.revoke(["7f010203", ...serials]));
        Deno.renameSync(`${folder}/.new`, path);
      };
      await list();
      for (const way of ways) await until(`${way.name} works`, CUT_TIMEOUT_MS, () => reaches(way));

      // Who is named by the list, and who therefore refuses it, in both directions.
      for (const [named, judge] of [[theirs, rig.ours], [ours, rig.theirs]] as const) {
        await t.step(`${named.name} is named: ${judge.ztunnel.name} cuts and refuses`, async () => {
          const held = await Promise.all(
            ways.map(({ from, to }) => from.do("hold", { host: to.ip, port: APP_PORT.echo, count: 2 })),
          );
          assertEquals(held.map(({ ok }) => ok), [2, 2]);
          const before = await rejections(judge);
          await list(await serialOf(named));
          for (const [at, { name, from }] of ways.entries()) {
            await until(
              `${name}: what is open is cut`,
              CUT_TIMEOUT_MS,
              async () => (await from.do("say", { handles: held[at]!.handles, text: "still here" })).ok === 0,
            );
          }
          await until(`both sessions are counted`, CUT_TIMEOUT_MS, async () => {
            const now = await rejections(judge);
            return now[0]! > before[0]! && now[1]! > before[1]!;
          });
          for (const way of ways) {
            assertEquals(await reaches(way), false, `${way.name} is refused`);
          }
          await list();
          for (const way of ways) await until(`${way.name} works again`, CUT_TIMEOUT_MS, () => reaches(way));
        });
      }
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
  },
);
