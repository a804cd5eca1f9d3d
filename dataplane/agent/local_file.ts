/**
 * The local file: workloads, services and policies from YAML instead of, or beside, the control plane (ZT-145 to
 * ZT-147). Two things differ from ztunnel's own: defaults of trust domain, service account and cluster are those of
 * xDS, since an identity without a trust domain matches nobody; and a workload knows the services it names.
 */
import { type IpWords, parseIp } from "../../base/address.ts";
import { MeshError } from "../../base/errors.ts";
import { encodeAuthorization } from "../../mesh/proto/authorization_codec.ts";
import { encodeServiceAddress, encodeWorkloadAddress } from "../../mesh/proto/workload_codec.ts";
import {
  IpFamilies,
  type LoadBalancing,
  LoadBalancingMode,
  LoadBalancingScope,
  type Service,
  serviceKey,
} from "../../mesh/service.ts";
import {
  ApplicationTunnelProtocol,
  type GatewayAddress,
  type PortMapping,
  TunnelProtocol,
  type Workload,
  WORKLOAD_TYPE_NAMES,
  type WorkloadType,
} from "../../mesh/workload.ts";
import type { Json } from "./config_dump.ts";
import { expandTags } from "./local_tags.ts";
import { readPolicy } from "./local_policy.ts";
import { rangeOf } from "./local_range.ts";
import type { MeshState, ReceivedResource } from "./state.ts";
import { DocumentProblem, Field, parseDocument } from "./yaml_fields.ts";

/** What a local file held. */
export interface LocalResources {
  /** Resources as the control plane would send them. */
  readonly addresses: readonly ReceivedResource[];
  readonly policies: readonly ReceivedResource[];
  /** As it was read, for the config dump. */
  readonly shown: { readonly workloads: Json; readonly services: Json; readonly policies: Json };
  /** Fields of workloads that nobody reads, by their place. */
  readonly ignored: readonly string[];
}

const TEXT_LENGTH_MAX = 64 * 1024 * 1024; // A mesh of 100,000 workloads is half of it.
const WORKLOAD_KEYS = [
  ..."workloadIps protocol networkMode name namespace status clusterId capacity uid waypoint".split(" "),
  ..."networkGateway trustDomain serviceAccount network workloadName workloadType canonicalName".split(" "),
  ..."canonicalRevision hostname node nativeTunnel applicationTunnel authorizationPolicies".split(" "),
  ..."locality services".split(" "),
];
const SERVICE_KEYS = [
  ..."name namespace hostname vips ports cidrVips endpoints subjectAltNames waypoint weightedWaypoints".split(" "),
  ..."loadBalancer ipFamilies canonical visibility".split(" "),
];

/**
 * Reads LOCAL_XDS_PATH or the text of LOCAL_XDS; both at once are refused (ZT-008).
 * @returns undefined if neither is set. @throws MeshError AMB0320 to AMB0322
 */
export async function readLocalFile(setting: { path: string; text: string }): Promise<LocalResources | undefined> {
  const { path, text } = setting;
  if (path !== "" && text !== "") {
    throw new MeshError("AMB0320", "only one of LOCAL_XDS_PATH or LOCAL_XDS may be set", {
      remedy: "unset one of them",
    });
  }
  if (path === "") return text === "" ? undefined : parseLocal(text, "LOCAL_XDS");
  let content: string;
  try {
    content = await Deno.readTextFile(path);
  } catch (cause) {
    const remedy = "point LOCAL_XDS_PATH at a YAML file that this process may read";
    throw new MeshError("AMB0321", `cannot read the local file ${path}`, { remedy, cause });
  }
  return parseLocal(content, path);
}

/** Parses a local file's text. @param source what errors call it. @throws MeshError AMB0322 */
export function parseLocal(text: string, source: string): LocalResources {
  try {
    if (text.length > TEXT_LENGTH_MAX) throw new DocumentProblem(`it has more than ${TEXT_LENGTH_MAX} characters`);
    return readAll(new Field(parseDocument(expandTags(text)) ?? {}, ""));
  } catch (error) {
    if (!(error instanceof DocumentProblem)) throw error;
    throw new MeshError("AMB0322", `the local file ${source} cannot be used: ${error.message}`, {
      remedy: "correct it; fields are named as in the config dump, and nothing of the file is taken until all is right",
    });
  }
}

/**
 * Puts the file's resources into the state; the control plane may replace them later. @returns This node's workloads, as
 * applyAddresses() does (ZT-143). @throws MeshError AMB0322
 */
