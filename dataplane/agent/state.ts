/** What the agent knows of the mesh: resources as xDS sent them, applied by the rules of ZT section 7.2. */
import { formatIdentity } from "../../mesh/identity.ts";
import type { Policy } from "../../mesh/policy.ts";
import { decodeAuthorization } from "../../mesh/proto/authorization_codec.ts";
import { WireFormatError } from "../../mesh/proto/wire_format_error.ts";
import { decodeAddress } from "../../mesh/proto/workload_codec.ts";
import { type Service, serviceKey } from "../../mesh/service.ts";
import { TunnelProtocol, type Workload } from "../../mesh/workload.ts";
import type { Encoded, MeshChanges, SnapshotSource } from "../tables/publish.ts";

/** A resource of a delta response. The bytes are copied: a small part must not keep a message of 200 MiB alive. */
export interface ReceivedResource {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** A namespace and a name of Kubernetes have at most 63 and 253 characters. */
const NAME_LENGTH_MAX = 1024;

/** Why one resource of a response was refused; the others stand (ZT-130). */
export interface Rejection {
  readonly name: string;
  readonly reason: string;
}

/** What the CNI says of an enrolled pod. */
export interface PodFacts {
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** What a response meant for the node's own workloads (ZT-143). */
export interface AppliedAddresses {
  readonly rejections: readonly Rejection[];
  /** Local workloads that arrived or changed and will want a certificate. */
  readonly inserted: readonly Workload[];
  /** Local workloads that went or are somebody else now, as they were: their identity may be without a user. */
  readonly removed: readonly Workload[];
}

/**
 * The mesh on the agent's heap. Its state follows from the resources it holds alone, in whatever order they came: an
 * endpoint is a workload that names a service, whether the service came before or after, and health is judged when
 * asked. (Where ZT-137 and ZT-138 let history decide, that is, after a service vanished or turned to ALLOW_ALL, this
 * state is what a fresh subscription would give.)
 */
export class MeshState implements SnapshotSource {
  readonly workloads = new Map<string, Encoded<Workload>>();
  readonly services = new Map<string, Encoded<Service>>();
  readonly policies = new Map<string, Encoded<Policy>>();
  readonly #nodeName: string;
  /** Keys of the services of a hostname, in lower case, in the order they became known (ZT-181, ZT-182). */
  readonly #byHostname = new Map<string, Set<string>>();
  /** Who names a service, known or not: by service key, then uid. */
  readonly #members = new Map<string, Map<string, Workload>>();
  /** Local workloads by namespace and service account (ZT-144). */
  readonly #local = new Map<string, Set<string>>();
  readonly #pods = new Map<number, PodFacts>();
  #changedWorkloads = new Set<string>();
  #changedServices = new Set<string>();
  #changedPolicies = new Set<string>();
  #podsChanged = false;

  /** @param nodeName NODE_NAME; empty: every workload counts as local (ZT-016). */
  constructor(nodeName: string) {
    this.#nodeName = nodeName;
  }

  /** Whether anything waits to be published. */
  get changed(): boolean {
    return this.#podsChanged ||
      this.#changedWorkloads.size + this.#changedServices.size + this.#changedPolicies.size > 0;
  }

  /** Applies a response of type Address: decodes all, updates in order, then removals (ZT-131). */
  applyAddresses(updates: readonly ReceivedResource[], removals: readonly string[]): AppliedAddresses {
    const rejections: Rejection[] = [], inserted: Workload[] = [], removed: Workload[] = [];
    for (const { name, bytes } of updates) {
      const address = attempt(rejections, name, () => decodeAddress(bytes));
      if (address?.workload !== undefined) this.#insertWorkload(address.workload, bytes, inserted, removed);
      else if (address?.service !== undefined) this.#insertService(address.service, bytes);
    }
    for (const name of removals) this.#removeAddress(name, removed);
    return { rejections, inserted, removed };
  }

