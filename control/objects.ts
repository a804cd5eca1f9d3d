/** The Kubernetes objects that istiod derives the mesh from: just the fields it uses (CP section 2.1), whatever source they come from. */
import type { LabelSelector } from "../kube/label_selector.ts";

/** Labels, annotations and selectors. */
export type Labels = ReadonlyMap<string, string>;

/** The controller among an object's owner references. */
export interface ControllerReference {
  readonly kind: string;
  readonly name: string;
}

export interface ObjectMeta {
  readonly name: string;
  /** Empty for cluster-scoped kinds. */
  readonly namespace: string;
  readonly labels: Labels;
  readonly annotations: Labels;
  readonly uid: string;
  /** Counts the changes of the spec, as the API server does; 0 when the object does not say. */
  readonly generation: number;
  /** Since the epoch; 0 when the object does not say. */
  readonly createdAtMs: number;
  /** Whether a deletionTimestamp is set. */
  readonly deleting: boolean;
  readonly generateName: string;
  readonly controller: ControllerReference | undefined;
}

export interface NamespaceObject {
  readonly kind: "Namespace";
  readonly meta: ObjectMeta;
}

export interface NodeObject {
  readonly kind: "Node";
  readonly meta: ObjectMeta;
}

export interface ServiceAccountObject {
  readonly kind: "ServiceAccount";
  readonly meta: ObjectMeta;
}

export interface ContainerPort {
  readonly name: string;
  readonly port: number;
  readonly protocol: string;
}

export interface PodObject {
  readonly kind: "Pod";
  readonly meta: ObjectMeta;
  readonly serviceAccountName: string;
  readonly nodeName: string;
  readonly hostNetwork: boolean;
  /** Of the containers, then of init containers that restart always (sidecars). */
  readonly containerPorts: readonly ContainerPort[];
  /** Empty when the object does not say. */
  readonly phase: string;
  readonly podIps: readonly string[];
  /** Status of the Ready condition; `unstated` when the pod carries no conditions at all. */
  readonly ready: "true" | "false" | "unstated";
}

export interface KubernetesServicePort {
  readonly name: string;
  readonly protocol: string;
  readonly port: number;
  /** A name is resolved by each pod (CP-210). */
  readonly targetPort: number | string;
  readonly appProtocol: string;
}

export interface ServiceObject {
  readonly kind: "Service";
  readonly meta: ObjectMeta;
  readonly type: string;
  /** Of clusterIPs, else clusterIP; `None` and the empty string are left in. */
  readonly clusterIps: readonly string[];
  readonly ports: readonly KubernetesServicePort[];
  readonly selector: Labels;
  readonly ipFamilies: readonly string[];
  readonly internalTrafficPolicy: string;
  readonly trafficDistribution: string;
  readonly publishNotReadyAddresses: boolean;
  /** status.loadBalancer: addresses and names that a load balancer gave it. */
  readonly ingress: readonly string[];
}

export interface SliceEndpoint {
  readonly addresses: readonly string[];
  /** True also when the condition is absent. */
  readonly ready: boolean;
  readonly target:
    | { readonly kind: string; readonly namespace: string; readonly name: string; readonly uid: string }
    | undefined;
}

export interface SlicePort {
  readonly name: string;
  readonly protocol: string;
  /** 0 when absent. */
  readonly port: number;
}

export interface EndpointSliceObject {
  readonly kind: "EndpointSlice";
  readonly meta: ObjectMeta;
  readonly addressType: string;
  readonly endpoints: readonly SliceEndpoint[];
  readonly ports: readonly SlicePort[];
}

/** What a WorkloadEntry's spec and a ServiceEntry's endpoint have in common. */
export interface EntryEndpoint {
  readonly address: string;
  readonly ports: ReadonlyMap<string, number>;
  readonly labels: Labels;
  readonly network: string;
  readonly locality: string;
  readonly weight: number;
  readonly serviceAccount: string;
}

export interface WorkloadEntryObject {
  readonly kind: "WorkloadEntry";
  readonly meta: ObjectMeta;
  readonly spec: EntryEndpoint;
}