export function applyLocal(state: MeshState, resources: LocalResources): readonly Workload[] {
  const { rejections, inserted } = state.applyAddresses(resources.addresses, []);
  const first = [...rejections, ...state.applyPolicies(resources.policies, [])][0];
  if (first === undefined) return inserted;
  throw new MeshError("AMB0322", `the local file cannot be used: ${first.name}: ${first.reason}`, {
    remedy: "correct that resource",
  });
}

function readAll(root: Field): LocalResources {
  root.onlyKeys(["workloads", "services", "policies"]);
  const ignored: string[] = [], names = new Set<string>();
  const once = (field: Field, name: string) => {
    if (names.has(name)) field.fail(`${name} is there twice`);
    names.add(name);
    return name;
  };
  const workloads = root.at("workloads").items().map((field) => {
    const workload = readWorkload(field);
    ignored.push(...field.unknownKeys(WORKLOAD_KEYS).map((key) => field.at(key).path));
    return { name: once(field, workload.uid), bytes: encodeWorkloadAddress(workload) };
  });
  const services = root.at("services").items().map((field) => {
    const service = readService(field.onlyKeys(SERVICE_KEYS));
    return { name: once(field, serviceKey(service.namespace, service.hostname)), bytes: encodeServiceAddress(service) };
  });
  const policies = root.at("policies").items().map((field) => {
    const policy = readPolicy(field);
    return { name: once(field, `policy ${policy.key}`).slice("policy ".length), bytes: encodeAuthorization(policy) };
  });
  const shown = (key: string) => (root.at(key).raw ?? []) as Json;
  return {
    addresses: [...services, ...workloads],
    policies,
    shown: { workloads: shown("workloads"), services: shown("services"), policies: shown("policies") },
    ignored,
  };
}

function readWorkload(field: Field): Workload {
  const text = (key: string, otherwise = "") => field.at(key).text(otherwise);
  const uid = field.at("uid");
  if (uid.text() === "") uid.fail("is empty");
  const tunnel = field.at("applicationTunnel"), locality = field.at("locality");
  return {
    uid: uid.text(),
    name: text("name"),
    namespace: field.at("namespace").text(),
    addresses: field.at("workloadIps").required().items().map(ipOf),
    hostname: text("hostname"),
    network: text("network"),
    tunnelProtocol: field.at("protocol").word<TunnelProtocol>(
      { TCP: TunnelProtocol.NONE, HBONE: TunnelProtocol.HBONE },
      TunnelProtocol.NONE,
    ),
    trustDomain: text("trustDomain", "cluster.local"),
    serviceAccount: text("serviceAccount", "default"),
    waypoint: optionalGateway(field.at("waypoint")),
    networkGateway: optionalGateway(field.at("networkGateway")),
    node: text("node"),
    canonicalName: text("canonicalName"),
    canonicalRevision: text("canonicalRevision"),
    workloadType: workloadTypeOf(field.at("workloadType")),
    workloadName: text("workloadName"),
    nativeTunnel: field.at("nativeTunnel").flag(false),
    applicationTunnel: tunnel.absent ? undefined : {
      protocol: tunnel.onlyKeys(["protocol", "port"]).at("protocol").word<ApplicationTunnelProtocol>({
        ...ApplicationTunnelProtocol,
      }),
      port: tunnel.at("port").integer(1, 65_535, 0),
    },
    authorizationPolicies: field.at("authorizationPolicies").items().map((it) => it.text()),
    healthy: field.at("status").word({ Healthy: true, Unhealthy: false }, true),
    clusterId: text("clusterId", "Kubernetes"),
    locality: locality.absent ? { region: "", zone: "", subzone: "" } : {
      region: locality.at("region").text(""),
      zone: locality.at("zone").text(""),
      subzone: locality.at("subzone").text(""),
    },
    services: new Map(
      field.at("services").required().entries().map(([key, ports]) => {
        if (!key.includes("/")) ports.fail("is not named NAMESPACE/HOSTNAME");
        return [key, portsOf(ports)] as const;
      }),
    ),
    hostNetwork: field.at("networkMode").word({ Standard: false, HostNetwork: true }, false),
    capacity: field.at("capacity").integer(0, 0xffff_ffff, 1),
  };
}

function workloadTypeOf(field: Field): WorkloadType {
  const at = WORKLOAD_TYPE_NAMES.findIndex((name) => name === field.text(""));
  return Math.max(0, at) as WorkloadType; // An unknown one is a deployment, as over xDS.
}

