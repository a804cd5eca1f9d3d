/** Plain data: what JSON and YAML can say, before anything is known of its shape. Objects may have any own key, `__proto__` included. */
export type Plain = null | boolean | number | string | readonly Plain[] | { readonly [key: string]: Plain };

/** A map whose values are not known yet. */
export type Fields = Readonly<Record<string, unknown>>;

/** Whether it is a map: neither nothing, nor a list, nor a single value. */
export function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
