import { assertEquals } from "@std/assert";
import type { BackendName } from "../redirection/redirection.ts";
import { judgeNodeOffer, type NodeFacts, textOfFindings } from "./node.ts";

const LACKS: readonly (readonly [BackendName, readonly string[]])[] = [
  ["bpf", ["no bpffs"]],
  ["nft", []],
  ["nft-binary", []],
  ["iptables-nft", ["iptables is not there"]],
];
const GOOD: NodeFacts = {
  settings: { redirect: "auto", nativeNftables: undefined, forceIptables: undefined, reconcilePodRules: true },
  lacks: new Map(LACKS),
  chosen: "nft",
  ipv6: "there",
  cgroups: { root: "/sys/fs/cgroup" },
  sharedRules: undefined,
  sockDiag: true,
  settingsLocked: undefined,
};
const asked = (redirect: NodeFacts["settings"]["redirect"]) => ({ settings: { ...GOOD.settings, redirect } });

/** The findings that are not well, in short. */
function wrong(facts: Partial<NodeFacts>): string[] {
  return judgeNodeOffer({ ...GOOD, ...facts }).filter(({ status }) => status !== "ok")
    .map(({ status, check, found, cure }) => `${status} ${check}: ${found}${cure === undefined ? " NO CURE" : ""}`);
}

Deno.test("judgeNodeOffer() tells what a node lacks before the first pod: only what redirects at all is a failure (CNI-144, CNI-294)", () => {
  assertEquals(wrong({}), []);
  const none: Partial<NodeFacts> = {
    chosen: undefined,
    lacks: new Map([["nft", ["no nf_tables"]], ["bpf", ["no bpffs"]]]),
  };
  assertEquals(wrong(none), [
    "fail redirection: nothing can redirect here",
    "warn nft: lacks: no nf_tables",
    "warn bpf: lacks: no bpffs",
  ]);
  assertEquals(wrong({ ...asked("bpf") }), [
    "warn redirection: the agent takes nft, asked for bpf",
    "warn bpf: lacks: no bpffs",
  ]);
  assertEquals(wrong({ ...asked("iptables-nft"), chosen: undefined, lacks: new Map([["iptables-nft", ["x"]]]) }), [
    "fail redirection: nothing can redirect here, asked for iptables-nft",
    "warn iptables-nft: lacks: x",
  ]);
});

Deno.test("judgeNodeOffer() tells of IPv6, control groups, listeners and settings (CNI-122, CNI-274, CNI-294)", () => {
  assertEquals(wrong({ ipv6: "absent" }), [], "then IPv4 alone is captured, and nothing else is there");
  assertEquals(wrong({ ipv6: "off on loopback" }).length, 1);
  assertEquals(wrong({ cgroups: { failure: "none of version 2" } }), [
    "warn units, control groups: cannot be enrolled: none of version 2",
  ]);
  assertEquals(wrong({ sharedRules: "EOPNOTSUPP" }), ["warn units, control groups: cannot be enrolled: EOPNOTSUPP"]);
  assertEquals(wrong({ sockDiag: false }).length, 1);
  assertEquals(wrong({ settingsLocked: "EROFS" }), [], "rules write none");
  assertEquals(wrong({ ...asked("bpf"), chosen: "bpf", lacks: new Map([["bpf", []]]), settingsLocked: "EROFS" }), [
    "warn /proc/sys: cannot be written: EROFS",
  ]);
});

Deno.test("textOfFindings() has a line for each, and below it the cure (CNI-294)", () => {
  const lines = textOfFindings(judgeNodeOffer({ ...GOOD, sockDiag: false })).split("\n");
  assertEquals(lines.slice(0, 2), [
    "ok    redirection            the agent takes nft",
    "ok    other means            nft-binary would work too; not bpf: no bpffs; not iptables-nft: iptables is not there",
  ]);
  assertEquals(lines.filter((line) => line.startsWith("  cure: ")).length, 1);
});
