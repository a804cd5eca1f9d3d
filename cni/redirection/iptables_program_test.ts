import { assertEquals, assertRejects } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { type Netns, ownNetns } from "../../os/netns.ts";
import { IptablesProgram, isAtLeast, readVersion } from "./iptables_program.ts";
import type { ProgramOutcome, ProgramRunner } from "./programs.ts";

const said = (stdout: string, stderr = "", code = 0): ProgramOutcome => ({ code, stdout, stderr });

/** A machine that answers by command line; what it does not name is not installed. What was run is noted. */
function machine(answers: Readonly<Record<string, ProgramOutcome>>): ProgramRunner & { readonly ran: string[] } {
  const ran: string[] = [];
  return {
    ran,
    run(_, program, args) {
      const line = [program, ...args].join(" ");
      ran.push(line);
      const fits = (it: string) => it === line || it.endsWith("*") && line.startsWith(it.slice(0, -1));
      const key = Object.keys(answers).filter(fits).sort((one, other) => other.length - one.length)[0];
      return Promise.resolve(key === undefined ? undefined : answers[key]);
    },
    [Symbol.dispose]() {},
  };
}

const LEGACY = {
  "iptables-save": said(""),
  "iptables-save --version": said("iptables-save v1.8.9 (legacy)"),
  "iptables -t nat*": said(""),
};
const NFT = {
  "iptables-nft-save": said("# a\n*nat\n-A OUTPUT\nCOMMIT\n"),
  "iptables-nft-save --version": said("iptables-nft-save v1.8.9 (nf_tables)"),
  "iptables-nft -t nat*": said(""),
};

Deno.test("readVersion() takes what distributions print, and what the oldest does not know (CNI-140)", () => {
  const check = (stdout: string, stderr = "") => readVersion(said(stdout, stderr));
  assertEquals(check("iptables-save v1.8.7 (nf_tables)"), { variant: "nft", version: [1, 8, 7] });
  assertEquals(check("iptables v1.8.4-bullseye (legacy)"), { variant: "legacy", version: [1, 8, 4] });
  assertEquals(check("iptables v1.6.1"), { variant: "legacy", version: [1, 6, 1] });
  assertEquals(check("", "iptables-save: unrecognized option '--version'"), { variant: "legacy", version: [0, 0, 0] });
  assertEquals(check("iptables"), undefined);
  assertEquals([isAtLeast([1, 8, 9], [1, 8, 6]), isAtLeast([1, 8], [1, 8, 6]), isAtLeast([2], [1, 8, 6])], [
    true,
    false,
    true,
  ]);
});

Deno.test("IptablesProgram.find() uses a variant that works, by its own name or the plain one, and says what is missing (CNI-139, CNI-140)", async () => {
  const find = async (variant: "nft" | "legacy", answers: Readonly<Record<string, ProgramOutcome>>, strict = false) => {
    const found = await IptablesProgram.find(variant, "ipv4", { runner: machine(answers), strict });
    return "missing" in found ? found.missing : `${found.program.name} ${found.hasRules}`;
  };
  assertEquals(await find("nft", { ...LEGACY, ...NFT }), "iptables-nft true");
  assertEquals(await find("legacy", { ...LEGACY, ...NFT }), "iptables false", "the plain one is of that variant");
  assertEquals(await find("legacy", LEGACY, true), "iptables-legacy-save is not installed", "forced: by its name only");
  assertEquals(await find("nft", LEGACY), "iptables-nft-save is not installed", "the plain one is of the other");
  const broken = { ...NFT, "iptables-nft -t nat -A INPUT*": said("", "modprobe: no table\nmore", 3) };
  assertEquals(await find("nft", broken), "iptables-nft finds no support in the kernel: modprobe: no table");
  const absent = { ...NFT, "iptables-nft -t nat -A INPUT*": said("", "table `nat' does not exist") };
  assertEquals(await find("nft", absent), "iptables-nft finds no support in the kernel: table `nat' does not exist");
});

Deno.test("IptablesProgram waits for the lock where the variant has one, and tries a rule that matches nothing (CNI-140, CNI-141)", async () => {
  const wrote = async (variant: "nft" | "legacy", version: string) => {
    const base = variant === "nft" ? "iptables-nft" : "iptables-legacy";
    const runner = machine({
      [`${base}-save`]: said(""),
      [`${base}-save --version`]: said(version),
      [`${base} -t nat*`]: said(""),
    });
    await IptablesProgram.find(variant, "ipv4", { runner, strict: true });
    return runner.ran.slice(2);
  };
  const add = "-t nat -A INPUT -p 255 -j RETURN", remove = "-t nat -D INPUT -p 255 -j RETURN";
  assertEquals(await wrote("nft", "v1.8.9 (nf_tables)"), [`iptables-nft ${add}`, `iptables-nft ${remove}`]);
  assertEquals(await wrote("legacy", "v1.8.9 (legacy)"), [
    `iptables-legacy ${add} --wait=30`,
    `iptables-legacy ${remove} --wait=30`,
  ]);
  assertEquals((await wrote("legacy", "v1.6.1"))[0], `iptables-legacy ${add}`, "older ones know no lock");
});

Deno.test("IptablesProgram locks what programs of the node lock there, and a pod's namespace in the pod (CNI-141)", async () => {
  using own = ownNetns();
  const locks = async (netns: Netns | undefined, choice: { host?: Netns; nodeLock?: string }) => {
    const found: (string | undefined)[] = [], inner = machine(LEGACY);
    const runner: ProgramRunner = {
      run(netns, program, args, options) {
        if (program === "iptables-restore") {
          found.push(options?.env?.XTABLES_LOCKFILE);
          return Promise.resolve(said(""));
        }
        return inner.run(netns, program, args, options);
      },
      [Symbol.dispose]() {},
    };
    const detected = await IptablesProgram.find("legacy", "ipv4", { runner, strict: false, ...choice });
    if (!("program" in detected)) throw new Error(detected.missing);
    await detected.program.restore(netns, "");
    return found[0]?.replace(/\d+/g, "N");
  };
  const nodeLock = "/host/proc/1/root/run/xtables.lock", ofNode = nodeLock.replace(/\d+/g, "N");
  assertEquals(await locks(undefined, { nodeLock }), ofNode);
  assertEquals(await locks(own, { nodeLock, host: own }), ofNode);
  assertEquals(await locks(own, { nodeLock }), "/proc/N/fd/N");
  assertEquals(await locks(undefined, {}), undefined, "where it is looked for anyway");
});

Deno.test("IptablesProgram says what kind of problem an exit code means (CNI-142)", async () => {
  for (const [code, words] of [[1, "other"], [2, "parameter"], [3, "version"], [4, "resource"]] as const) {
    const runner = machine({ ...NFT, "iptables-nft-restore --noflush": said("", "line 3 failed\n", code) });
    const found = await IptablesProgram.find("nft", "ipv4", { runner, strict: true });
    if ("missing" in found) throw new Error(found.missing);
    const error = await assertRejects(() => found.program.restore(undefined, "* nat\n"), MeshError);
    assertEquals(error.code, "AMB7142");
    assertEquals(error.message, `iptables-nft-restore did not take the rules: ${words} problem: line 3 failed`);
  }
});
