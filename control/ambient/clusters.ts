/**
 * Which cluster an item is of, told by its key: the config cluster's keys are object keys as they are, those of another
 * end in `@` and its id. No Kubernetes name holds an `@`, and no cluster's id is empty.
 */
/** What a key of the cluster ends in: empty for the config cluster. */
export type ClusterSuffix = string;

/** @param cluster undefined for the config cluster. */
export function suffixOfCluster(cluster: string | undefined): ClusterSuffix {
  return cluster === undefined ? "" : `@${cluster}`;
}

/** The end of an item's key. */
export function suffixOf(key: string): ClusterSuffix {
  const at = key.indexOf("@");
  return at < 0 ? "" : key.slice(at);
}

/** The cluster's id; undefined for the config cluster. */
export function clusterOf(suffix: ClusterSuffix): string | undefined {
  return suffix === "" ? undefined : suffix.slice(1);
}
