import { assert } from "@std/assert";
import { ambit, assertRights, forgetCalls, seconds, untilNodesAsBefore, untilRunning } from "./installation.ts";
import { meansAsked, writeKustomization } from "./means.ts";
import { clusterTest, report } from "./rig.ts";

const READY_SECONDS = 120;

// What `--redirection` asks for is in the first installation: that one stays.
if (meansAsked() === undefined) {
  clusterTest("rights: nothing was refused until here (CNI-055)", {}, assertRights);

  clusterTest(
    "install: kubectl delete -k leaves both nodes as they were (CNI-046, CNI-047)",
    {},
    async (cluster) => {
      const startedAt = performance.now(), folder = await writeKustomization(cluster, "auto");
      await cluster.kubectl(["delete", "-k", folder, "--wait", "--timeout=120s"]);
      report(`gone ${seconds(startedAt)} after kubectl delete`);
      await untilNodesAsBefore(cluster);
      await forgetCalls(cluster);
    },
  );

  clusterTest("install: ambit install, and the same parts are ready (CNI-030, CNI-052)", {}, async (cluster) => {
    const startedAt = performance.now();
    const said = await ambit("install", "--wait", `${READY_SECONDS}s`);
    assert(said.includes("the mesh is installed"), said);
    await untilRunning(cluster, startedAt);
  });
}
