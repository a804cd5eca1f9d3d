import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { MeshError } from "../base/errors.ts";
import { oneTarget, splitArguments } from "./arguments.ts";
import { ENROLL_CONFIG, runEnroll } from "./enroll.ts";
import { runUnenroll } from "./unenroll.ts";

Deno.test("splitArguments() tells targets from flags and their values", () => {
  const split = (line: string) => splitArguments(ENROLL_CONFIG, line.split(" "));
  assertEquals(split("netns/a --namespace shop -o json --name=x"), {
    flags: ["--namespace", "shop", "--output", "json", "--name=x"],
    positionals: ["netns/a"],
  });
  assertEquals(split("--list netns/a").positionals, ["netns/a"]);
  assertEquals(split("--unknown x --name").flags, ["--unknown", "x", "--name"]);
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
