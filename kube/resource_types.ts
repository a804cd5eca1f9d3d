/** The kinds that we read or write, as the API serves them. */
import type { ResourceType } from "./api.ts";

const row = (group: string, version: string, kind: string, plural: string, namespaced = true): ResourceType =>
  Object.freeze({ group, version, kind, plural, namespaced });

export const NAMESPACES = row("", "v1", "Namespace", "namespaces", false);
export const NODES = row("", "v1", "Node", "nodes", false);
export const PODS = row("", "v1", "Pod", "pods");
export const SERVICES = row("", "v1", "Service", "services");
export const SERVICE_ACCOUNTS = row("", "v1", "ServiceAccount", "serviceaccounts");
export const CONFIG_MAPS = row("", "v1", "ConfigMap", "configmaps");
export const SECRETS = row("", "v1", "Secret", "secrets");
export const EVENTS = row("", "v1", "Event", "events");
export const ENDPOINT_SLICES = row("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices");
export const NETWORK_POLICIES = row("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies");
export const DEPLOYMENTS = row("apps", "v1", "Deployment", "deployments");
export const DAEMON_SETS = row("apps", "v1", "DaemonSet", "daemonsets");
export const LEASES = row("coordination.k8s.io", "v1", "Lease", "leases");
export const CUSTOM_RESOURCE_DEFINITIONS = row(
  "apiextensions.k8s.io",
  "v1",
  "CustomResourceDefinition",
  "customresourcedefinitions",
  false,
);
export const TOKEN_REVIEWS = row("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", false);
export const CLUSTER_TRUST_BUNDLES = row(
  "certificates.k8s.io",
  "v1beta1",
  "ClusterTrustBundle",
  "clustertrustbundles",
  false,
);
export const VALIDATING_WEBHOOKS = row(
  "admissionregistration.k8s.io",
  "v1",
  "ValidatingWebhookConfiguration",
  "validatingwebhookconfigurations",
  false,
);
export const MUTATING_WEBHOOKS = row(
  "admissionregistration.k8s.io",
  "v1",
  "MutatingWebhookConfiguration",
  "mutatingwebhookconfigurations",
  false,
);
export const GATEWAYS = row("gateway.networking.k8s.io", "v1", "Gateway", "gateways");
export const GATEWAY_CLASSES = row("gateway.networking.k8s.io", "v1", "GatewayClass", "gatewayclasses", false);
export const HTTP_ROUTES = row("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes");
export const GRPC_ROUTES = row("gateway.networking.k8s.io", "v1", "GRPCRoute", "grpcroutes");
export const AUTHORIZATION_POLICIES = row("security.istio.io", "v1", "AuthorizationPolicy", "authorizationpolicies");
export const PEER_AUTHENTICATIONS = row("security.istio.io", "v1", "PeerAuthentication", "peerauthentications");
export const SERVICE_ENTRIES = row("networking.istio.io", "v1", "ServiceEntry", "serviceentries");
export const WORKLOAD_ENTRIES = row("networking.istio.io", "v1", "WorkloadEntry", "workloadentries");
