import { assertEquals } from "@std/assert";
import { ZTUNNEL_CONFIG } from "../config.ts";
import { shownSettings } from "./shown_settings.ts";

function shown(environment: Record<string, string>): Record<string, unknown> {
  const { config } = ZTUNNEL_CONFIG.parse([], (name) => environment[name]);
  return shownSettings(config) as Record<string, unknown>;
}

Deno.test("shownSettings() has every setting but secrets, durations and addresses in their forms (ZT-214)", () => {
  const token = "eyJ-a-token", settings = shown({ AUTH_TOKEN: token, CONNECTION_TERMINATION_DEADLINE: "1s500ms" });
  const secrets = Object.entries(ZTUNNEL_CONFIG.table).filter(([, setting]) => "secret" in setting && setting.secret);
  assertEquals(secrets.map(([key]) => key in settings), secrets.map(() => false));
  assertEquals(JSON.stringify(settings).includes(token), false);
  for (const key of Object.keys(settings)) assertEquals(/^[a-z][a-zA-Z0-9]*$/.test(key), true, key);
  assertEquals(settings["drainDeadline"], { secs: 1, nanos: 500_000_000 });
  assertEquals(settings["secretTtl"], { secs: 86_400, nanos: 0 });
  assertEquals(settings["adminAddr"], { Localhost: [true, 15000] });
  assertEquals(settings["statsAddr"], { SocketAddr: "[::]:15020" });
  assertEquals(shown({ IPV6_ENABLED: "false" })["readinessAddr"], { SocketAddr: "0.0.0.0:15021" });
});

Deno.test("shownSettings() tells of root certificates where they are, not what they hold (ZT-214)", () => {
  const pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
  assertEquals(shown({ XDS_ROOT_CA: "/roots.pem" })["xdsRootCa"], { File: "/roots.pem" });
  assertEquals(shown({ XDS_ROOT_CA: pem })["xdsRootCa"], "Static");
  assertEquals(shown({ CA_ROOT_CA: "SYSTEM" })["caRootCa"], "Default");
});
