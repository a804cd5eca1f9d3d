/** The agent's end of the snapshot: applies what changed to the image, and puts it in force in one store. */
import { isIpv4 } from "../../base/address.ts";
import { assert } from "../../base/assert.ts";
import { MeshError } from "../../base/errors.ts";
import { type Policy, PolicyScope } from "../../mesh/policy.ts";
import { type Service, serviceKey } from "../../mesh/service.ts";
import { TunnelProtocol, type Workload } from "../../mesh/workload.ts";
import type { Tables } from "./handles.ts";
import { HEADER, WORKER, WorkerState } from "./layout.ts";
import { EntryKind, maskWord, RowKind } from "./snapshot_format.ts";
import { type SlotCopy, SnapshotImage } from "./snapshot_image.ts";

declare const generationBrand: unique symbol;
/** The number of a published snapshot. */
export type Generation = number & { readonly [generationBrand]: true };

/** A resource with the bytes that xDS sent, which workers decode again. */
export interface Encoded<T> {
  readonly resource: T;
  readonly bytes: Uint8Array;
}

/** What changed since the last publication, by uid, `namespace/hostname` and policy name; workloads by their last change. */
export interface MeshChanges {
  readonly workloads: ReadonlySet<string>;
  readonly services: ReadonlySet<string>;
  readonly policies: ReadonlySet<string>;
}

/** Where the writer reads the mesh from; agent/state.ts is the one in the product. */
export interface SnapshotSource {
  /** Hands over what changed, once. */
  takeChanges(): MeshChanges;
  workload(uid: string): Encoded<Workload> | undefined;
  service(key: string): Encoded<Service> | undefined;
  policy(name: string): Encoded<Policy> | undefined;
  /** The uids of a service's stored endpoints (ZT-137). */
  endpointsOf(serviceKey: string): Iterable<string>;
  /** The uid of each enrolled pod's workload by pod row (ZT-016). */
  podWorkloads(): Iterable<readonly [podRow: number, uid: string]>;
}

interface Placed<T> {
  readonly row: number;
  readonly resource: T;
}

/** Keeps the image and publishes it. One per process. */
export class SnapshotWriter {
  readonly #tables: Tables;
  readonly #wake: (worker: number) => void;
  readonly #image: SnapshotImage;
  readonly #copies: [SlotCopy, SlotCopy] = [{ heapEpoch: 0, heapBytes: 0 }, { heapEpoch: 0, heapBytes: 0 }];
  readonly #pods: Int32Array;
  readonly #networks = new Map<string, number>();
  readonly #workloads = new Map<string, Placed<Workload>>();
  readonly #services = new Map<string, Placed<Service> & { readonly endpointsRow: number }>();
  readonly #policies = new Map<string, Placed<Policy>>();

  /** @param wake wakes a worker that may sleep (eventfd). @param seed a random word for the index's hashes. */
  constructor(tables: Tables, wake: (worker: number) => void, seed: number) {
    this.#tables = tables;
    this.#wake = wake;
    this.#image = new SnapshotImage(seed);
    this.#pods = new Int32Array(tables.pods.rowCount);
    this.#networkNumber(""); // The default network exists even while nothing is on it.
  }

  /** The generation in force; 0 before the first. */
  get generation(): Generation {
    return this.#tables.header.load(0, HEADER.generation) as Generation;
  }

  /** A worker is about to start: from now on it counts among those that must acknowledge. Before its thread reads anything. */
  admit(worker: number): void {
    // It will read this generation or the next; the one after must wait for its word.
    this.#tables.workers.store(worker, WORKER.acknowledgedGeneration, this.generation);
    this.#tables.workers.store(worker, WORKER.state, WorkerState.LIVE);
  }

  /** A worker has ended: nobody waits for it any more. */
  dismiss(worker: number): void {
    this.#tables.workers.store(worker, WORKER.state, WorkerState.STOPPED);
  }

