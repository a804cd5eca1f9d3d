/** Who may read which debug page (CP-016, CP-017). */
import { parseIdentity } from "../../mesh/identity.ts";

/** Pages that speak of one proxy: callers of an ordinary namespace may read them, of that namespace's proxies. */
const PROXY_PAGES: readonly string[] = ["config_dump", "ndsz", "edsz"];

/** A caller who may read something. */
export interface DebugReader {
  /** @param page its name, without `/debug/`. */
  allows(page: string): boolean;
  /** Whether proxies of that namespace may be spoken of. */
  shows(namespace: string): boolean;
}

export type DebugAccess = DebugReader | "nobody";

/** Of a caller on this machine, and of the mesh's own namespaces. */
export const ALL_PAGES: DebugReader = { allows: () => true, shows: () => true };

export interface DebugAccessRules {
  /** Namespaces whose identities may read everything: the root namespace, istiod's own, and further ones by setting. */
  readonly namespaces: ReadonlySet<string>;
  /** Whether an identity's namespace matters at all. */
  readonly enforced: boolean;
}

/** What a caller may read, by what it was authenticated as; without an identity nothing. */
export function debugAccess(identities: readonly string[], { namespaces, enforced }: DebugAccessRules): DebugAccess {
  const own = identities.map((uri) => parseIdentity(uri)?.namespace).filter((it) => it !== undefined);
  if (own.length === 0) return "nobody";
  if (!enforced || own.some((namespace) => namespaces.has(namespace))) return ALL_PAGES;
  return { allows: (page) => PROXY_PAGES.includes(page), shows: (namespace) => own.includes(namespace) };
}
