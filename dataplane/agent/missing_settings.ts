/** Settings of Istio's ztunnel that this one does not have: those that merely add or tune, which are told of. */
import type { Logger } from "../../base/log.ts";
import {
  HBONE_CONNECTION_WINDOW_BYTES,
  HBONE_FRAME_PAYLOAD_BYTES_MAX,
  HBONE_STREAM_WINDOW_BYTES,
} from "../../wire/h2/settings.ts";
import { invalidVariable } from "./settings_sources.ts";

const SWITCHES: readonly (readonly [name: string, instead: string])[] = [
  ["FAKE_CA", "certificates come from CA_ADDRESS"],
];

/** What HBONE announces is the same for all (ZT-061): a session may move to a successor that was started otherwise. */
const SIZES: readonly (readonly [name: string, bytes: number])[] = [
  ["HTTP2_STREAM_WINDOW_SIZE", HBONE_STREAM_WINDOW_BYTES],
  ["HTTP2_CONNECTION_WINDOW_SIZE", HBONE_CONNECTION_WINDOW_BYTES],
  ["HTTP2_FRAME_SIZE", HBONE_FRAME_PAYLOAD_BYTES_MAX],
];

/** Every variable that is told of and not obeyed. */
export const MISSING_SETTINGS: readonly string[] = [...SWITCHES, ...SIZES].map(([name]) => name);

/** Tells of each that is asked for. @throws MeshError AMB0324 for a size that is no number */
export function checkMissingSettings(environment: (name: string) => string | undefined, log: Logger): void {
  for (const [name, instead] of SWITCHES) {
    const value = environment(name)?.toLowerCase() ?? "";
    if (value === "true" || value === "1") log.warn("a setting that is not there yet", { name, instead });
  }
  for (const [name, bytes] of SIZES) {
    const value = environment(name) ?? "";
    if (value === "") continue;
    if (!/^\d{1,10}$/.test(value)) throw invalidVariable(name, value, "not a whole number of bytes");
    if (Number(value) !== bytes) {
      log.warn("a setting that is not there yet", { name, instead: `it is always ${bytes}` });
    }
  }
}