function readService(field: Field): Service {
  const balancer = field.at("loadBalancer");
  return {
    name: field.at("name").text(),
    namespace: field.at("namespace").text(),
    hostname: field.at("hostname").text(),
    addresses: [
      ...field.at("vips").required().items().map((vip) => networkAddress(vip, vip.text())),
      ...field.at("cidrVips").items().map((it) => {
        const { ip, prefixLength } = rangeOf(it.onlyKeys(["network", "cidr"]).at("cidr"));
        return { network: it.at("network").text(), ip, prefixLength };
      }),
    ],
    ports: portsOf(field.at("ports")),
    subjectAltNames: field.at("subjectAltNames").items().map((it) => it.text()),
    waypoint: optionalGateway(field.at("waypoint")),
    weightedWaypoints: field.at("weightedWaypoints").items().map((it) => ({
      destination: gatewayOf(it.onlyKeys(["destination", "weight"]).at("destination")),
      weight: it.at("weight").integer(0, 0xffff_ffff),
    })),
    loadBalancing: balancer.absent ? undefined : loadBalancingOf(balancer),
    ipFamilies: field.at("ipFamilies").word<IpFamilies>(
      { Dual: IpFamilies.DUAL, IPv4: IpFamilies.IPV4_ONLY, IPv6: IpFamilies.IPV6_ONLY },
      IpFamilies.AUTOMATIC,
    ),
    canonical: field.at("canonical").flag(false),
    ingressUseWaypoint: false,
    namespaceOnly: field.at("visibility").word({ Public: false, Namespace: true }, false),
  };
}

function loadBalancingOf(field: Field): LoadBalancing {
  field.onlyKeys(["routingPreferences", "mode", "healthPolicy"]);
  const { REGION: Region, ZONE: Zone, SUBZONE: Subzone, NODE: Node, CLUSTER: Cluster, NETWORK: Network } =
    LoadBalancingScope;
  return {
    routingPreference: field.at("routingPreferences").items().map((scope) =>
      scope.word<LoadBalancingScope>({ Region, Zone, Subzone, Node, Cluster, Network })
    ),
    mode: field.at("mode").word<LoadBalancingMode>({
      Standard: LoadBalancingMode.UNSPECIFIED,
      Strict: LoadBalancingMode.STRICT,
      Failover: LoadBalancingMode.FAILOVER,
      Passthrough: LoadBalancingMode.PASSTHROUGH,
    }),
    allowUnhealthy: field.at("healthPolicy").word({ OnlyHealthy: false, AllowAll: true }),
  };
}

function ipOf(field: Field): IpWords {
  return parseIp(field.text()) ?? field.fail(`${field.text()} is no IP address`);
}

/** `NETWORK/IP`, where the network may be empty. */
function networkAddress(field: Field, text: string): { network: string; ip: IpWords } {
  const slash = text.indexOf("/"), ip = slash < 0 ? undefined : parseIp(text.slice(slash + 1));
  if (ip === undefined) return field.fail(`${text} is not NETWORK/IP, where NETWORK may be empty`);
  return { network: text.slice(0, slash), ip };
}

function optionalGateway(field: Field): GatewayAddress | undefined {
  return field.absent ? undefined : gatewayOf(field);
}

/** By address if what follows the slash is one, else by host name. */
function gatewayOf(field: Field): GatewayAddress {
  const destination = field.onlyKeys(["destination", "hboneMtlsPort"]).at("destination"), text = destination.text();
  const hboneMtlsPort = field.at("hboneMtlsPort").integer(0, 65_535);
  const slash = text.indexOf("/"), rest = text.slice(slash + 1);
  if (slash < 0 || rest === "") return destination.fail(`${text} is neither NETWORK/IP nor NAMESPACE/HOSTNAME`);
  if (parseIp(rest) !== undefined) return { address: networkAddress(destination, text), hboneMtlsPort };
  return { hostname: { namespace: text.slice(0, slash), hostname: rest }, hboneMtlsPort };
}

/** `{ SERVICE_PORT: TARGET_PORT }`. */
function portsOf(field: Field): readonly PortMapping[] {
  return field.required().entries().map(([key, target]) => {
    if (!/^\d{1,5}$/.test(key) || Number(key) > 65_535) target.fail("is not named by a port");
    return { servicePort: Number(key), targetPort: target.integer(0, 65_535) };
  });
}
