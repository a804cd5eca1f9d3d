/** Calls to the API server, and what is said when it does not let us. */
import { chain, MeshError } from "../../base/errors.ts";
import { KubeError, KubeUnreachable } from "../../kube/api.ts";

/** Throws AMB7173 with what was being done. */
export async function attempt<T>(doing: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (!(cause instanceof KubeError || cause instanceof KubeUnreachable)) throw cause;
    throw new MeshError("AMB7173", `cannot ${doing}: ${chain(cause)}`, {
      remedy: "See that the kubeconfig's user may do this (cluster-admin for an installation), then do it again: " +
        "what is done already is passed over.",
    });
  }
}
