import { assertEquals, assertRejects } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { candidateNames, type RedirectSettings } from "./choices.ts";
import { chooseRedirection } from "./choose.ts";
import type { ProgramRunner } from "./programs.ts";
import { NETLINK_REDIRECTION } from "./netlink.ts";
import { type BackendName, BACKENDS, type Candidate } from "./redirection.ts";

const NOTHING_SAID: RedirectSettings = {
  redirect: "auto",
  nativeNftables: undefined,
  forceIptables: undefined,
  reconcilePodRules: true,
};
const log = new Logger("test", { sink: () => {} });

/** A node with these ipsets and no other program. */
function node(...sets: string[]): ProgramRunner {
  const listing = { code: 0, stdout: sets.join("\n"), stderr: "" };
  return {
    run: (_, program) => Promise.resolve(program === "ipset" ? listing : undefined),
    [Symbol.dispose]() {},
  };
}

/** Every backend; those named in `lacking` cannot be used. */
function candidates(lacking: readonly BackendName[], { legacyInUse = false } = {}): Candidate[] {
  return BACKENDS.map((name) => ({
    name,
    missing: () => lacking.includes(name) ? ["a part"] : [],
    inUse: () => name === "iptables-legacy" && legacyInUse,
    open: () => ({ ...NETLINK_REDIRECTION, name }),
  }));
}

Deno.test("candidateNames() follows what was said, in Istio's words too (CNI-139, CNI-144)", () => {
  const names = (said: Partial<RedirectSettings>) => candidateNames({ ...NOTHING_SAID, ...said }).join(" ");
  assertEquals(names({}), "nft nft-binary iptables-nft iptables-legacy");
  assertEquals(names({ nativeNftables: true, forceIptables: "legacy" }), "nft nft-binary");
  assertEquals(names({ nativeNftables: false }), "iptables-nft iptables-legacy");
  assertEquals(names({ forceIptables: "legacy" }), "iptables-legacy");
  assertEquals(names({ forceIptables: "nft", nativeNftables: false }), "iptables-nft");
  assertEquals(names({ redirect: "bpf" }), "bpf nft nft-binary iptables-nft iptables-legacy");
  assertEquals(names({ redirect: "bpf", nativeNftables: true }), "bpf nft nft-binary");
  for (const redirect of BACKENDS.filter((it) => it !== "bpf")) {
    assertEquals(names({ redirect, nativeNftables: false }), redirect);
  }
});

Deno.test("chooseRedirection() takes the first that works, and says of none what each lacks (CNI-144)", async () => {
  const chosen = async (lacking: readonly BackendName[], said: Partial<RedirectSettings> = {}) => {
    const parts = { log, runner: node(), candidates: candidates(lacking) };
    return (await chooseRedirection({ ...NOTHING_SAID, ...said }, parts)).name;
  };
  assertEquals(await chosen([]), "nft");
  assertEquals(await chosen(["nft", "nft-binary"]), "iptables-nft");
  assertEquals(await chosen(["nft"], { redirect: "bpf" }), "bpf");
  assertEquals(await chosen(["bpf"], { redirect: "bpf" }), "nft", "rules, where eBPF cannot be had (CNI-217)");
  const instead = await chooseRedirection({ ...NOTHING_SAID, redirect: "bpf" }, {
    log,
    runner: node(),
    candidates: candidates(["bpf"]),
  });
  assertEquals([instead.name, instead.reason], ["nft", "bpf: a part"]);
  const none = await assertRejects(
    () => chosen(["iptables-nft", "iptables-legacy"], { nativeNftables: false }),
    MeshError,
  );
  assertEquals(none.code, "AMB7140");
  assertEquals(none.message, "no redirection can be used here: iptables-nft: a part; iptables-legacy: a part");
});

Deno.test("chooseRedirection() takes the variant of iptables that the node has rules of (CNI-139)", async () => {
  const chosen = async (said: Partial<RedirectSettings>, legacyInUse: boolean) => {
    const parts = { log, runner: node(), candidates: candidates([], { legacyInUse }) };
    return (await chooseRedirection({ ...NOTHING_SAID, ...said }, parts)).name;
  };
  assertEquals(await chosen({ nativeNftables: false }, true), "iptables-legacy");
  assertEquals(await chosen({ nativeNftables: false }, false), "iptables-nft");
  assertEquals(await chosen({ forceIptables: "nft" }, true), "iptables-nft");
});

Deno.test("chooseRedirection() stays with iptables where the node has its ipset, when nf_tables was asked for as of Istio (CNI-143)", async () => {
  const chosen = async (said: Partial<RedirectSettings>, ...sets: string[]) => {
    const parts = { log, runner: node(...sets), candidates: candidates([]) };
    return (await chooseRedirection({ ...NOTHING_SAID, ...said }, parts)).name;
  };
  assertEquals(await chosen({ nativeNftables: true }, "istio-inpod-probes-v4"), "iptables-nft");
  assertEquals(await chosen({ nativeNftables: true }, "istio-inpod-probes-v6"), "iptables-nft");
  assertEquals(await chosen({ nativeNftables: true }, "another"), "nft");
  assertEquals(await chosen({}, "istio-inpod-probes-v4"), "nft", "ours takes over what is there");
});
