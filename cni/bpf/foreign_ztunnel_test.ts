import { assertEquals, assertStringIncludes } from "@std/assert";
import { ProgramKind } from "../../os/bpf/programs.ts";
import { ZdsFeature } from "../../mesh/proto/zds_codec.ts";
import { refusesForeign } from "./foreign_ztunnel.ts";

Deno.test("refusesForeign() tells a ztunnel of another make by its hello, and names the setting with its control group (CNI-202)", () => {
  const cgroupOf = (processId: number) => processId === 7 ? "/sys/fs/cgroup/zt.service" : undefined;
  const asked = (redirection: "bpf" | "nft", bpfForeignZtunnel?: string) =>
    refusesForeign({ settings: { bpfForeignZtunnel }, redirection: { name: redirection }, cgroupOf });
  assertStringIncludes(asked("bpf")(0, 7)!, "--bpf-foreign-ztunnel=/sys/fs/cgroup/zt.service");
  for (const processId of [8, 0, undefined]) {
    assertStringIncludes(asked("bpf")(0, processId)!, "=DIR, with DIR for its control group");
  }
  const served = [
    asked("bpf")(ZdsFeature.SHARED_NETNS, 7),
    asked("nft")(0, 7),
    asked("bpf", "/sys/fs/cgroup/zt.service")(0, 7),
  ];
  assertEquals(served, [undefined, undefined, undefined]);
  assertEquals(refusesForeign({ settings: {}, redirection: { name: "nft" } })(0, Deno.pid), undefined);
});

Deno.test("no program of ours joins sockets, so that nothing between two pods passes by encryption and policies (CNI-213)", () => {
  const SK_SKB = 14, SK_MSG = 16; // BPF_PROG_TYPE_…: those that move bytes from socket to socket.
  assertEquals(Object.values(ProgramKind).filter(({ type }) => ([SK_SKB, SK_MSG] as number[]).includes(type)), []);
});
