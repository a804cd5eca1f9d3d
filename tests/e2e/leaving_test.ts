/** Pods that leave the mesh in the middle of their connections: what was under its protection stays so to the end. */
import { assert, assertEquals } from "@std/assert";
import { WIRE } from "../../demo/lab/network.ts";
import { PATTERN_MARKER } from "../../demo/lab/pattern.ts";
import { isHbone, Wiretap } from "../../demo/lab/wiretap.ts";
import { meshTest, type Pod, until } from "./mesh.ts";

const PORT = 7000, LANES = 4, ROUNDS = 3;

for (const leaving of ["client", "server"] as const) {
  meshTest(
    `a ${leaving} that leaves in the middle of its connections: nothing of them is seen in clear`,
    async (rig) => {
      const { mesh, client, server } = rig, pod: Pod = rig[leaving];
      await using wiretap = new Wiretap(mesh.network.nodes["node-a"].netns, WIRE, PATTERN_MARKER);
      await server.probe.do("listenPattern", { port: PORT });
      for (let round = 0; round < ROUNDS; round++) {
        if (round > 0) {
          mesh.describePod(pod, true);
          await pod.enrol();
        }
        const before = (await server.probe.do("patternTallies", {})).server.bytes;
        await client.probe.do("startPattern", {
          targets: [server.ipv4, server.ipv6].map((host) => ({ host, port: PORT })),
          lanes: LANES,
          seed: round,
          pauseMs: 1,
          bulkBytesMax: 4_000_000_000,
          longMs: 1_000,
          kinds: ["bulk"],
        });
        await until("bytes flow", 60_000, async () => {
          const { server: tally } = await server.probe.do("patternTallies", {});
          return tally.open === LANES && tally.bytes > before + 10_000_000;
        });
        const resting = client.probe.do("stopPattern", {}); // No further connections: those would be in the clear by right.
        await client.probe.do("patternTallies", {});
        await pod.unenrol();
        await resting;
        await until(
          "the server's ends",
          60_000,
          async () => (await server.probe.do("patternTallies", {})).server.open === 0,
        );
        const seen = await wiretap.seen();
        assert(
          seen.some((it) => isHbone(it) && it.bytes > 10_000_000),
          "the listener on the wire did listen",
        );
        assertEquals(seen.filter((it) => it.markers > 0 || (!isHbone(it) && it.bytes > 0)), [], `round ${round}`);
      }
    },
  );
}
