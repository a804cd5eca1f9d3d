/** Moments as certificates write them. */
import { TAG, text } from "../../wire/der.ts";

/** A moment as certificates have it (RFC 5280 §4.1.2.5): two digits of a year until 2049, four from then on; whole seconds. */
export function time(ms: number): Uint8Array {
  const digits = new Date(ms).toISOString().replace(/[-:T]|\.\d+/g, "");
  return digits < "2050" ? text(TAG.UTC_TIME, digits.slice(2)) : text(TAG.GENERALIZED_TIME, digits);
}
