/** DeltaDiscoveryResponse messages put together from parts that were encoded once for all streams (CP-658). */
import { Buffer } from "node:buffer";
import { type DiscoveryResource, encodeDeltaDiscoveryResponse } from "../../mesh/proto/discovery_codec.ts";
import type { Resource } from "./resources.ts";
import type { Outgoing } from "./session.ts";

const NOTHING = { systemVersionInfo: "", resources: [], typeUrl: "", nonce: "", removedResources: [] };
const NO_BYTES = new Uint8Array(0);

/** A message in two parts: what is one stream's own, and what it has in common with others. Joined when it is written. */
export class ResponseMessage {
  readonly #own: Uint8Array;
  readonly #shared: Uint8Array;

  constructor(own: Uint8Array, shared: Uint8Array = NO_BYTES) {
    this.#own = own;
    this.#shared = shared;
  }

  get byteLength(): number {
    return this.#own.length + this.#shared.length;
  }

  toBuffer(): Buffer {
    const joined = Buffer.allocUnsafe(this.byteLength);
    joined.set(this.#own);
    joined.set(this.#shared, this.#own.length);
    return joined;
  }
}

/** Encodes responses; keeps the encoded form of a resource, and of an array of them, for as long as that lives. */
export class ResponseEncoder {
  readonly #encoded = new WeakMap<Resource, Uint8Array>();
  readonly #bodies = new WeakMap<readonly Resource[], Uint8Array>();
  readonly #controlPlane: string;

  constructor(controlPlane: string) {
    this.#controlPlane = controlPlane;
  }

  /** The message. `version` is the push's, for people to read (CP-412). Streams that send one array share its bytes. */
  encode({ typeUrl, nonce, resources, removed }: Outgoing, version: string): ResponseMessage {
    // A message is the concatenation of its fields in any order, so that the resources can come last (protobuf encoding).
    const own = encodeDeltaDiscoveryResponse({
      ...NOTHING,
      systemVersionInfo: version,
      typeUrl,
      nonce,
      removedResources: removed,
      controlPlane: this.#controlPlane,
    });
    return new ResponseMessage(own, this.#body(resources, typeUrl));
  }

  /** The answer to a tool. */
  encodeDebug(
    answer: { typeUrl: string; nonce: string; resources: readonly DiscoveryResource[] },
    version: string,
  ): ResponseMessage {
    const message = { ...NOTHING, ...answer, systemVersionInfo: version, controlPlane: this.#controlPlane };
    return new ResponseMessage(encodeDeltaDiscoveryResponse(message));
  }

  /** All `resources` fields of one array; an array is never of two types. */
  #body(resources: readonly Resource[], typeUrl: string): Uint8Array {
    if (resources.length === 0) return NO_BYTES;
    let body = this.#bodies.get(resources);
    if (body === undefined) this.#bodies.set(resources, body = this.#join(resources, typeUrl));
    return body;
  }

  #join(resources: readonly Resource[], typeUrl: string): Uint8Array {
    const fields = resources.map((resource) => this.#field(resource, typeUrl));
    if (fields.length === 1) return fields[0]!;
    const body = new Uint8Array(fields.reduce((sum, field) => sum + field.length, 0));
    let at = 0;
    for (const field of fields) {
      body.set(field, at);
      at += field.length;
    }
    return body;
  }

  /** One `resources` field, tag and length included. */
  #field(resource: Resource, typeUrl: string): Uint8Array {
    let field = this.#encoded.get(resource);
    if (field === undefined) {
      const { name, version, aliases, bytes } = resource;
      field = encodeDeltaDiscoveryResponse({ ...NOTHING, resources: [{ name, version, aliases, typeUrl, bytes }] });
      this.#encoded.set(resource, field);
    }
    return field;
  }
}
