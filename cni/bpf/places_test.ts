import { assertEquals } from "@std/assert";
import { findCgroupRoot } from "./places.ts";

Deno.test("findCgroupRoot() takes the node's mount before the container's own, and says when there is none (CNI-216)", () => {
  const hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
  assertEquals(findCgroupRoot("", hybrid), "/sys/fs/cgroup/unified");
  const inside = "cgroup2 /sys/fs/cgroup cgroup2 ro 0 0\ncgroup2 /host/sys/fs/cgroup cgroup2 rw 0 0\n";
  assertEquals(findCgroupRoot("/host", inside), "/host/sys/fs/cgroup");
  assertEquals(findCgroupRoot("", inside), "/sys/fs/cgroup");
  assertEquals(findCgroupRoot("/host", "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n"), undefined);
});
