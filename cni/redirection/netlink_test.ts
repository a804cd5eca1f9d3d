import { assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { netlinkCandidate } from "./netlink.ts";

Deno.test({
  name: "nf_tables over netlink lacks nothing where the kernel has it, and asks no program (CNI-144)",
  ignore: Deno.uid() !== 0,
  async fn() {
    const runner = { run: () => Promise.reject(new Error("no program is run")), [Symbol.dispose]() {} };
    const log = new Logger("test", { sink: () => {} });
    assertEquals(await netlinkCandidate({ runner, log }).missing(), []);
  },
});
