/** Settings of Istio's istiod that do nothing here, so that who sets one is told (CP-014, CP-028). */

/** Of an environment variable, why it does nothing. */
export interface IdleSetting {
  readonly name: string;
  readonly reason: string;
}

const OF_WAYPOINTS = "it is of waypoints and gateways, which this istiod configures none of yet";
const ALWAYS = "it is always so here";

/** Istio's flags of the ambient mode that have no row in our table: the value that is ours, and why there is no other. */
const IDLE: Readonly<Record<string, { readonly ours: string; readonly reason: string }>> = {
  PILOT_ENABLE_AMBIENT_WAYPOINTS: { ours: "true", reason: ALWAYS },
  AMBIENT_SCOPED_ADDRESS_PUSHES: { ours: "true", reason: ALWAYS },
  ENABLE_INGRESS_WAYPOINT_ROUTING: { ours: "true", reason: OF_WAYPOINTS },
  AMBIENT_ENABLE_MULTI_NETWORK_WAYPOINT: { ours: "true", reason: OF_WAYPOINTS },
  AMBIENT_ENABLE_MULTI_NETWORK_INGRESS: { ours: "false", reason: OF_WAYPOINTS },
  AMBIENT_ENABLE_BAGGAGE: { ours: "false", reason: OF_WAYPOINTS },
  ENABLE_LAYERED_WAYPOINT_AUTHORIZATION_POLICIES: { ours: "false", reason: OF_WAYPOINTS },
  PILOT_HBONE_INITIAL_STREAM_WINDOW_SIZE: { ours: "0", reason: OF_WAYPOINTS },
  PILOT_HBONE_INITIAL_CONNECTION_WINDOW_SIZE: { ours: "0", reason: OF_WAYPOINTS },
};

/** Those with a row that mean nothing unless ambient mode is on. */
const AMBIENT_ONLY = [
  "AMBIENT_ENABLE_STATUS",
  "AMBIENT_ENABLE_MULTI_NETWORK",
  "AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY",
  "PILOT_AUTO_ALLOW_WAYPOINT_POLICY",
];

/** What of the environment does nothing. A value that is what happens anyhow is no news. */
export function idleSettings(
  env: (name: string) => string | undefined,
  { ambient }: { readonly ambient: boolean },
): IdleSetting[] {
  const found: IdleSetting[] = [];
  for (const [name, { ours, reason }] of Object.entries(IDLE)) {
    const value = env(name) ?? "";
    if (value !== "" && value.toLowerCase() !== ours) found.push({ name, reason });
  }
  if (ambient) return found;
  const set = AMBIENT_ONLY.filter((name) => (env(name) ?? "") !== "");
  return [...found, ...set.map((name) => ({ name, reason: "it requires PILOT_ENABLE_AMBIENT=true" }))];
}
