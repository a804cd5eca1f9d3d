/** Calls to the API server, and what is said when it does not let us. */
import { chain, MeshError } from "../../base/errors.ts";
import { KubeError, KubeUnreachable } from "../../kube/api.ts";

/** Throws AMB7173 with what was being done, AMB0295 where nobody answers. */
export async function attempt<T>(doing: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (cause instanceof KubeUnreachable) {
      throw new MeshError("AMB0295", `the API server does not answer: cannot ${doing}`, {
        remedy: "See that the kubeconfig's server is up and reached from here, or choose another by --context or " +
          "--kubeconfig; doing it again passes over what is done already.",
        cause,
      });
    }
    if (!(cause instanceof KubeError)) throw cause;
    throw new MeshError("AMB7173", `cannot ${doing}: ${chain(cause)}`, {
      remedy: "See that the kubeconfig's user may do this (cluster-admin for an installation), then do it again: " +
        "what is done already is passed over.",
    });
  }
}
