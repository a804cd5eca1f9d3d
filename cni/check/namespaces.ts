/** The network namespaces of a node, found without an agent: those with a name, and those of processes. */
import { ignore, MeshError } from "../../base/errors.ts";
import { NAMED_NETNS_FOLDER, type Netns, openNetns, ownNetns } from "../../os/netns.ts";

export interface FoundNamespace {
  /** As a target is named: `netns/NAME` or `pid/N`. */
  readonly target: string;
  readonly netns: Netns;
}

/** Each one once, but not that of this process; the caller closes them. @param procDir the host's /proc. */
export function findNamespaces(procDir: string): FoundNamespace[] {
  const found = new Map<string, FoundNamespace>();
  using own = ownNetns();
  const take = (target: string, path: string) => {
    try {
      const netns = openNetns(path), key = `${netns.device} ${netns.inode}`;
      if (found.has(key) || netns.equals(own)) netns[Symbol.dispose]();
      else found.set(key, { target, netns });
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      ignore(error, "the process has ended, or the name has no namespace any more");
    }
  };
  for (const name of names(NAMED_NETNS_FOLDER)) take(`netns/${name}`, `${NAMED_NETNS_FOLDER}/${name}`);
  for (const pid of names(procDir)) if (/^\d+$/.test(pid)) take(`pid/${pid}`, `${procDir}/${pid}/ns/net`);
  return [...found.values()];
}

function names(folder: string): string[] {
  try {
    return [...Deno.readDirSync(folder)].map(({ name }) => name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}
