/** Who may take a lock from whom (CP-651). */

/** One candidate's standing. */
export interface Rank {
  /** Never empty; `default` for a control plane without a revision. */
  readonly revision: string;
  /** Whether it runs outside the cluster whose lock it is. */
  readonly remote: boolean;
}

const REMOTE_PREFIX = "^";

/** What a candidate writes beside its name, for others to rank it by. */
export function rankKey({ revision, remote }: Rank): string {
  return remote ? `${REMOTE_PREFIX}${revision}` : revision;
}

/**
 * Whether a candidate may take the lock from a holder whose lease has not run out: the default revision from any other,
 * and within a revision one in the cluster from one outside it. Of two, never both may.
 */
export function takesOver(own: Rank, holderKey: string, defaultRevision: string | undefined): boolean {
  const holderRemote = holderKey.startsWith(REMOTE_PREFIX);
  const holderRevision = holderRemote ? holderKey.slice(REMOTE_PREFIX.length) : holderKey;
  if (own.revision !== holderRevision) return own.revision === defaultRevision;
  return !own.remote && holderRemote;
}
