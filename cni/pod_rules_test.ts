import { assert, assertEquals } from "@std/assert";
import { createAnonymousNetns, type Netns } from "../os/netns.ts";
import { FirewallSocket } from "../os/netlink/nftables.ts";
import { RouteSocket } from "../os/netlink/rtnetlink.ts";
import { runWithin } from "../os/process.ts";
import { type RedirectionOptions, redirectionTables, TABLE_NAMES } from "./nft_rules.ts";
import { renderNftText } from "./nft_text.ts";
import { applyPodRules, checkPodRules, deletePodRules } from "./pod_rules.ts";

const privileged = Deno.uid() === 0;
const hasNft = (() => {
  try {
    return new Deno.Command("nft", { args: ["--version"] }).outputSync().success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
})();

function nft(netns: Netns, args: string[]): string {
  const output = runWithin(netns, "nft", { args, stdout: "piped", stderr: "piped" });
  const decoder = new TextDecoder();
  assert(output.success, decoder.decode(output.stderr));
  return decoder.decode(output.stdout);
}

const VARIANTS: readonly RedirectionOptions[] = [
  { ipv6: false },
  { ipv6: true },
  { ipv6: true, dnsCapture: true },
  { ipv6: false, dnsCapture: true, ingress: true },
  { ipv6: true, ingress: true, virtualInterfaces: ["vnet0", "vnet1"] },
  {
    ipv6: true,
    dnsCapture: true,
    graceful: true,
    exclude: {
      outboundPorts: [3306, 22],
      outboundCidrs: ["10.0.0.0/9", "fd00:9::/32", "1.2.3.4"],
      inboundPorts: [9100],
    },
  },
];

Deno.test({
  name: "applyPodRules() leaves in the kernel what nft makes of the rendered text (CNI-124, CNI-130, CNI-145)",
  ignore: !privileged || !hasNft,
  fn() {
    for (const options of VARIANTS) {
      using byText = createAnonymousNetns();
      using byNetlink = createAnonymousNetns();
      const file = Deno.makeTempFileSync();
      Deno.writeTextFileSync(file, renderNftText(redirectionTables(options)));
      nft(byText, ["-f", file]);
      Deno.removeSync(file);
      applyPodRules(byNetlink, options);
      assertEquals(nft(byNetlink, ["-n", "list", "ruleset"]), nft(byText, ["-n", "list", "ruleset"]));
      const debug = (netns: Netns) => nft(netns, ["--debug=netlink", "list", "ruleset"]);
      assertEquals(debug(byNetlink), debug(byText));
      using firewall = FirewallSocket.open(byText);
      assertEquals(firewall.differences(redirectionTables(options)), [], "rules of another's hand are recognised");
    }
  },
});

Deno.test({
  name: "applyPodRules() is idempotent, replaces other options without residue, and deletes cleanly (CNI-132, CNI-133)",
  ignore: !privileged,
  fn() {
    using netns = createAnonymousNetns();
    using firewall = FirewallSocket.open(netns);
    deletePodRules(netns); // Nothing there: fine.
    for (const options of [...VARIANTS, ...VARIANTS, VARIANTS[1]!]) {
      applyPodRules(netns, options);
      applyPodRules(netns, options);
      assertEquals(checkPodRules(netns, options), []);
    }
    assertEquals(firewall.tableNames().sort(), [TABLE_NAMES.mangle, TABLE_NAMES.nat]);
    deletePodRules(netns);
    deletePodRules(netns);
    assertEquals(firewall.tableNames(), []);
    using routes = RouteSocket.open(netns);
    assertEquals(routes.hasRoute({ destination: "0.0.0.0/0", table: 100, type: "local" }), false);
  },
});

Deno.test({
  name: "checkPodRules() names what is missing or was changed (CNI-097)",
  ignore: !privileged,
  fn() {
    using netns = createAnonymousNetns();
    const options = { ipv6: true } as const;
    assert(checkPodRules(netns, options).includes(`table ${TABLE_NAMES.nat} is missing`));
    applyPodRules(netns, { ...options, dnsCapture: true });
    const differences = checkPodRules(netns, options);
    assert(differences.includes(`table ${TABLE_NAMES.raw} should not be there`), differences.join("\n"));
    assert(differences.some((it) => it.includes("istio-output has")), differences.join("\n"));
    applyPodRules(netns, { ...options, ingress: true });
    applyPodRules(netns, options);
    using firewall = FirewallSocket.open(netns);
    const tables = redirectionTables(options);
    const changed = tables.map((table) => ({
      ...table,
      rules: table.rules.map((rule) => ({
        ...rule,
        statements: rule.statements.map((it) => it.kind === "redirect" ? { ...it, port: it.port + 1 } : it),
      })),
    }));
    firewall.replace(changed);
    assertEquals(checkPodRules(netns, options).every((it) => it.endsWith("is different")), true);
    assertEquals(checkPodRules(netns, options).length, 4, "R11 and R16, twice each");
    using routes = RouteSocket.open(netns);
    applyPodRules(netns, options);
    routes.deleteRule({ family: "ipv4", mark: 0x111, mask: 0xfff, priority: 32764, table: 100 });
    assertEquals(checkPodRules(netns, options), ["the ipv4 rule for mark 0x111 is missing"]);
  },
});
