import { assertEquals, assertRejects } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { createAnonymousNetns } from "../../os/netns.ts";
import { guardrailCommands } from "./guardrails.ts";
import { IptablesRedirection } from "./iptables.ts";
import { IptablesProgram } from "./iptables_program.ts";
import type { ProgramRunner } from "./programs.ts";

const log = new Logger("test", { sink: () => {} });
const STALE = "*nat\n:OUTPUT ACCEPT [0:0]\n:ISTIO_OUTPUT - [0:0]\n-A OUTPUT -j ISTIO_OUTPUT\nCOMMIT\n";
const GUARDED = "*filter\n" +
  ["INPUT", "FORWARD", "OUTPUT"].map((chain) =>
    `:${chain} ACCEPT [0:0]\n-A ${chain} -p udp -j DROP\n-A ${chain} -p tcp -j DROP\n`
  ).join("") + "COMMIT\n";

/** A namespace whose rules read as `listing`; what is written is kept, and the exchange ends with `exchangeCode`. */
async function backend(listing: string, { reconcile = true, exchangeCode = 0 } = {}) {
  const written: string[] = [];
  const runner: ProgramRunner = {
    run(netns, program, args, options) {
      const input = options?.input ?? "";
      if (program.endsWith("-restore")) written.push(input);
      const code = input.includes("-X ISTIO_OUTPUT") ? exchangeCode : 0;
      const stdout = args.includes("--version") ? "v1.8.9 (nf_tables)" : netns === undefined ? "" : listing;
      return Promise.resolve({ code, stdout, stderr: "busy" });
    },
    [Symbol.dispose]() {},
  };
  const found = await IptablesProgram.find("nft", "ipv4", { runner, strict: true });
  if ("missing" in found) throw new Error(found.missing);
  const programs = { ipv4: found.program, ipv6: undefined };
  return { redirection: new IptablesRedirection("nft", { programs, runner, reconcile, log }), written };
}

const kinds = (written: readonly string[]) =>
  written.map((text) =>
    text === guardrailCommands("put") ? "put" : text === guardrailCommands("take") ? "take" : "exchange"
  );

Deno.test({
  name: "IptablesRedirection holds everything back while it exchanges, and lets go once it has (CNI-135, CNI-136)",
  ignore: Deno.uid() !== 0,
  async fn() {
    using netns = createAnonymousNetns();
    const { redirection, written } = await backend(STALE);
    await redirection.apply(netns, { ipv6: false });
    assertEquals(kinds(written), ["put", "exchange", "take"]);
    const nat = written[1]!.split("* nat\n")[1]!.split("\n");
    assertEquals(nat.slice(0, 4), [
      "-D OUTPUT -j ISTIO_OUTPUT",
      "-F ISTIO_OUTPUT",
      "-X ISTIO_OUTPUT",
      "-N ISTIO_PRERT",
    ], "out and in are one commit");
    const without = await backend(STALE, { reconcile: false });
    await without.redirection.apply(netns, { ipv6: false });
    assertEquals(kinds(without.written), ["exchange"]);
    const clean = await backend("");
    await clean.redirection.apply(netns, { ipv6: false });
    assertEquals([clean.written.length, clean.written[0]!.includes("DROP")], [1, false], "nothing to exchange");
  },
});

Deno.test({
  name: "IptablesRedirection lets nothing through when an exchange fails, until one succeeds (CNI-136)",
  ignore: Deno.uid() !== 0,
  async fn() {
    using netns = createAnonymousNetns();
    const failing = await backend(STALE, { exchangeCode: 4 });
    const error = await assertRejects(async () => await failing.redirection.apply(netns, { ipv6: false }), MeshError);
    assertEquals([error.code, kinds(failing.written)], ["AMB7142", ["put", "exchange"]]);
    const again = await backend(STALE + GUARDED);
    await again.redirection.apply(netns, { ipv6: false });
    assertEquals(kinds(again.written), ["exchange", "take"], "they are not put twice");
  },
});