  /** Whether every live worker reads the live snapshot, so that the other slot is idle. Ask again after a wake-up. */
  canPublish(): boolean {
    const generation = this.generation;
    for (let worker = 0; worker < this.#tables.workers.rowCount; worker++) {
      if (this.#tables.workers.load(worker, WORKER.state) !== WorkerState.LIVE) continue;
      if (this.#tables.workers.load(worker, WORKER.acknowledgedGeneration) !== generation) return false;
    }
    return true;
  }

  /**
   * Makes the mesh as it stands the live snapshot, in one store: a worker sees all of it or none. Only if
   * {@link canPublish}. Throws AMB2003 if it does not fit; then the last generation stays in force, and what changed is
   * part of the next one that fits.
   */
  publish(source: SnapshotSource): Generation {
    assert(this.canPublish(), "no worker still reads the idle slot");
    this.#apply(source);
    const next = (this.generation + 1) >>> 0 || 2; // 0 means none, and 2 follows 2^32 - 1 into the same slot.
    const slot = this.#tables.handles.slots[(next & 1) as 0 | 1];
    this.#image.tidy(slot.byteLength, this.#pods.length);
    const neededBytes = this.#image.slotBytes(this.#pods.length);
    if (neededBytes > slot.byteLength) {
      throw new MeshError("AMB2003", `the mesh takes ${neededBytes} bytes, a snapshot has ${slot.byteLength}`, {
        remedy: `start with a snapshot size of at least ${neededBytes * 2} bytes`,
      });
    }
    this.#image.copyInto(slot, this.#copies[(next & 1) as 0 | 1], next, this.#pods);
    this.#tables.header.store(0, HEADER.generation, next);
    for (let worker = 0; worker < this.#tables.workers.rowCount; worker++) {
      if (this.#tables.workers.load(worker, WORKER.state) === WorkerState.LIVE) this.#wake(worker);
    }
    return next as Generation;
  }

  #apply(source: SnapshotSource): void {
    const changes = source.takeChanges();
    const stale = new Set<string>(changes.services); // services whose endpoint lists are to be written again
    const touched = new Set<string>(); // services that only have an endpoint whose content changed
    for (const key of changes.services) this.#applyService(key, source.service(key));
    for (const uid of changes.workloads) this.#applyWorkload(uid, source.workload(uid), stale, touched);
    for (const name of changes.policies) this.#applyPolicy(name, source.policy(name));
    for (const key of stale) this.#applyEndpoints(key, source);
    for (const key of touched) {
      const placed = this.#services.get(key);
      if (placed !== undefined && !stale.has(key)) this.#image.touch(placed.endpointsRow);
    }
    this.#pods.fill(-1);
    for (const [pod, uid] of source.podWorkloads()) this.#pods[pod] = this.#workloads.get(uid)?.row ?? -1;
  }

  #applyWorkload(
    uid: string,
    encoded: Encoded<Workload> | undefined,
    stale: Set<string>,
    touched: Set<string>,
  ): void {
    const before = this.#workloads.get(uid);
    if (before !== undefined) this.#unindexWorkload(before);
    const now = encoded?.resource, old = before?.resource;
    // An endpoint that stays one keeps its row, so its services' lists stay as they are, unless health decides anew.
    const sameLists = now !== undefined && old !== undefined && now.healthy === old.healthy;
    for (const key of old?.services.keys() ?? []) (sameLists && now.services.has(key) ? touched : stale).add(key);
    for (const key of now?.services.keys() ?? []) if (!sameLists || !old.services.has(key)) stale.add(key);
    if (encoded === undefined) {
      if (before !== undefined) this.#image.removeRow(before.row);
      this.#workloads.delete(uid);
      return;
    }
    let row: number;
    if (before === undefined) row = this.#image.addRow(RowKind.WORKLOAD, encoded.bytes);
    else this.#image.setContent(row = before.row, encoded.bytes);
    const placed = { row, resource: encoded.resource };
    this.#workloads.set(uid, placed);
    this.#indexWorkload(placed);
  }

  #indexWorkload({ row, resource }: Placed<Workload>): void {
    const network = this.#networkNumber(resource.network), rank = rankOf(resource);
    for (const ip of addressesOf(resource)) this.#image.addAddress(EntryKind.WORKLOAD_AT, rank, network, ip, row);
    if (resource.hostname === "") return;
    this.#image.addName(EntryKind.WORKLOAD_NAMED, serviceKey(resource.namespace, resource.hostname), row);
  }

