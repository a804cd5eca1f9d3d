/** `ambit cni check --node`: what a node lacks is told before the first pod comes, and nothing is left behind. */
import { assert, assertEquals } from "@std/assert";

const MAIN = new URL("../../main.ts", import.meta.url).pathname;

interface Finding {
  readonly check: string;
  readonly status: string;
  readonly found: string;
}

/** Asks in a mount namespace of its own, after that has been made of it. */
async function checkNode(
  prepare: string,
  ...args: string[]
): Promise<{ status: number; of: (check: string) => Finding }> {
  const run = [Deno.execPath(), "run", "-A", MAIN, "cni", "check", "--node", "-o", "json", ...args];
  const child = new Deno.Command("unshare", {
    args: ["--mount", "--propagation", "private", "sh", "-c", `${prepare}\nexec "$@"`, "sh", ...run],
  });
  const { code, stdout, stderr } = await child.output(), decoder = new TextDecoder();
  assert(code === 0 || code === 1, decoder.decode(stderr));
  const { findings } = JSON.parse(decoder.decode(stdout)) as { findings: Finding[] };
  return { status: code, of: (check) => findings.find((it) => it.check === check)! };
}

const rules = () =>
  new TextDecoder().decode(new Deno.Command("nft", { args: ["list", "ruleset"] }).outputSync().stdout);

Deno.test("ambit cni check --node tries what could redirect, and leaves nothing (CNI-144, CNI-294)", async () => {
  const before = rules(), { status, of } = await checkNode("");
  assertEquals([status, of("redirection").found], [0, "the agent takes nft"]);
  assertEquals([of("units, control groups").status, of("lost listeners").status], ["ok", "ok"]);
  assertEquals(rules(), before);
});

Deno.test("ambit cni check --node tells of programs that are not there, and fails for them only where they are asked for (CNI-144, CNI-294)", async () => {
  const without = "export PATH=/nonexistent";
  const any = await checkNode(without);
  assertEquals([any.status, any.of("redirection").found], [0, "the agent takes nft"]);
  assert(/not nft-binary: .*; not iptables-nft: .*; not iptables-legacy: /.test(any.of("other means").found));
  const asked = await checkNode(without, "--redirect=nft-binary");
  assertEquals([asked.status, asked.of("redirection").status, asked.of("nft-binary").status], [1, "fail", "warn"]);
});

Deno.test("ambit cni check --node tells of a node without control groups of version 2, and of settings that are locked (CNI-274, CNI-294)", async () => {
  const bare = await checkNode("awk '$3 == \"cgroup2\" { print $2 }' /proc/mounts | xargs -r -n1 umount");
  assertEquals([bare.status, bare.of("units, control groups").status], [0, "warn"]);
  const locked = await checkNode("mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys");
  assertEquals(locked.of("/proc/sys").found, "cannot be written, which eBPF alone would need");
  assertEquals(locked.of("redirection").found, "the agent takes nft", "rules need none of it");
});
