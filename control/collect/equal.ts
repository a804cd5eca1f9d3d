/** Structural equality of plain values: what decides that a recomputation changed nothing. */

/** Whether two values hold the same: primitives, arrays, byte arrays, maps (order of entries aside) and plain objects. */
export function equal(left: unknown, right: unknown): boolean {
  if (Object.is(left, right)) return true;
  if (typeof left !== "object" || typeof right !== "object" || left === null || right === null) return false;
  if (Array.isArray(left) || left instanceof Uint8Array) {
    if (!(Array.isArray(right) || right instanceof Uint8Array) || left.length !== right.length) return false;
    if (left.constructor !== right.constructor) return false;
    for (let at = 0; at < left.length; at++) if (!equal(left[at], right[at])) return false;
    return true;
  }
  if (left instanceof Map) {
    if (!(right instanceof Map) || left.size !== right.size) return false;
    for (const [key, value] of left) if (!right.has(key) || !equal(value, right.get(key))) return false;
    return true;
  }
  if (left.constructor !== right.constructor) return false;
  const keys = Object.keys(left);
  if (keys.length !== Object.keys(right).length) return false;
  const a = left as Record<string, unknown>, b = right as Record<string, unknown>;
  for (const key of keys) if (!Object.hasOwn(b, key) || !equal(a[key], b[key])) return false;
  return true;
}
