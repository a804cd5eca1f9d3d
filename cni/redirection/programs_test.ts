import { assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { createAnonymousNetns } from "../../os/netns.ts";
import { ProgramThread } from "./programs.ts";

const privileged = Deno.uid() === 0;

Deno.test({
  name:
    "ProgramThread runs a program in a pod's namespace, without name services, and tells how it ended (CNI-023, CNI-141)",
  ignore: !privileged,
  async fn() {
    const warnings: string[] = [];
    using programs = new ProgramThread(new Logger("test", { sink: (line) => warnings.push(line) }));
    using pod = createAnonymousNetns();
    const before = Deno.readTextFileSync("/proc/thread-self/mounts");
    const inside = await programs.run(pod, "readlink", ["/proc/self/ns/net"]);
    assertEquals(inside?.stdout.trim(), `net:[${pod.inode}]`);
    assertEquals((await programs.run(pod, "cat", ["/etc/nsswitch.conf"]))?.stdout, "");
    assertEquals((await programs.run(pod, "cat", [], { input: "rules" }))?.stdout, "rules");
    assertEquals((await programs.run(pod, "sh", ["-c", "exit 3"], { input: "unread".repeat(100_000) }))?.code, 3);
    assertEquals((await programs.run(undefined, "sh", ["-c", "printf %s $A"], { env: { A: "b" } }))?.stdout, "b");
    assertEquals(await programs.run(pod, "a-program-that-nobody-has", []), undefined);
    assertEquals(
      [Deno.readTextFileSync("/proc/thread-self/mounts"), warnings],
      [before, []],
      "mounts stay the thread's own",
    );
  },
});
