import { assert, assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../base/errors.ts";
import { countDescriptors, countNetnsDescriptors } from "./descriptors_testing.ts";
import {
  createAnonymousNetns,
  createNamedNetns,
  deleteNamedNetns,
  namedNetnsPath,
  openNetns,
  ownNetns,
  withinNetns,
} from "./netns.ts";
import { runWithin, spawnWithin } from "./process.ts";

const privileged = Deno.uid() === 0;
const inodeOf = (output: Deno.CommandOutput) => Number(/\[(\d+)\]/.exec(new TextDecoder().decode(output.stdout))?.[1]);

Deno.test({
  name: "withinNetns() runs its body inside and comes back, also when the body throws (CNI-023, ZT-172)",
  ignore: !privileged,
  fn() {
    using home = ownNetns();
    using netns = createAnonymousNetns();
    assert(!netns.equals(home));
    const inode = withinNetns(netns, () => {
      using inside = ownNetns();
      return inside.inode;
    });
    assertEquals(inode, netns.inode);
    assertThrows(() =>
      withinNetns(netns, () => {
        throw new RangeError("from inside");
      }), RangeError);
    assertThrows(() => withinNetns(netns, () => Promise.resolve(1)));
    using after = ownNetns();
    assert(after.equals(home));
  },
});

Deno.test({
  name: "a namespace's handles are closed, every one of them, whatever happens",
  ignore: !privileged,
  fn() {
    using netns = createAnonymousNetns();
    const file = Deno.makeTempFileSync();
    for (let round = 0; round < 20; round++) {
      using twin = netns.duplicate();
      assert(twin.equals(netns));
      assertEquals(withinNetns(twin, () => openOwn()), netns.inode);
      assertThrows(() =>
        withinNetns(twin, () => {
          throw new RangeError("from inside");
        }), RangeError);
      assertThrows(() => openNetns(file), MeshError);
      assertThrows(() => openNetns("/proc/self/ns/uts"), MeshError);
      assertThrows(() => openNetns("/nowhere"), MeshError);
    }
    assertEquals(countNetnsDescriptors(netns), 1, "only our own handle is open");
    assertEquals(countDescriptors(file), 0);
    Deno.removeSync(file);
  },
});

function openOwn(): number {
  using own = ownNetns();
  return own.inode;
}

Deno.test({
  name: "createNamedNetns() makes a namespace that other programs find by name",
  ignore: !privileged,
  fn() {
    const name = `ambit-test-${Deno.pid}`;
    using netns = createNamedNetns(name);
    try {
      using opened = openNetns(namedNetnsPath(name));
      assert(opened.equals(netns));
      assertEquals(assertThrows(() => createNamedNetns(name), MeshError).code, "AMB7004");
      const elsewhere = new Deno.Command("readlink", { args: ["/proc/self/ns/net"] }).outputSync();
      using home = ownNetns();
      assertEquals(inodeOf(elsewhere), home.inode);
    } finally {
      assertEquals(deleteNamedNetns(name), true);
    }
    assertEquals(deleteNamedNetns(name), false);
    for (const bad of ["", "..", "a/b", ".hidden", "x".repeat(64)]) {
      assertEquals(assertThrows(() => namedNetnsPath(bad), MeshError).code, "AMB7004");
    }
  },
});

Deno.test({
  name: "spawnWithin() and runWithin() start programs whose namespace is the given one",
  ignore: !privileged,
  async fn() {
    using netns = createAnonymousNetns();
    const readlink: Deno.CommandOptions = { args: ["/proc/self/ns/net"], stdout: "piped" };
    assertEquals(inodeOf(runWithin(netns, "readlink", readlink)), netns.inode);
    const children = Array.from({ length: 8 }, () => spawnWithin(netns, "readlink", readlink).output());
    for (const child of children) assertEquals(inodeOf(await child), netns.inode);
  },
});
