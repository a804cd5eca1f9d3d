/** Each ztunnel replaced by another now and then, while it works: nobody may notice. */
import { NODE_NAMES } from "../../../demo/lab/network.ts";
import { CALLED_OFF } from "../../../demo/lab/node.ts";
import type { Stage } from "../stage.ts";

/** One takeover after the other, at `stage.takeoverMs` on average; none if that is 0. */
export async function takeovers(stage: Stage): Promise<void> {
  const { takeoverMs } = stage;
  while (takeoverMs > 0 && await stage.calm(takeoverMs / 2, takeoverMs * 3 / 2)) {
    const name = stage.chance.pick(NODE_NAMES), node = stage.mesh.nodes[name];
    const line = await node.takeOver();
    if (line.includes(CALLED_OFF)) { // istiod was away.
      stage.did("takeovers called off");
      continue;
    }
    await node.ztunnelReady();
    stage.carried.set(name, Number(/connections=(\d+)/.exec(line)?.[1] ?? NaN));
    stage.did("takeovers");
  }
}
