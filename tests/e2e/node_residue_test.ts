import { assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { removeNodeResidue } from "../../cni/redirection/node_residue.ts";
import { ProgramThread } from "../../cni/redirection/programs.ts";
import type { BackendName } from "../../cni/redirection/redirection.ts";
import { createAnonymousNetns, type Netns } from "../../os/netns.ts";
import { NETFILTER_BACKENDS, openBackend } from "./backends.ts";

/** What each wrote, in the backend's own words: none of it is missing, or some. */
async function stands(name: BackendName, host: Netns): Promise<boolean> {
  using backend = await openBackend(name);
  using probes = backend.openNode(host);
  return (await probes.check()).length === 0;
}

for (const before of NETFILTER_BACKENDS) {
  for (const after of NETFILTER_BACKENDS) {
    if (before === after || before.startsWith("nft") && after.startsWith("nft")) continue;
    Deno.test(`the node's rules of ${before} go once those of ${after} stand (CNI-144)`, async () => {
      using host = createAnonymousNetns();
      const log = new Logger("test", { sink: (line) => said.push(line) }), said: string[] = [];
      {
        using old = await openBackend(before);
        using probes = old.openNode(host);
        await probes.ensure();
        await probes.add([{ ip: "10.0.0.1", uid: "one" }]);
      }
      using backend = await openBackend(after), runner = new ProgramThread(log);
      using probes = backend.openNode(host);
      await probes.ensure();
      await removeNodeResidue(host, { kept: after, runner, nodeLock: undefined, log });
      assertEquals(said, []);
      assertEquals(await stands(after, host), true);
      assertEquals(await stands(before, host), false);
      await probes.uninstall();
      for (
        const command of [["iptables-legacy-save"], ["ip6tables-legacy-save"], ["nft", "list", "ruleset"], [
          "ipset",
          "list",
        ]]
      ) {
        const { stdout } = (await runner.run(host, command[0]!, command.slice(1)))!;
        assertEquals(stdout.split("\n").filter((line) => /istio/i.test(line)), [], command.join(" "));
      }
    });
  }
}
