/** For tests: an index fed with YAML text, and what it announced. */
import { assertEquals } from "@std/assert";
import { decodeAuthorization } from "../../mesh/proto/authorization_codec.ts";
import { ADDRESS_TYPE_URL, decodeAddress } from "../../mesh/proto/workload_codec.ts";
import { EMPTY_FILE, readFileState } from "../folder/file_state.ts";
import { keyOf, type KubernetesObject, type ObjectChange, type ObjectKey } from "../objects.ts";
import type { Resource, ResourceChange } from "../xds/resources.ts";
import { describePolicy, describeService, describeWorkload, type Json } from "./describe.ts";
import { AmbientIndex } from "./index.ts";
import type { AmbientOptions } from "./options.ts";

/** The objects of a YAML text, all of which must be good. */
export function objectsOf(yaml: string): KubernetesObject[] {
  const state = readFileState("test.yaml", new TextEncoder().encode(yaml), EMPTY_FILE);
  assertEquals(state.refusals, []);
  return [...state.held.values()].map((held) => held.object);
}

/** A resource's decoded content, field by field. */
export function describeResource(typeUrl: string, resource: Resource): { readonly [name: string]: Json } {
  if (typeUrl !== ADDRESS_TYPE_URL) return describePolicy(decodeAuthorization(resource.bytes, resource.name));
  const address = decodeAddress(resource.bytes);
  return address.workload === undefined ? describeService(address.service) : describeWorkload(address.workload);
}

/** An object as its source reports it. */
export function changeOf(object: KubernetesObject, cluster?: string): ObjectChange {
  return { kind: object.kind, key: keyOf(object), object, ...(cluster !== undefined && { cluster }) };
}

export class TestMesh {
  readonly index: AmbientIndex;
  /** What was announced since the last look. */
  #announced: ResourceChange[] = [];

  constructor(yaml = "", options: Partial<AmbientOptions> = {}) {
    this.index = new AmbientIndex({ clusterId: "c1", ...options });
    this.index.subscribe((change) => this.#announced.push(change));
    if (yaml !== "") this.set(yaml);
  }

  /** Sets every object of the text, in one batch. @returns The names announced: `+name` updated, `-name` removed, in order. */
  set(yaml: string, cluster?: string): string[] {
    return this.apply(objectsOf(yaml).map((object) => changeOf(object, cluster)));
  }

  remove(...keys: readonly ObjectKey[]): string[] {
    return this.apply(
      keys.map((key) => ({ kind: key.split("/")[0] as KubernetesObject["kind"], key, object: undefined })),
    );
  }

  apply(changes: readonly ObjectChange[]): string[] {
    this.#announced = [];
    this.index.apply(changes);
    return this.#announced.flatMap(({ updated, removed }) => [
      ...updated.map(({ name }) => `+${name}`).sort(),
      ...removed.map((name) => `-${name}`),
    ]);
  }

  /** The decoded resource that a name or alias stands for first; undefined without one. */
  get(typeUrl: string, name: string): { readonly [name: string]: Json } | undefined {
    const [found] = this.index.lookup(typeUrl, name);
    return found && describeResource(typeUrl, found);
  }

  address(name: string): { readonly [name: string]: Json } | undefined {
    return this.get(ADDRESS_TYPE_URL, name);
  }
}
