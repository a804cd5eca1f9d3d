/** DeltaDiscoveryResponse bytes put together from resources that were encoded once for all streams (CP-658). */
import { type DiscoveryResource, encodeDeltaDiscoveryResponse } from "../../mesh/proto/discovery_codec.ts";
import type { Resource } from "./resources.ts";
import type { Outgoing } from "./session.ts";

const NOTHING = { systemVersionInfo: "", resources: [], typeUrl: "", nonce: "", removedResources: [] };

/** Encodes responses; keeps the encoded form of a resource for as long as the resource lives. */
export class ResponseEncoder {
  readonly #encoded = new WeakMap<Resource, Uint8Array>();
  readonly #controlPlane: string;

  constructor(controlPlane: string) {
    this.#controlPlane = controlPlane;
  }

  /** The message. `version` is the push's, for people to read (CP-412). */
  encode(outgoing: Outgoing, version: string): Uint8Array {
    const { typeUrl, nonce, resources, removed } = outgoing;
    // A message is the concatenation of its fields in any order, so that the resources can be spliced in (protobuf encoding).
    const frame = encodeDeltaDiscoveryResponse({
      ...NOTHING,
      systemVersionInfo: version,
      typeUrl,
      nonce,
      removedResources: removed,
      controlPlane: this.#controlPlane,
    });
    let length = frame.length;
    for (const resource of resources) length += this.#field(resource, typeUrl).length;
    const bytes = new Uint8Array(length);
    bytes.set(frame);
    let at = frame.length;
    for (const resource of resources) {
      const field = this.#field(resource, typeUrl);
      bytes.set(field, at);
      at += field.length;
    }
    return bytes;
  }

  /** The answer to a tool. */
  encodeDebug(
    answer: { typeUrl: string; nonce: string; resources: readonly DiscoveryResource[] },
    version: string,
  ): Uint8Array {
    return encodeDeltaDiscoveryResponse({
      ...NOTHING,
      ...answer,
      systemVersionInfo: version,
      controlPlane: this.#controlPlane,
    });
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
