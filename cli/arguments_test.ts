import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { MeshError } from "../base/errors.ts";
import { oneTarget } from "./arguments.ts";
import { runEnroll } from "./enroll.ts";
import { runUnenroll } from "./unenroll.ts";

Deno.test("oneTarget() takes one, neither none nor two", () => {
  assertEquals(oneTarget("ambit enroll", ["netns/a"]), "netns/a");
  assertEquals(assertThrows(() => oneTarget("ambit enroll", []), MeshError).code, "AMB7500");
  assertEquals(assertThrows(() => oneTarget("ambit enroll", ["a", "b"]), MeshError).code, "AMB7500");
});

Deno.test("enroll and unenroll say what is missing before they ask anyone", async () => {
  const codeOf = async (running: Promise<number>) => (await assertRejects(() => running, MeshError)).code;
  assertEquals(await codeOf(runEnroll(["netns/a", "--namespace", "shop"])), "AMB7500");
  assertEquals(await codeOf(runEnroll(["netns/a", "--no-such", "x"])), "AMB0101");
  assertEquals(await codeOf(runUnenroll(["netns/a", "--enrol-socket", "/nowhere/enrol.sock"])), "AMB7501");
  assertEquals(await codeOf(runUnenroll(["netns/a", "--enrol-socket", "/etc/hostname"])), "AMB7501");
  const whole = "--namespace shop --service-account web --name web-0 --enrol-socket /nowhere/enrol.sock".split(" ");
  assertEquals(await codeOf(runEnroll(["netns/a", ...whole])), "AMB7501");
});
