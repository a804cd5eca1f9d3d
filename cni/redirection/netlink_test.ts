import { assertEquals } from "@std/assert";
import { NETLINK_CANDIDATE } from "./netlink.ts";

Deno.test({
  name: "nf_tables over netlink lacks nothing where the kernel has it (CNI-144)",
  ignore: Deno.uid() !== 0,
  async fn() {
    assertEquals(await NETLINK_CANDIDATE.missing(), []);
  },
});
