/** Limits of the process. */
const libc = Deno.dlopen("libc.so.6", {
  getrlimit: { parameters: ["i32", "buffer"], result: "i32" }, // int resource, struct rlimit *
  setrlimit: { parameters: ["i32", "buffer"], result: "i32" }, // int resource, const struct rlimit *
}).symbols;

const RLIMIT_NOFILE = 7;

/** Raises the soft limit of open files to the hard one (ZT-220). @returns The limit in force. */
export function raiseOpenFileLimit(): number {
  const limit = new BigUint64Array(2); // struct rlimit: soft, hard
  const bytes = new Uint8Array(limit.buffer);
  if (libc.getrlimit(RLIMIT_NOFILE, bytes) !== 0) return 0;
  limit[0] = limit[1]!;
  libc.setrlimit(RLIMIT_NOFILE, bytes); // Up to the hard limit this is always allowed.
  libc.getrlimit(RLIMIT_NOFILE, bytes);
  return Number(limit[0] < 0xffff_ffffn ? limit[0] : 0xffff_ffffn);
}
