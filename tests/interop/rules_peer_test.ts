/**
 * Rules in a pod as another make writes them, taken over by ours, and ours by it (CNI-312). Needs root and
 * AMBIT_PEER_RULES, the path of a program that is called inside the pod's namespace as `PROGRAM iptables|nftables
 * apply|remove`, with DNS=true and FORCE_IPTABLES_BINARY=nft|legacy in its environment: a few lines around the node agent's
 * own packages. Without the variable the tests are shown as ignored.
 */
import { assert, assertEquals } from "@std/assert";
import { createAnonymousNetns, type Netns } from "../../os/netns.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { runWithin } from "../../os/process.ts";
import type { BackendName } from "../../cni/redirection/redirection.ts";
import { NETFILTER_BACKENDS, openBackend } from "../e2e/backends.ts";

const PEER = Deno.env.get("AMBIT_PEER_RULES");
/** What ours sees as its own of theirs. */
const SAME: Readonly<Record<"iptables nft" | "iptables legacy" | "nftables", readonly BackendName[]>> = {
  "iptables nft": ["iptables-nft"],
  "iptables legacy": ["iptables-legacy"],
  nftables: ["nft", "nft-binary"],
};

function peer(netns: Netns, theirs: keyof typeof SAME, verb: "apply" | "remove", dnsCapture = false): void {
  const [backend, variant = ""] = theirs.split(" "), args = [backend!, verb];
  const env = { DNS: String(dnsCapture), FORCE_IPTABLES_BINARY: variant };
  const { success, stdout, stderr } = runWithin(netns, PEER!, { args, env, stdout: "piped", stderr: "piped" });
  assert(success, new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr));
}

function pod(): Netns {
  const netns = createAnonymousNetns();
  using routes = RouteSocket.open(netns);
  routes.setUp("lo");
  return netns;
}

function output(netns: Netns, program: string, ...args: string[]): string {
  return new TextDecoder().decode(runWithin(netns, program, { args, stdout: "piped", stderr: "null" }).stdout);
}

/** Whatever is ours or theirs, by every means. */
function residue(netns: Netns): string[] {
  const listings = [
    output(netns, "nft", "list", "ruleset", "inet"),
    ...["iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"].map((it) =>
      output(netns, it)
    ),
    output(netns, "ip", "rule"),
    output(netns, "ip", "-6", "rule"),
  ];
  return listings.flatMap((text) => text.split("\n")).filter((line) => /istio|ISTIO|0x111/.test(line));
}

for (const theirs of ["iptables nft", "iptables legacy", "nftables"] as const) {
  for (const name of NETFILTER_BACKENDS) {
    Deno.test({
      name:
        `rules written by the peer's ${theirs} are recognised, reconciled and removed by ${name} (CNI-144, CNI-312)`,
      ignore: PEER === undefined,
      async fn() {
        using backend = await openBackend(name);
        for (const dnsCapture of [false, true]) {
          using netns = pod();
          peer(netns, theirs, "apply", dnsCapture);
          const differences = await backend.check(netns, { dnsCapture });
          assertEquals(differences.length === 0, SAME[theirs].includes(name), differences.join("\n"));
          await backend.apply(netns, { dnsCapture: !dnsCapture });
          assertEquals(await backend.check(netns, { dnsCapture: !dnsCapture }), []);
          await backend.remove(netns);
          assertEquals(residue(netns), []);
          peer(netns, theirs, "apply", dnsCapture);
          await backend.remove(netns);
          assertEquals(residue(netns), [], "removed as it was found");
        }
      },
    });
  }

  for (const name of SAME[theirs]) {
    Deno.test({
      name: `rules written by ${name} are as the peer's ${theirs} would have them, and it removes them (CNI-312)`,
      ignore: PEER === undefined,
      async fn() {
        using backend = await openBackend(name);
        for (const dnsCapture of [false, true]) {
          using netns = pod();
          await backend.apply(netns, { dnsCapture });
          peer(netns, theirs, "apply", dnsCapture);
          assertEquals(await backend.check(netns, { dnsCapture }), []);
          peer(netns, theirs, "apply", !dnsCapture);
          const differences = await backend.check(netns, { dnsCapture: !dnsCapture });
          // Of its tables it flushes what it does not fill: an empty one stays where ours is not there.
          assertEquals(differences.filter((it) => !/raw/.test(it)), []);
          peer(netns, theirs, "remove");
          assertEquals(residue(netns), []);
        }
      },
    });
  }
}