  /** Applies a response of type Authorization. A policy is known by its resource name (ZT-142). */
  applyPolicies(updates: readonly ReceivedResource[], removals: readonly string[]): readonly Rejection[] {
    const rejections: Rejection[] = [];
    for (const { name, bytes } of updates) {
      if (sameBytes(this.policies.get(name)?.bytes, bytes)) continue;
      if (name.length > NAME_LENGTH_MAX) {
        rejections.push({ name: `${name.slice(0, 64)}…`, reason: `the name has ${name.length} characters` });
        continue;
      }
      const policy = attempt(rejections, name, () => decodeAuthorization(bytes, name));
      if (policy === undefined) continue;
      this.policies.set(name, { resource: policy, bytes: new Uint8Array(bytes) });
      this.#changedPolicies.add(name);
    }
    for (const name of removals) if (this.policies.delete(name)) this.#changedPolicies.add(name);
    return rejections;
  }

  /** A pod was enrolled: its row will show its workload, once that is known. */
  setPod(podRow: number, facts: PodFacts): void {
    this.#pods.set(podRow, facts);
    this.#podsChanged = true;
  }

  removePod(podRow: number): void {
    if (this.#pods.delete(podRow)) this.#podsChanged = true;
  }

  /** The workload of an enrolled pod: name, namespace and service account match, and it is on our node (ZT-016). */
  findLocal(pod: PodFacts): Workload | undefined {
    for (const uid of this.#local.get(identityKey(pod)) ?? []) {
      const workload = this.workloads.get(uid)!.resource;
      if (workload.name === pod.name) return workload;
    }
    return undefined;
  }

  /** Whether no workload on our node runs as this identity any more (ZT-143). */
  isIdentityUnused(workload: Workload): boolean {
    for (const uid of this.#local.get(identityKey(workload)) ?? []) {
      if (this.workloads.get(uid)!.resource.trustDomain === workload.trustDomain) return false;
    }
    return true;
  }

  /** `namespace/name` of all workloads, the name being what metrics call them by. */
  workloadNames(): ReadonlySet<string> {
    const names = new Set<string>();
    for (const { resource } of this.workloads.values()) names.add(`${resource.namespace}/${resource.workloadName}`);
    return names;
  }

  /** Whether a certificate for this workload is worth fetching ahead (ZT-143). */
  wantsCertificate(workload: Workload): boolean {
    return this.#isLocal(workload) && (workload.tunnelProtocol === TunnelProtocol.HBONE || workload.nativeTunnel);
  }

  /** Endpoints that wait for their service, by service key (ZT-138), for the config dump. */
  stagedEndpoints(): ReadonlyMap<string, readonly Workload[]> {
    const staged = new Map<string, readonly Workload[]>();
    for (const [key, members] of this.#members) if (!this.services.has(key)) staged.set(key, [...members.values()]);
    return staged;
  }

  /** Every service of a hostname in lower case, in the order they became known, for DNS. */
  *servicesOfHostname(hostname: string): Iterable<Service> {
    for (const key of this.#byHostname.get(hostname) ?? []) yield this.services.get(key)!.resource;
  }

  /** A service's endpoints as stored: healthy, or of any health if the service says so (ZT-137). */
  storedEndpoints(key: string): readonly Workload[] {
    const service = this.services.get(key)?.resource;
    if (service === undefined) return [];
    const members = [...(this.#members.get(key)?.values() ?? [])];
    return service.loadBalancing?.allowUnhealthy === true ? members : members.filter((workload) => workload.healthy);
  }

  // What the snapshot writer reads.

  takeChanges(): MeshChanges {
    const changes = {
      workloads: this.#changedWorkloads,
      services: this.#changedServices,
      policies: this.#changedPolicies,
    };
    this.#changedWorkloads = new Set();
    this.#changedServices = new Set();
    this.#changedPolicies = new Set();
    this.#podsChanged = false;
    return changes;
  }

  workload(uid: string): Encoded<Workload> | undefined {
    return this.workloads.get(uid);
  }

  service(key: string): Encoded<Service> | undefined {
    return this.services.get(key);
  }

  policy(name: string): Encoded<Policy> | undefined {
    return this.policies.get(name);
  }

  endpointsOf(key: string): Iterable<string> {
    return this.storedEndpoints(key).map((workload) => workload.uid);
  }

  *podWorkloads(): Iterable<readonly [podRow: number, uid: string]> {
    for (const [row, facts] of this.#pods) {
      const workload = this.findLocal(facts);
      if (workload !== undefined) yield [row, workload.uid];
    }
  }

  #insertWorkload(workload: Workload, bytes: Uint8Array, inserted: Workload[], removed: Workload[]): void {
    const before = this.workloads.get(workload.uid);
    if (sameBytes(before?.bytes, bytes)) return;
    if (before !== undefined) { // Replaced whole (ZT-136).
      this.#dropWorkload(before.resource);
      const stays = this.#isLocal(workload) && formatIdentity(workload) === formatIdentity(before.resource);
      if (this.#isLocal(before.resource) && !stays) removed.push(before.resource);
    }
    this.workloads.set(workload.uid, { resource: workload, bytes: new Uint8Array(bytes) });
    this.#changedWorkloads.delete(workload.uid); // In the order of their last change: of equals the newest wins (ZT-024).
    this.#changedWorkloads.add(workload.uid);
    for (const key of workload.services.keys()) {
      const members = this.#members.get(key);
      if (members === undefined) this.#members.set(key, new Map([[workload.uid, workload]]));
      else members.set(workload.uid, workload);
    }
    if (!this.#isLocal(workload)) return;
    const key = identityKey(workload), uids = this.#local.get(key);
    if (uids === undefined) this.#local.set(key, new Set([workload.uid]));
    else uids.add(workload.uid);
    inserted.push(workload);
  }

  #dropWorkload(workload: Workload): void {
    for (const key of workload.services.keys()) {
      const members = this.#members.get(key);
      members?.delete(workload.uid);
      if (members?.size === 0) this.#members.delete(key);
    }
    const key = identityKey(workload), uids = this.#local.get(key);
    uids?.delete(workload.uid);
    if (uids?.size === 0) this.#local.delete(key);
  }

  #insertService(service: Service, bytes: Uint8Array): void {
    const key = serviceKey(service.namespace, service.hostname);
    if (sameBytes(this.services.get(key)?.bytes, bytes)) return;
    this.services.set(key, { resource: service, bytes: new Uint8Array(bytes) });
    const hostname = service.hostname.toLowerCase(), keys = this.#byHostname.get(hostname);
    if (keys === undefined) this.#byHostname.set(hostname, new Set([key]));
    else keys.add(key);
    this.#changedServices.add(key);
  }

  /** ZT-135: a workload's uid, else `namespace/hostname`; unknown names are harmless. */
  #removeAddress(name: string, removed: Workload[]): void {
    const workload = this.workloads.get(name)?.resource;
    if (workload !== undefined) {
      this.#dropWorkload(workload);
      this.workloads.delete(name);
      this.#changedWorkloads.add(name);
      if (this.#isLocal(workload)) removed.push(workload);
    } else this.#removeService(name);
  }

  #removeService(key: string): void {
    const hostname = this.services.get(key)?.resource.hostname.toLowerCase();
    if (hostname === undefined) return;
    const keys = this.#byHostname.get(hostname);
    keys?.delete(key);
    if (keys?.size === 0) this.#byHostname.delete(hostname);
    this.services.delete(key);
    this.#changedServices.add(key);
  }

  #isLocal(workload: Workload): boolean {
    return this.#nodeName === "" || workload.node === this.#nodeName;
  }
}

function identityKey(subject: { readonly namespace: string; readonly serviceAccount: string }): string {
  return `${subject.namespace}/${subject.serviceAccount}`;
}

/** Runs a decoder; what it refuses is listed, with its reason. A mistake of our own is not caught. */
function attempt<T>(rejections: Rejection[], name: string, decode: () => T): T | undefined {
  try {
    return decode();
  } catch (error) {
    if (!(error instanceof WireFormatError)) throw error;
    rejections.push({ name, reason: error.message });
    return undefined;
  }
}

function sameBytes(known: Uint8Array | undefined, bytes: Uint8Array): boolean {
  if (known === undefined || known.length !== bytes.length) return false;
  for (let at = 0; at < bytes.length; at++) if (known[at] !== bytes[at]) return false;
  return true;
}
