/** Pods that come, talk, change who they are, and go: in order, abruptly, or by a crash. */
import { MeshError } from "../../../base/errors.ts";
import type { Pod } from "../../../demo/lab/mesh.ts";
import { NODE_NAMES, podAddresses } from "../../../demo/lab/network.ts";
import { until } from "../../../demo/lab/until.ts";
import { NAMESPACE, PATTERN_PORT, type Stage } from "../stage.ts";

const ADDRESSES_FROM = 10, ADDRESSES_EACH = 20; // few, so that they are used again soon, by others
const NOT_ENROLLED = "AMB7106";
const AGENT_WITHIN_MS = 20_000;
const ACCOUNTS = ["guest", "visitor", "stranger"] as const;

/** One guest after the other. `lane` tells parallel lines of guests apart. */
export async function guests(stage: Stage, lane: number): Promise<void> {
  for (let number = 0; await stage.calm(200, 2_000); number++) {
    const node = stage.chance.pick(NODE_NAMES);
    let guest = await stage.mesh.addPod({
      name: `guest-${lane}-${number}`,
      namespace: NAMESPACE,
      serviceAccount: stage.chance.pick(ACCOUNTS),
      node,
      addresses: podAddresses(node, ADDRESSES_FROM + lane * ADDRESSES_EACH + number % ADDRESSES_EACH),
      enrolled: false,
    });
    stage.mesh.describePod(guest, true);
    await stage.mesh.seen(
      `${guest.spec.name} as captured`,
      ({ workloads }) => workloads.some((it) => it.name === guest.spec.name && it.protocol === "HBONE"),
    );
    await patiently("joins the mesh", () => guest.enrol());
    stage.did("guests");
    await talk(stage, guest);
    await stage.calm(2_000, 10_000);
    if (stage.chance.often(40)) guest = await changeIdentity(stage, guest);
    await leave(stage, guest);
  }
}

async function talk(stage: Stage, guest: Pod): Promise<void> {
  await guest.probe.do("listenPattern", { port: PATTERN_PORT });
  await guest.probe.do("startPattern", {
    targets: stage.veteranTargets(),
    lanes: 2,
    seed: stage.chance.bits(),
    pauseMs: 50,
    bulkBytesMax: 2_000_000,
    longMs: 4_000,
  });
  await stage.welcome(guest, true);
}

/** The same namespace and address under another service account. Its old connections must not live on. */
async function changeIdentity(stage: Stage, guest: Pod): Promise<Pod> {
  await stage.welcome(guest, false);
  // What a pod sends that has left the mesh is in the clear by right, and none of this test.
  await examine(stage, guest);
  await guest.endProbe();
  await patiently("leaves the mesh", () => guest.unenrol());
  const other = stage.mesh.renamePod(guest, { serviceAccount: stage.chance.pick(ACCOUNTS) });
  await stage.mesh.seen(
    `${guest.spec.name} under another account`,
    ({ workloads }) =>
      workloads.some((it) => it.name === other.spec.name && it.serviceAccount === other.spec.serviceAccount),
  );
  await patiently("joins the mesh again", () => other.enrol());
  stage.did("namespaces used again");
  await talk(stage, other);
  await stage.calm(1_000, 5_000);
  return other;
}

async function leave(stage: Stage, guest: Pod): Promise<void> {
  const manner = stage.chance.pick(["in order", "abruptly", "by a crash"]);
  await stage.welcome(guest, false);
  if (manner === "in order") await guest.probe.do("stopPattern", {});
  await examine(stage, guest);
  if (manner === "abruptly") await stage.calm(0, 50);
  await guest.endProbe();
  await patiently("leaves the mesh", () => guest.unenrol());
  await stage.mesh.removePod(guest);
  stage.did(`guests gone ${manner}`);
}

/** The node agent may be away for a moment: whoever asks it asks again, as a container runtime does. */
async function patiently(what: string, ask: () => Promise<void>): Promise<void> {
  await until(`a guest ${what}`, AGENT_WITHIN_MS, async () => {
    try {
      await ask();
    } catch (error) {
      // Its answer was lost with an agent that had done it already.
      if (!(error instanceof MeshError && error.code === NOT_ENROLLED)) throw error;
    }
    return true;
  });
}

/** A guest's connections may be cut, but what it was given is never wrong. */
async function examine(stage: Stage, guest: Pod): Promise<void> {
  const { client, server } = await guest.probe.do("patternTallies", {});
  for (const place of [...client.wrong, ...server.wrong]) {
    stage.findings.add("wrong bytes", `${guest.spec.name}: ${place}`);
  }
}
