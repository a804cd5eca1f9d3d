/** What every backend by netfilter owes: the same end whatever stood before, nothing left, and nothing of another backend. */
import { assert, assertEquals } from "@std/assert";
import type { PodRuleOptions, Redirection } from "../../cni/redirection/redirection.ts";
import { createAnonymousNetns, type Netns } from "../../os/netns.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { runWithin } from "../../os/process.ts";
import { NETFILTER_BACKENDS, openBackend } from "./backends.ts";

const VARIANTS: readonly PodRuleOptions[] = [
  {},
  { dnsCapture: true },
  { dnsCapture: true, ingress: true },
  { ingress: true, virtualInterfaces: ["vnet0", "vnet1"] },
  {
    dnsCapture: true,
    graceful: true,
    exclude: {
      outboundPorts: [3306, 22],
      outboundCidrs: ["10.9.1.7/8", "fd00:9::/32", "1.2.3.4"],
      inboundPorts: [9100],
    },
  },
];

function output(netns: Netns, program: string, ...args: string[]): string {
  const { success, stdout, stderr } = runWithin(netns, program, { args, stdout: "piped", stderr: "piped" });
  assert(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

/** All rules of the namespace by every means, sorted by table, without counters; a chain that is not ours and empty is no rule. */
function rulesOf(netns: Netns): string {
  const saves = ["iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"];
  const saved = saves.flatMap((program) =>
    output(netns, program).split(/^(?=\*)/m).map((table) =>
      table.split("\n").filter((line) => /^(\*|-A|:ISTIO)/.test(line))
        .map((line) => `${program} ${line.replace(/ \[\d+:\d+\]$/, "")}`)
    ).filter((lines) => lines.length > 1).map((lines) => lines.join("\n")).sort()
  );
  return [...saved, output(netns, "nft", "-n", "-s", "list", "ruleset", "inet")].join("\n").trim();
}

function routesLeft(netns: Netns): boolean {
  using routes = RouteSocket.open(netns);
  const wanted = { table: 100, type: "local" } as const;
  return ["0.0.0.0/0", "::/0"].some((destination) => routes.hasRoute({ destination, ...wanted }));
}

for (const name of NETFILTER_BACKENDS) {
  for (const family of ["IPv4", "dual"] as const) {
    Deno.test(`${name}, ${family}: applied again it changes nothing, other options leave nothing of the ones before, removal leaves nothing (CNI-131 to CNI-135, CNI-137)`, async () => {
      using backend = await openBackend(name), netns = createAnonymousNetns();
      await backend.remove(netns); // Nothing there: fine.
      for (const options of [...VARIANTS.toReversed(), ...VARIANTS].map((it) => ({ ...it, ipv6: family === "dual" }))) {
        await backend.apply(netns, options);
        assertEquals(await backend.check(netns, options), [], JSON.stringify(options));
        const once = rulesOf(netns);
        await backend.apply(netns, options);
        assertEquals(rulesOf(netns), once);
        using fresh = createAnonymousNetns();
        await backend.apply(fresh, options);
        assertEquals(once, rulesOf(fresh), "as in a namespace that nobody touched");
      }
      await backend.remove(netns);
      await backend.remove(netns);
      assertEquals([rulesOf(netns), routesLeft(netns)], ["", false]);
    });
  }

  Deno.test(`${name}: check says what was taken away or changed by hand, and applying repairs it (CNI-134)`, async () => {
    using backend = await openBackend(name), netns = createAnonymousNetns();
    const options = { dnsCapture: true };
    await backend.apply(netns, options);
    for (const damage of DAMAGES[name]) {
      output(netns, "sh", "-c", damage);
      const differences = await backend.check(netns, options);
      assert(differences.length > 0, `${damage} is noticed`);
      await backend.apply(netns, options);
      assertEquals(await backend.check(netns, options), [], `${damage} is repaired`);
    }
  });

  Deno.test(`${name}: a pod that leaves captures nothing new, is captured again if it stays, and is clean in the end (CNI-278)`, async () => {
    using backend = await openBackend(name), netns = createAnonymousNetns();
    await backend.apply(netns, { dnsCapture: true });
    const before = rulesOf(netns);
    await backend.release(netns);
    await backend.release(netns);
    const released = rulesOf(netns);
    const jumps = released.split(/\*|^table /m).filter((table) => /^(nat|inet istio-ambient-nat)/.test(table))
      .flatMap((table) => table.match(/(-j ISTIO_|jump istio-)\w+/g) ?? []);
    assertEquals([jumps, released === before], [[], false]);
    assert(released.includes("0x111") || released.includes("0x00000111"), "what carries replies back to ztunnel stays");
    await backend.apply(netns, { dnsCapture: true });
    assertEquals(await backend.check(netns, { dnsCapture: true }), []);
    await backend.release(netns);
    await backend.remove(netns);
    assertEquals(rulesOf(netns), "");
  });

  Deno.test(`${name}: what any other backend left in a pod is noticed, and goes in the pass that writes ours (CNI-144, CNI-312)`, async () => {
    using backend = await openBackend(name);
    for (const other of NETFILTER_BACKENDS) {
      using before: Redirection = await openBackend(other), netns = createAnonymousNetns();
      await before.apply(netns, { dnsCapture: true });
      const sameMeans = new Set([name, other]).size === 1 || (name.startsWith("nft") && other.startsWith("nft"));
      const noticed = await backend.check(netns, {});
      assert(noticed.length > 0, `${other} is noticed`);
      await backend.apply(netns, {});
      assertEquals(await backend.check(netns, {}), [], `${other} is gone`);
      using fresh = createAnonymousNetns();
      await backend.apply(fresh, {});
      assertEquals(rulesOf(netns), rulesOf(fresh), `${other}, ${sameMeans ? "the same means" : "other means"}`);
      await before.apply(netns, { dnsCapture: true });
      await backend.remove(netns);
      if (!sameMeans) assertEquals(rulesOf(netns), "", `${other} goes with ours`);
    }
  });

  Deno.test(`${name}: pods are written at the same time without sharing anything (CNI-132)`, async () => {
    using backend = await openBackend(name), pods = new DisposableStack();
    const all = Array.from({ length: 12 }, (_, at) => ({
      netns: pods.use(createAnonymousNetns()),
      options: VARIANTS[at % VARIANTS.length]!,
    }));
    await Promise.all(all.map(async ({ netns, options }) => {
      await backend.apply(netns, VARIANTS[1]!);
      await backend.apply(netns, options);
    }));
    for (const { netns, options } of all) assertEquals(await backend.check(netns, options), []);
  });

  Deno.test(`${name}: the node's probes by pod, repaired, and nothing left (CNI-084, CNI-090, CNI-091, CNI-181, CNI-182, CNI-185)`, async () => {
    using backend = await openBackend(name), netns = createAnonymousNetns(), probes = backend.openNode(netns);
    const sorted = async () => (await probes.addresses()).map(({ ip, uid }) => `${ip} ${uid}`).sort();
    assert((await probes.check()).length > 0);
    await probes.ensure();
    assertEquals(await probes.check(), []);
    await probes.add([{ ip: "10.0.0.2", uid: "a" }, { ip: "fd00::2", uid: "a" }, { ip: "10.0.0.3", uid: "b" }]);
    await probes.add([{ ip: "10.0.0.3", uid: "b" }]);
    await probes.ensure();
    assertEquals(await sorted(), ["10.0.0.2 a", "10.0.0.3 b", "fd00::2 a"]);
    await probes.add([{ ip: "10.0.0.2", uid: "c" }]); // The address has passed on.
    assertEquals(await probes.remove([{ ip: "10.0.0.2", uid: "a" }, { ip: "fd00::2", uid: "a" }]), [
      { ip: "10.0.0.2", uid: "c" },
    ]);
    assertEquals(await sorted(), ["10.0.0.2 c", "10.0.0.3 b"]);
    output(netns, "sh", "-c", NODE_DAMAGE[name]);
    assert((await probes.check()).length > 0, "what a firewall's reload takes away is noticed");
    await probes.ensure();
    assertEquals([await probes.check(), await sorted()], [[], ["10.0.0.2 c", "10.0.0.3 b"]]);
    await probes.sync([{ ip: "10.0.0.9", uid: "d" }], { complete: false });
    assertEquals((await sorted()).length, 3);
    await probes.sync([{ ip: "10.0.0.9", uid: "d" }], { complete: true });
    assertEquals(await sorted(), ["10.0.0.9 d"]);
    await probes.uninstall();
    await probes.uninstall();
    assertEquals([rulesOf(netns), output(netns, "ipset", "list", "-n")], ["", ""]);
  });
}

for (const name of ["iptables-nft", "iptables-legacy"] as const) {
  Deno.test(`${name}: rules that differ are exchanged behind guardrails, or with a warning where that is not wanted; an equal one is left alone (CNI-135, CNI-136, CNI-138)`, async () => {
    for (const reconcile of [true, false]) {
      const lines: string[] = [];
      using backend = await openBackend(name, { reconcile, sink: (line) => lines.push(line) });
      using netns = createAnonymousNetns();
      await backend.apply(netns, {});
      output(netns, name, "-A", "INPUT", "-p", "tcp", "-j", "DROP"); // The pod's own, and it stays.
      output(netns, name, "-t", "nat", "-Z");
      await backend.apply(netns, {});
      assertEquals(lines.filter((line) => line.includes("exchanged")), [], "equal rules are not written");
      await backend.apply(netns, { dnsCapture: true });
      const said = lines.filter((line) => line.includes("exchanged"));
      assertEquals(said.length, 2, "once for each family");
      assertEquals(said.every((line) => line.includes("without guardrails")), !reconcile);
      assertEquals(await backend.check(netns, { dnsCapture: true }), []);
      const filter = output(netns, `${name}-save`, "-t", "filter").split("\n").filter((line) => line.startsWith("-A"));
      assertEquals(filter, ["-A INPUT -p tcp -j DROP"]);
    }
  });

  Deno.test(`${name}: guardrails of an exchange that was cut off are noticed, and go with the next one or with the pod (CNI-136)`, async () => {
    using backend = await openBackend(name), netns = createAnonymousNetns();
    const cutOff = () => {
      const put = ["INPUT", "FORWARD", "OUTPUT"].flatMap((chain) =>
        ["tcp", "udp"].map((protocol) => `ip6${name.slice(2)} -I ${chain} 1 -p ${protocol} -j DROP`)
      );
      output(netns, "sh", "-c", put.join(" && "));
    };
    await backend.apply(netns, {});
    cutOff();
    assertEquals(await backend.check(netns, {}), [
      `ip6${name.slice(2)} still holds everything back: an exchange was cut off`,
    ]);
    await backend.apply(netns, {});
    assertEquals(await backend.check(netns, {}), []);
    cutOff();
    await backend.remove(netns);
    assertEquals(rulesOf(netns), "");
  });
}

const NFT_DAMAGES = [
  "nft flush chain inet istio-ambient-nat istio-output",
  "nft delete table inet istio-ambient-raw",
  "nft add rule inet istio-ambient-nat istio-output accept",
  "ip rule del pref 32764",
  "ip -6 route flush table 100",
];
const iptablesDamages = (variant: string) => [
  `iptables-${variant} -t nat -F`,
  `ip6tables-${variant} -t nat -D OUTPUT -j ISTIO_OUTPUT`,
  `iptables-${variant} -t mangle -F ISTIO_PRERT`,
  `iptables-${variant} -t nat -R ISTIO_OUTPUT 1 -p tcp -j RETURN`,
  `iptables-${variant} -t nat -N ISTIO_OLD; iptables-${variant} -t nat -A ISTIO_OUTPUT -j ISTIO_OLD`,
  `iptables-${variant} -t raw -F; iptables-${variant} -t raw -X`,
  "ip route flush table 100",
];
const DAMAGES: Readonly<Record<typeof NETFILTER_BACKENDS[number], readonly string[]>> = {
  nft: NFT_DAMAGES,
  "nft-binary": NFT_DAMAGES,
  "iptables-nft": iptablesDamages("nft"),
  "iptables-legacy": iptablesDamages("legacy"),
};
const NODE_DAMAGE: Readonly<Record<typeof NETFILTER_BACKENDS[number], string>> = {
  nft: "nft flush chain inet istio-ambient-nat postrouting",
  "nft-binary": "nft flush chain inet istio-ambient-nat postrouting",
  "iptables-nft": "iptables-nft -t nat -F",
  "iptables-legacy": "ip6tables-legacy -t nat -F POSTROUTING",
};
