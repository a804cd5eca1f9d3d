/** DeltaDiscoveryResponse messages put together from parts that were encoded once for all streams (CP-658). */
import { type DiscoveryResource, encodeDeltaDiscoveryResponse } from "../../mesh/proto/discovery_codec.ts";
import { OutgoingMessage } from "../grpc/outgoing_message.ts";
import { ResourceBlocks } from "./resource_blocks.ts";
import type { Resource } from "./resources.ts";
import type { Outgoing } from "./session.ts";

const NOTHING = { systemVersionInfo: "", resources: [], typeUrl: "", nonce: "", removedResources: [] };
const NO_PARTS: readonly Uint8Array[] = Object.freeze([]);

/** From so many on resources are encoded in blocks; fewer are changes, of which each may be sent in several arrays. */
const BLOCKS_MIN = 1_024;

/** Encodes responses; keeps the encoded form of a resource, and of an array of them, for as long as that lives. */
export class ResponseEncoder {
  readonly #encoded = new WeakMap<Resource, Uint8Array>();
  readonly #bodies = new WeakMap<readonly Resource[], readonly Uint8Array[]>();
  readonly #blocks = new ResourceBlocks();
  readonly #controlPlane: string;

  constructor(controlPlane: string) {
    this.#controlPlane = controlPlane;
  }

  /** The message. `version` is the push's, for people to read (CP-412). Streams that send one array share its bytes. */
  encode({ typeUrl, nonce, resources, removed }: Outgoing, version: string): OutgoingMessage {
    // A message is the concatenation of its fields in any order, so that the resources can come last (protobuf encoding).
    const own = encodeDeltaDiscoveryResponse({
      ...NOTHING,
      systemVersionInfo: version,
      typeUrl,
      nonce,
      removedResources: removed,
      controlPlane: this.#controlPlane,
    });
    return new OutgoingMessage([own, ...this.#body(resources, typeUrl)]);
  }

  /** The answer to a tool. */
  encodeDebug(
    answer: { typeUrl: string; nonce: string; resources: readonly DiscoveryResource[] },
    version: string,
  ): OutgoingMessage {
    const message = { ...NOTHING, ...answer, systemVersionInfo: version, controlPlane: this.#controlPlane };
    return new OutgoingMessage([encodeDeltaDiscoveryResponse(message)]);
  }

  /** All `resources` fields of one array, in one piece as soon as a second stream sends it. An array is never of two types. */
  #body(resources: readonly Resource[], typeUrl: string): readonly Uint8Array[] {
    if (resources.length === 0) return NO_PARTS;
    const known = this.#bodies.get(resources);
    if (known?.length === 1) return known;
    if (resources.length >= BLOCKS_MIN) {
      const blocks = known ?? this.#blocks.encode(resources, typeUrl);
      this.#bodies.set(resources, blocks);
      return blocks;
    }
    const parts = known === undefined ? resources.map((resource) => this.#field(resource, typeUrl)) : [joined(known)];
    this.#bodies.set(resources, parts);
    return parts;
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

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
