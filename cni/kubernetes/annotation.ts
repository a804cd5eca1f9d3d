/** Says in the pod's status what its traffic does (CNI-082). */
import { type KubeApi, KubeError } from "../../kube/api.ts";
import { PODS } from "../../kube/resource_types.ts";
import { type NodePod, REDIRECTION, type Redirection } from "./node_pod.ts";

/** A merge patch of `status`, for which the right to write pods is not needed. A pod that is gone needs no annotation. */
export async function annotate(api: Pick<KubeApi, "patch">, pod: NodePod, redirection: Redirection): Promise<void> {
  const value = redirection === "none" ? null : redirection;
  try {
    await api.patch(PODS, { namespace: pod.namespace, name: pod.name, subresource: "status" }, {
      metadata: { uid: pod.uid, annotations: { [REDIRECTION]: value } }, // The uid: never another pod of its name.
    });
  } catch (error) {
    if (error instanceof KubeError && (error.status === 404 || error.status === 409)) return;
    throw error;
  }
}