export interface ServiceEntryPort {
  readonly name: string;
  readonly protocol: string;
  readonly port: number;
  /** 0 when absent. */
  readonly targetPort: number;
}

export const SERVICE_ENTRY_RESOLUTIONS = ["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"] as const;
export type ServiceEntryResolution = (typeof SERVICE_ENTRY_RESOLUTIONS)[number];

export interface ServiceEntryObject {
  readonly kind: "ServiceEntry";
  readonly meta: ObjectMeta;
  readonly hosts: readonly string[];
  readonly addresses: readonly string[];
  readonly ports: readonly ServiceEntryPort[];
  readonly resolution: ServiceEntryResolution;
  readonly endpoints: readonly EntryEndpoint[];
  /** Undefined without a workloadSelector. */
  readonly selector: Labels | undefined;
  readonly subjectAltNames: readonly string[];
  /** status.addresses: what an allocator assigned (CP-240). */
  readonly allocated: readonly { readonly value: string; readonly host: string }[];
}

/** One `source` of a rule's `from`, or one `operation` of its `to`, or one `when`: lists by the API's own field name. */
export type ValueLists = ReadonlyMap<string, readonly string[]>;

export interface WhenCondition {
  readonly key: string;
  readonly values: readonly string[];
  readonly notValues: readonly string[];
}

export interface AuthorizationRule {
  readonly from: readonly ValueLists[];
  readonly to: readonly ValueLists[];
  readonly when: readonly WhenCondition[];
}

export const AUTHORIZATION_ACTIONS = ["ALLOW", "DENY", "AUDIT", "CUSTOM"] as const;
export type AuthorizationAction = (typeof AUTHORIZATION_ACTIONS)[number];

/** An object that a policy is attached to; of the policy's own namespace, or a GatewayClass (CP-365). */
export interface TargetReference {
  readonly group: string;
  readonly kind: string;
  readonly name: string;
}

export interface AuthorizationPolicyObject {
  readonly kind: "AuthorizationPolicy";
  readonly meta: ObjectMeta;
  /** Undefined without a selector; empty selects everything (CP-334). */
  readonly selector: Labels | undefined;
  /** What it is for at waypoints; a policy that names any is none of ztunnel's (CP-331). */
  readonly targets: readonly TargetReference[];
  readonly action: AuthorizationAction;
  readonly rules: readonly AuthorizationRule[];
}

export const MTLS_MODES = ["UNSET", "DISABLE", "PERMISSIVE", "STRICT"] as const;
export type MtlsMode = (typeof MTLS_MODES)[number];

export interface PeerAuthenticationObject {
  readonly kind: "PeerAuthentication";
  readonly meta: ObjectMeta;
  /** Empty without a selector, and with one that has no labels: both mean the namespace or the mesh (CP-351). */
  readonly selector: Labels;
  readonly mode: MtlsMode;
  readonly portModes: ReadonlyMap<number, MtlsMode>;
}

/** Which namespaces' objects may attach to a listener; `Same` is the default. */
export const ROUTE_NAMESPACES = ["All", "Same", "Selector", "None"] as const;
export type RouteNamespaces = (typeof ROUTE_NAMESPACES)[number];

export interface GatewayListener {
  readonly name: string;
  readonly port: number;
  /** `HBONE`, `HTTP`, `istio.io/PROXY` …; nothing checks it here. */
  readonly protocol: string;
  readonly hostname: string;
  /** `Terminate` or `Passthrough`; empty without a `tls`. */
  readonly tlsMode: string;
  /** Which namespaces' objects may attach. */
  readonly from: RouteNamespaces;
  /** Of namespaces, for `from: Selector`; one that is not written selects none. */
  readonly selector: LabelSelector | undefined;
}

/** An address that a Gateway asks for, or has. */
export interface GatewayAddressEntry {
  /** `IPAddress`, `Hostname`, or an implementation's own. */
  readonly type: string;
  readonly value: string;
}

/** What a Gateway asks of the objects that are made for it. */
export interface GatewayInfrastructure {
  readonly labels: Labels;
  readonly annotations: Labels;
}

