import { assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { findCgroupRoot, findCgroups, globMatcher, isWithin, levelOf, openCgroup, unifiedPathOf } from "./cgroups.ts";

Deno.test("findCgroupRoot() finds version 2 wherever it is mounted (CNI-274)", () => {
  const v1 = "30 24 0:26 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu";
  const unified = "31 24 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw";
  assertEquals(findCgroupRoot(`${v1}\n${unified}\n`), "/sys/fs/cgroup/unified");
  assertEquals(findCgroupRoot("31 24 0:27 / /a\\040b rw - cgroup2 none rw"), "/a b");
  assertEquals(assertThrows(() => findCgroupRoot(v1), MeshError).code, "AMB7160");
});

Deno.test("findCgroups() finds a unit in whatever slice it is, and a path's level counts its parts", () => {
  const root = Deno.makeTempDirSync();
  try {
    Deno.mkdirSync(`${root}/user.slice/user-0.slice/web.service`, { recursive: true });
    Deno.writeTextFileSync(`${root}/cgroup.procs`, "");
    const found = findCgroups(root, (name) => name === "web.service");
    assertEquals(found.map(({ path }) => path), ["user.slice/user-0.slice/web.service"]);
    assertEquals(found[0], openCgroup(root, found[0]!.path));
    assertEquals(levelOf(found[0]!), 3);
    assertEquals([openCgroup(root, "none"), openCgroup(root, "cgroup.procs")], [undefined, undefined]);
    const unseen = assertThrows(() => openCgroup(root, "x".repeat(300)), MeshError);
    assertEquals(unseen.code, "AMB7273", "which is not to be gone");
  } finally {
    Deno.removeSync(root, { recursive: true });
  }
});

Deno.test("unifiedPathOf() and isWithin() tell which group a process is in", () => {
  assertEquals(unifiedPathOf("4:memory:/x\n0::/system.slice/web.service\n"), "system.slice/web.service");
  assertEquals([unifiedPathOf("0::/\n"), unifiedPathOf("4:memory:/x\n")], ["", undefined]);
  assertEquals([isWithin("a/b", "a"), isWithin("a", "a"), isWithin("ab", "a")], [true, true, false]);
});

Deno.test("globMatcher() knows star and question mark alone", () => {
  const matches = globMatcher("web@?.ser*");
  assertEquals(["web@1.service", "web@.service", "web@1xservice", "web@12.service"].map(matches), [
    true,
    false,
    false,
    false,
  ]);
});
