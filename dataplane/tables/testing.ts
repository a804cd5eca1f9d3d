/** Resources, and a mesh of them, for the tests of this room. Nothing else imports it. */
import type { IpWords } from "../../base/address.ts";
import { finishHash, mixWord } from "../../base/shm/index.ts";
import type { Policy } from "../../mesh/policy.ts";
import { encodeAuthorization } from "../../mesh/proto/authorization_codec.ts";
import { encodeServiceAddress, encodeWorkloadAddress } from "../../mesh/proto/workload_codec.ts";
import { type Service, serviceKey } from "../../mesh/service.ts";
import type { Workload } from "../../mesh/workload.ts";
import type { Encoded, MeshChanges, SnapshotSource } from "./publish.ts";

/** An IPv4 address by its number. */
export function ipv4(number: number): IpWords {
  return [0, 0, 0xffff, number >>> 0];
}

export function workloadOf(uid: string, change: Partial<Workload> = {}): Workload {
  return {
    uid,
    name: uid,
    namespace: "default",
    addresses: [],
    hostname: "",
    network: "",
    tunnelProtocol: 0,
    trustDomain: "cluster.local",
    serviceAccount: "default",
    waypoint: undefined,
    networkGateway: undefined,
    node: "",
    canonicalName: "",
    canonicalRevision: "",
    workloadType: 0,
    workloadName: "",
    nativeTunnel: false,
    applicationTunnel: undefined,
    authorizationPolicies: [],
    healthy: true,
    clusterId: "Kubernetes",
    locality: { region: "", zone: "", subzone: "" },
    services: new Map(),
    hostNetwork: false,
    capacity: 1,
    ...change,
  };
}

export function serviceOf(namespace: string, hostname: string, change: Partial<Service> = {}): Service {
  return {
    name: hostname.split(".")[0]!,
    namespace,
    hostname,
    addresses: [],
    ports: [],
    subjectAltNames: [],
    waypoint: undefined,
    weightedWaypoints: [],
    loadBalancing: undefined,
    ipFamilies: 0,
    canonical: false,
    ingressUseWaypoint: false,
    namespaceOnly: false,
    ...change,
  };
}

export function policyOf(key: string, change: Partial<Policy> = {}): Policy {
  const [namespace, name] = key.split("/") as [string, string];
  return { key, name, namespace, scope: 0, action: 0, rules: [], dryRun: false, ...change };
}

/** A source of plain maps, with the change log a real one keeps. */
export class SampleMesh implements SnapshotSource {
  readonly workloads = new Map<string, Encoded<Workload>>();
  readonly services = new Map<string, Encoded<Service>>();
  readonly policies = new Map<string, Encoded<Policy>>();
  readonly pods = new Map<number, string>();
  #changes = { workloads: new Set<string>(), services: new Set<string>(), policies: new Set<string>() };

  putWorkload(resource: Workload): void {
    this.workloads.delete(resource.uid); // Back to the end: who changed last stands last.
    this.workloads.set(resource.uid, { resource, bytes: encodeWorkloadAddress(resource) });
    this.#changes.workloads.delete(resource.uid);
    this.#changes.workloads.add(resource.uid);
  }
  removeWorkload(uid: string): void {
    if (this.workloads.delete(uid)) this.#changes.workloads.add(uid);
  }
  putService(resource: Service): void {
    const key = serviceKey(resource.namespace, resource.hostname);
    this.services.set(key, { resource, bytes: encodeServiceAddress(resource) });
    this.#changes.services.add(key);
  }
  removeService(key: string): void {
    if (this.services.delete(key)) this.#changes.services.add(key);
  }
  putPolicy(resource: Policy): void {
    this.policies.set(resource.key, { resource, bytes: encodeAuthorization(resource) });
    this.#changes.policies.add(resource.key);
  }
  removePolicy(key: string): void {
    if (this.policies.delete(key)) this.#changes.policies.add(key);
  }

  takeChanges(): MeshChanges {
    const changes = this.#changes;
    this.#changes = { workloads: new Set(), services: new Set(), policies: new Set() };
    return changes;
  }
  workload(uid: string): Encoded<Workload> | undefined {
    return this.workloads.get(uid);
  }
  service(key: string): Encoded<Service> | undefined {
    return this.services.get(key);
  }
  policy(key: string): Encoded<Policy> | undefined {
    return this.policies.get(key);
  }
  *endpointsOf(key: string): Iterable<string> {
    const unhealthyToo = this.services.get(key)?.resource.loadBalancing?.allowUnhealthy === true;
    for (const { resource } of this.workloads.values()) {
      if (resource.services.has(key) && (resource.healthy || unhealthyToo)) yield resource.uid;
    }
  }
  podWorkloads(): Iterable<readonly [number, string]> {
    return this.pods;
  }
}

/** Random numbers from a seed: a failing run can be repeated. */
export function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = finishHash(mixWord(state, 0x9e3779b9));
    return (state >>> 0) % below;
  };
}