  #unindexWorkload({ row, resource }: Placed<Workload>): void {
    const network = this.#networkNumber(resource.network), rank = rankOf(resource);
    for (const ip of addressesOf(resource)) this.#image.removeAddress(EntryKind.WORKLOAD_AT, rank, network, ip, row);
    if (resource.hostname === "") return;
    this.#image.removeName(EntryKind.WORKLOAD_NAMED, serviceKey(resource.namespace, resource.hostname), row);
  }

  #applyService(key: string, encoded: Encoded<Service> | undefined): void {
    const before = this.#services.get(key);
    if (before !== undefined) this.#indexService(before, "removeAddress", "removeName");
    if (encoded === undefined) {
      if (before === undefined) return;
      this.#image.removeRow(before.row);
      this.#image.removeRow(before.endpointsRow);
      this.#services.delete(key);
      return;
    }
    let row: number, endpointsRow: number;
    if (before === undefined) {
      row = this.#image.addRow(RowKind.SERVICE, encoded.bytes);
      endpointsRow = this.#image.addRow(RowKind.ENDPOINTS, new Uint8Array(0));
      this.#image.setLink(row, endpointsRow);
    } else {
      ({ row, endpointsRow } = before);
      this.#image.setContent(row, encoded.bytes);
    }
    const placed = { row, endpointsRow, resource: encoded.resource };
    this.#services.set(key, placed);
    this.#indexService(placed, "addAddress", "addName");
  }

  #indexService(
    { row, resource }: Placed<Service>,
    address: "addAddress" | "removeAddress",
    name: "addName" | "removeName",
  ): void {
    for (const vip of vipsOf(resource)) {
      const network = this.#networkNumber(vip.network);
      if (vip.prefixLength === undefined) this.#image[address](EntryKind.SERVICE_AT, 0, network, vip.ip, row);
      else this.#image[address](EntryKind.SERVICE_CIDR, vip.prefixLength, network, vip.ip, row);
    }
    this.#image[name](EntryKind.SERVICE_NAMED, serviceKey(resource.namespace, resource.hostname), row);
    this.#image[name](EntryKind.HOSTNAME, resource.hostname, row);
  }

  #applyEndpoints(key: string, source: SnapshotSource): void {
    const placed = this.#services.get(key);
    if (placed === undefined) return; // Its endpoints wait for it (ZT-138).
    const rows: number[] = [];
    for (const uid of source.endpointsOf(key)) {
      const workload = this.#workloads.get(uid);
      assert(workload !== undefined, "a stored endpoint's workload is known");
      rows.push(workload.row);
    }
    this.#image.setContent(placed.endpointsRow, new Uint8Array(Int32Array.from(rows).buffer));
  }

  #applyPolicy(name: string, encoded: Encoded<Policy> | undefined): void {
    const before = this.#policies.get(name);
    this.#image.policiesVersion = (this.#image.policiesVersion + 1) | 0;
    if (before !== undefined) {
      this.#indexPolicy(name, before, "removeName");
      if (encoded === undefined) this.#image.removeRow(before.row);
    }
    if (encoded === undefined) {
      this.#policies.delete(name);
      return;
    }
    const content = withName(name, encoded.bytes);
    let row: number;
    if (before === undefined) row = this.#image.addRow(RowKind.POLICY, content);
    else this.#image.setContent(row = before.row, content);
    const placed = { row, resource: encoded.resource };
    this.#policies.set(name, placed);
    this.#indexPolicy(name, placed, "addName");
  }

  #indexPolicy(name: string, { row, resource }: Placed<Policy>, change: "addName" | "removeName"): void {
    this.#image[change](EntryKind.POLICY_NAMED, name, row);
    if (resource.scope === PolicyScope.GLOBAL) this.#image[change](EntryKind.GLOBAL_POLICIES, "", row);
    if (resource.scope === PolicyScope.NAMESPACE) this.#image[change](EntryKind.POLICIES_OF, resource.namespace, row);
  }

  /** Networks are few and stay: their numbers stand for the process's life. */
  #networkNumber(network: string): number {
    let number = this.#networks.get(network);
    if (number === undefined) {
      number = this.#networks.size;
      this.#networks.set(network, number);
      this.#image.addName(EntryKind.NETWORK, network, number);
    }
    return number;
  }
}

/** Who wins an address that several workloads own (ZT-024). */
function rankOf(workload: Workload): number {
  return (workload.uid.includes("//Pod/") ? 2 : 0) + (workload.tunnelProtocol === TunnelProtocol.HBONE ? 1 : 0);
}

/** Addresses a workload is found by: none on the host's network (ZT-023), each once. */
function addressesOf(workload: Workload): Iterable<Workload["addresses"][number]> {
  if (workload.hostNetwork) return [];
  if (workload.addresses.length < 2) return workload.addresses;
  return new Map(workload.addresses.map((ip) => [ip.join(), ip])).values();
}

/** VIPs, each once, CIDRs with the bits beyond their length cleared. */
function vipsOf(service: Service): Iterable<Service["addresses"][number]> {
  const vips = service.addresses.map((address) => {
    if (address.prefixLength === undefined) return address;
    const [word0, word1, word2, word3] = address.ip, length = address.prefixLength;
    if (isIpv4(word0, word1, word2)) return { ...address, ip: [0, 0, word2, maskWord(word3, length)] as const };
    const ip = [
      maskWord(word0, length),
      maskWord(word1, length - 32),
      maskWord(word2, length - 64),
      maskWord(word3, length - 96),
    ] as const;
    return { ...address, ip };
  });
  if (vips.length < 2) return vips;
  return new Map(vips.map((vip) => [`${vip.network}/${vip.ip.join()}/${vip.prefixLength}`, vip])).values();
}

/** A policy's record: its resource name, which the message lacks (ZT-142), then the message. */
function withName(name: string, message: Uint8Array): Uint8Array {
  const text = new TextEncoder().encode(name);
  assert(text.length < 0x1_0000, "a resource name has at most 65535 bytes");
  const content = new Uint8Array(2 + text.length + message.length);
  content[0] = text.length & 0xff;
  content[1] = text.length >>> 8;
  content.set(text, 2);
  content.set(message, 2 + text.length);
  return content;
}
