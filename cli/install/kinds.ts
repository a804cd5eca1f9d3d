/** How the API serves the kinds of our manifests. */
import { MeshError } from "../../base/errors.ts";
import type { KubeObject, ResourceType } from "../../kube/api.ts";

const row = (group: string, version: string, kind: string, plural: string, namespaced = true): ResourceType =>
  Object.freeze({ group, version, kind, plural, namespaced });

const RBAC = "rbac.authorization.k8s.io", V1 = "v1";
const KINDS: readonly ResourceType[] = [
  row("", V1, "Namespace", "namespaces", false),
  row("", V1, "ServiceAccount", "serviceaccounts"),
  row("", V1, "ConfigMap", "configmaps"),
  row("", V1, "Service", "services"),
  row("apps", V1, "Deployment", "deployments"),
  row("apps", V1, "DaemonSet", "daemonsets"),
  row(RBAC, V1, "ClusterRole", "clusterroles", false),
  row(RBAC, V1, "ClusterRoleBinding", "clusterrolebindings", false),
  row(RBAC, V1, "Role", "roles"),
  row(RBAC, V1, "RoleBinding", "rolebindings"),
  row("policy", V1, "PodDisruptionBudget", "poddisruptionbudgets"),
  row("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
  row("k8s.cni.cncf.io", V1, "NetworkAttachmentDefinition", "network-attachment-definitions"),
  row("networking.k8s.io", V1, "NetworkPolicy", "networkpolicies"),
  row("admissionregistration.k8s.io", V1, "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", false),
];

/** Throws AMB7172 for a kind that none of our manifests has. */
export function typeOf(object: Pick<KubeObject, "apiVersion" | "kind">): ResourceType {
  const { apiVersion = "", kind } = object;
  const found = KINDS.find((it) =>
    it.kind === kind && (it.group === "" ? it.version : `${it.group}/${it.version}`) === apiVersion
  );
  if (found !== undefined) return found;
  throw new MeshError("AMB7172", `the manifests have ${apiVersion} ${kind}, which the installer does not know`, {
    remedy: "Apply them with kubectl apply --server-side -k deploy/kubernetes.",
  });
}

/** `daemonset/ztunnel in istio-system`, as people write it. */
export function placeText(object: KubeObject): string {
  const { namespace, name } = object.metadata;
  return `${object.kind?.toLowerCase()}/${name}${namespace === undefined ? "" : ` in ${namespace}`}`;
}
