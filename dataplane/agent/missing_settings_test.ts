/** Nobody is less safe than the environment says. */
import { assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { checkMissingSettings } from "./missing_settings.ts";

function check(environment: Readonly<Record<string, string>>): string[] {
  const lines: string[] = [];
  checkMissingSettings(
    (name) => environment[name],
    new Logger("test", { json: true, sink: (line) => lines.push(line) }),
  );
  return lines.map((line) => (JSON.parse(line) as { name: string }).name);
}

Deno.test("checkMissingSettings() tells of what merely adds (ZT-079)", () => {
  assertEquals(check({ TLS12_ENABLED: "true", FAKE_CA: "false" }), ["TLS12_ENABLED"]);
});
