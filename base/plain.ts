/** Plain data: what JSON and YAML can say, before anything is known of its shape. Objects may have any own key, `__proto__` included. */
export type Plain = null | boolean | number | string | readonly Plain[] | { readonly [key: string]: Plain };
