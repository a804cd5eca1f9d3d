import { assert, assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../base/errors.ts";
import { unitDropIn } from "./unit_drop_in.ts";

const FLAGS = ["--namespace", "shop", "--service-account", "web", "--name", "web-0", "--ports", "8080,8443"];

Deno.test("a unit's drop-in enrols it before its program starts, or the start fails (CNI-277)", () => {
  const text = unitDropIn("unit/web.service", [...FLAGS, "--drop-in", "--wait", "5s", "--output=json"]);
  const line = text.split("\n").find((it) => it.startsWith("ExecStartPre="));
  assertEquals(
    line,
    "ExecStartPre=+/usr/local/bin/ambit enroll unit/%n --namespace shop --service-account web --name web-0 " +
      "--ports 8080,8443 --wait 30s",
  );
  assert(text.includes("After=ambit-cni.service ambit-ztunnel.service"));
  assertEquals(/^ExecStartPre=-/m.test(text), false, "a failure is not passed over");
});

Deno.test("what is no unit, or would be read otherwise by systemd, makes no drop-in", () => {
  for (
    const [target, flags] of [["netns/web", FLAGS], ["unit/web.service", ["--name", "a b"]], ["unit/x.service", [
      "%h",
    ]]] as const
  ) {
    assertEquals(assertThrows(() => unitDropIn(target, flags), MeshError).code, "AMB7500");
  }
});
