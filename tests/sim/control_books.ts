/** What a node must hold after each response, kept beside the client that is tested and without its help. */
import type { MeshState } from "../../dataplane/agent/state.ts";
import { AUTHORIZATION_TYPE_URL } from "../../mesh/proto/authorization_codec.ts";
import type { DeltaDiscoveryRequest, DeltaDiscoveryResponse } from "../../mesh/proto/discovery_codec.ts";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { hold } from "./chance.ts";
import type { PolicyFact } from "./policies.ts";

const TYPES = [ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL];

/** What there is to know of a resource that was sent. */
interface Sent {
  readonly name: string;
  readonly version: string;
  readonly bytes: Uint8Array;
  readonly bad: boolean;
  readonly fact: PolicyFact | undefined;
}

/** Names in a response that must be refused. */
type Expected = readonly string[];

export class ControlBooks {
  readonly #state: MeshState;
  /** By type and name: what is in force. */
  readonly #held = new Map(TYPES.map((type) => [type, new Map<string, Sent>()]));
  /** By type and name: what a new stream must name. */
  readonly #versions = new Map(TYPES.map((type) => [type, new Map<string, string>()]));

  constructor(state: MeshState) {
    this.#state = state;
  }

  /** Policies in force, by name. */
  facts(): Map<string, PolicyFact> {
    const held = [...this.#held.get(AUTHORIZATION_TYPE_URL)!.values()];
    return new Map(held.flatMap(({ fact }) => fact === undefined ? [] : [[fact.name, fact] as const]));
  }

  /** The bytes in force under a name. */
  heldBytes(typeUrl: string, name: string): Uint8Array | undefined {
    return this.#held.get(typeUrl)!.get(name)?.bytes;
  }

  heldNames(typeUrl: string): string[] {
    return [...this.#held.get(typeUrl)!.keys()];
  }

  /** Notes what a response that is about to be received must lead to. */
  expect(
    response: DeltaDiscoveryResponse,
    control: { isBad(bytes: Uint8Array): boolean; factOf(version: string): PolicyFact | undefined },
  ): Expected {
    const held = this.#held.get(response.typeUrl)!,
      versions = this.#versions.get(response.typeUrl)!,
      refused: string[] = [];
    for (const { name, version, bytes } of response.resources) {
      const bad = control.isBad(bytes);
      if (bad) {
        refused.push(name);
        if (versions.has(name)) versions.set(name, ""); // The old one stays, and the new one is asked for again.
        continue;
      }
      held.set(name, { name, version, bytes: bytes.slice(), bad, fact: control.factOf(version) });
      versions.set(name, version);
    }
    for (const name of response.removedResources) {
      held.delete(name);
      versions.delete(name);
    }
    return refused;
  }

  /** After a response: one acknowledgement with its nonce that refuses what must be, and the state is what it must be. */
  check(sent: readonly DeltaDiscoveryRequest[], { typeUrl, nonce }: DeltaDiscoveryResponse, expected: Expected): void {
    hold(sent.length === 1, `one request answers a response, not ${sent.length}`);
    const { responseNonce, errorDetail } = sent[0]!;
    hold(responseNonce === nonce && sent[0]!.typeUrl === typeUrl, `the nonce is echoed: ${responseNonce} for ${nonce}`);
    hold((errorDetail !== undefined) === (expected.length > 0), `refused are ${expected.join() || "none"}`);
    for (const name of expected) hold(errorDetail!.message.includes(name), `the refusal names ${name}`);
    this.#checkState();
  }

  /** The first requests of a stream name exactly what is held, in the types' order. */
  checkOpening(sent: readonly DeltaDiscoveryRequest[]): void {
    hold(sent.map((request) => request.typeUrl).join() === TYPES.join(), "both types are asked for, addresses first");
    for (const { typeUrl, initialResourceVersions, responseNonce } of sent) {
      hold(responseNonce === "", "a stream begins without a nonce");
      const text = (versions: ReadonlyMap<string, string>) => [...versions].map((pair) => pair.join("=")).sort().join();
      const said = text(initialResourceVersions), meant = text(this.#versions.get(typeUrl)!);
      hold(said === meant, `a stream names the versions in force: ${said}, not ${meant}`);
    }
  }

  #checkState(): void {
    const { workloads, services, policies } = this.#state;
    this.#checkMaps(ADDRESS_TYPE_URL, [workloads, services]);
    this.#checkMaps(AUTHORIZATION_TYPE_URL, [policies]);
  }

  #checkMaps(typeUrl: string, maps: readonly ReadonlyMap<string, { readonly bytes: Uint8Array }>[]): void {
    const held = this.#held.get(typeUrl)!, count = maps.reduce((sum, map) => sum + map.size, 0);
    hold(count === held.size, `the state holds what was sent: ${count} of ${held.size}`);
    for (const [name, { bytes }] of held) {
      const found = maps.find((map) => map.has(name))?.get(name)?.bytes;
      hold(found !== undefined && same(found, bytes), `${name} is held as it was sent`);
    }
  }
}

function same(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, at) => byte === other[at]);
}