export interface GatewayObject {
  readonly kind: "Gateway";
  readonly meta: ObjectMeta;
  readonly className: string;
  readonly listeners: readonly GatewayListener[];
  readonly infrastructure: GatewayInfrastructure | undefined;
  /** spec.addresses: asked for. */
  readonly addresses: readonly GatewayAddressEntry[];
  /** status.addresses: what it is reached by; a waypoint is usable once there is one (CP-260). */
  readonly statusAddresses: readonly GatewayAddressEntry[];
}

export interface GatewayClassObject {
  readonly kind: "GatewayClass";
  readonly meta: ObjectMeta;
  readonly controllerName: string;
}

/** One of serviceScopeConfigs: the scope of the Services that both selectors match (CP-111). */
export interface ServiceScopeRule {
  readonly services: LabelSelector;
  readonly namespaces: LabelSelector;
  readonly global: boolean;
}

export const SERVICE_ENTRY_VISIBILITIES = ["NONE", "NAMESPACE", "PUBLIC"] as const;
export type Visibility = (typeof SERVICE_ENTRY_VISIBILITIES)[number];

/** Who sees ServiceEntries, by the labels of their namespace (CP-112). */
export interface ServiceEntryVisibility {
  readonly fallback: Visibility;
  /** The first whose selectors all match gives the visibility; undefined in place of a matcher unknown here, which never matches. */
  readonly policies: readonly {
    readonly visibility: Visibility;
    readonly namespaces: readonly (LabelSelector | undefined)[];
  }[];
}

/** Roots beside our own, for some trust domains or for all. */
export interface MeshCaCertificate {
  /** Empty where the roots come from an URL. */
  readonly pem: string;
  readonly spiffeBundleUrl: string;
  readonly certSigners: readonly string[];
  readonly trustDomains: readonly string[];
}

/** The mesh's own settings, as its administrator wrote them (CP-027): empty and absent mean what istiod was started with. */
export interface MeshConfigObject {
  readonly kind: "MeshConfig";
  readonly meta: ObjectMeta;
  readonly rootNamespace: string;
  readonly trustDomain: string;
  readonly trustDomainAliases: readonly string[];
  /** Which namespaces count; all without any (CP-104). */
  readonly discoverySelectors: readonly LabelSelector[];
  readonly serviceScopes: readonly ServiceScopeRule[];
  /** Undefined: every ServiceEntry is public. */
  readonly serviceEntryVisibility: ServiceEntryVisibility | undefined;
  readonly caCertificates: readonly MeshCaCertificate[];
  /** `defaultConfig.discoveryAddress`: where proxies find istiod (CP-004). */
  readonly discoveryAddress: string;
}

/** The one key under which a source reports the mesh's settings, whatever it read them from. */
export const MESH_CONFIG_KEY = "MeshConfig//istio";

export type KubernetesObject =
  | NamespaceObject
  | NodeObject
  | ServiceAccountObject
  | PodObject
  | ServiceObject
  | EndpointSliceObject
  | WorkloadEntryObject
  | ServiceEntryObject
  | AuthorizationPolicyObject
  | PeerAuthenticationObject
  | GatewayObject
  | GatewayClassObject
  | MeshConfigObject;

export type ObjectKind = KubernetesObject["kind"];

/** `kind/namespace/name`; the namespace is empty for cluster-scoped kinds. */
export type ObjectKey = string;

export function objectKey(kind: string, namespace: string, name: string): ObjectKey {
  return `${kind}/${namespace}/${name}`;
}

export function keyOf(object: KubernetesObject): ObjectKey {
  return objectKey(object.kind, object.meta.namespace, object.meta.name);
}

/** What a source reports: the newest state of one object, or that it is gone. */
export interface ObjectChange {
  readonly kind: ObjectKind;
  readonly key: ObjectKey;
  /** Undefined: the object is gone. */
  readonly object: KubernetesObject | undefined;
  /** The cluster that has it; absent for the one whose configuration counts. */
  readonly cluster?: string;
}
