/** Our CA client when the roots change: a file of its own, since a channel that fails keeps a timer after it was closed (docs/flakes.md). */
import { Logger } from "../../base/log.ts";
import { CaClient } from "../../dataplane/agent/ca_client.ts";
import { ControlRig } from "./control_rig.ts";

const PROXY = "spiffe://cluster.local/ns/istio-system/sa/ztunnel";

Deno.test("CaClient follows the root file, and keeps its channel while the new roots do not work (ZT-159)", {
  sanitizeOps: false, // A gRPC channel that failed keeps a back-off timer for a while after it was closed.
  sanitizeResources: false,
}, async () => {
  await using rig = await ControlRig.start();
  await using other = await ControlRig.start();
  const client = new CaClient({
    endpoint: rig.endpoint(await rig.token()),
    ttlMs: 3_600_000,
    impersonate: false,
    now: Date.now,
    log: new Logger("client", { sink: () => {} }),
  });
  await client.fetch(PROXY);
  const ownRoots = await Deno.readTextFile(`${rig.stateDir}/root.pem`);
  await Deno.copyFile(`${other.stateDir}/root.pem`, `${rig.stateDir}/root.pem`);
  await client.fetch(PROXY);
  await Deno.writeTextFile(`${rig.stateDir}/root.pem`, `${ownRoots}\n${other.authority.material.rootsPem}`);
  await client.fetch(PROXY);
  client.close();
});
