/** For tests of leaks: which of this process's descriptors mean one particular thing. */

/**
 * How many open descriptors have this link in `/proc/self/fd`, such as a file's path or `net:[4026532177]`. Unlike a
 * count of all descriptors it holds while other tests run in the same process.
 */
export function countDescriptors(link: string): number {
  let count = 0;
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    try {
      if (Deno.readLinkSync(`/proc/self/fd/${name}`) === link) count++;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error; // Closed since the listing: not ours to count.
    }
  }
  return count;
}

/** How many open descriptors are of this network namespace, a {@link Netns} handle's own included. */
export function countNetnsDescriptors(netns: { readonly inode: number }): number {
  return countDescriptors(`net:[${netns.inode}]`);
}
