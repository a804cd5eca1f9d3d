/** Which of Istio's settings are told of as doing nothing. */
import { assertEquals } from "@std/assert";
import { ISTIOD_CONFIG } from "./config.ts";
import { idleSettings } from "./idle_settings.ts";

const names = (env: Record<string, string>, ambient = true) =>
  idleSettings((name) => env[name], { ambient }).map(({ name }) => name);

Deno.test("idleSettings() tells of flags that other istiods have, where they ask for what is not done here (CP-028)", () => {
  assertEquals(names({}), []);
  const asked = {
    AMBIENT_ENABLE_BAGGAGE: "true",
    AMBIENT_SCOPED_ADDRESS_PUSHES: "false",
    PILOT_ENABLE_AMBIENT: "true",
  };
  assertEquals(names(asked), ["AMBIENT_SCOPED_ADDRESS_PUSHES", "AMBIENT_ENABLE_BAGGAGE"]);
  assertEquals(
    names({ AMBIENT_ENABLE_BAGGAGE: "False", PILOT_ENABLE_AMBIENT_WAYPOINTS: "true" }),
    [],
    "as it is anyhow",
  );
});

Deno.test("idleSettings() tells of the ambient mode's flags while that is off (CP-014)", () => {
  const asked = { AMBIENT_ENABLE_STATUS: "true", PILOT_AUTO_ALLOW_WAYPOINT_POLICY: "false" };
  assertEquals(names(asked, false), ["AMBIENT_ENABLE_STATUS", "PILOT_AUTO_ALLOW_WAYPOINT_POLICY"]);
  assertEquals(names(asked), []);
});

/** CP-028's list, with the defaults that it gives while ambient mode is on. */
const ROWS: Readonly<Record<string, unknown>> = {
  AMBIENT_ENABLE_STATUS: true,
  PILOT_AUTO_ALLOW_WAYPOINT_POLICY: false,
  AMBIENT_ENABLE_MULTI_NETWORK: false,
  AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY: false,
  PILOT_ENABLE_SERVICEENTRY_SELECT_PODS: true,
  PILOT_ENABLE_K8S_SELECT_WORKLOAD_ENTRIES: true,
  PILOT_ENABLE_IP_AUTOALLOCATE: true,
};
const REST = [
  "PILOT_ENABLE_AMBIENT_WAYPOINTS",
  "ENABLE_INGRESS_WAYPOINT_ROUTING",
  "AMBIENT_ENABLE_MULTI_NETWORK_WAYPOINT",
  "AMBIENT_ENABLE_MULTI_NETWORK_INGRESS",
  "AMBIENT_ENABLE_BAGGAGE",
  "AMBIENT_SCOPED_ADDRESS_PUSHES",
  "ENABLE_LAYERED_WAYPOINT_AUTHORIZATION_POLICIES",
  "PILOT_HBONE_INITIAL_STREAM_WINDOW_SIZE",
  "PILOT_HBONE_INITIAL_CONNECTION_WINDOW_SIZE",
];

Deno.test("every ambient flag of Istio's has its row with Istio's default, or its word that it does nothing (CP-028)", () => {
  const settings = Object.values(ISTIOD_CONFIG.table) as readonly {
    readonly env?: string;
    readonly default?: unknown;
  }[];
  for (const [name, value] of Object.entries(ROWS)) {
    assertEquals(settings.find(({ env }) => env === name)?.default, value, name);
  }
  for (const name of REST) assertEquals(names({ [name]: "other" }), [name]);
});
