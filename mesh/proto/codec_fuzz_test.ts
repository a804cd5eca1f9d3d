import { assertEquals } from "@std/assert";
import type { IpWords } from "../../base/address.ts";
import { type Policy, type PolicyMatch, type StringMatch } from "../policy.ts";
import type { AppProtocol, LoadBalancingMode, LoadBalancingScope, Service } from "../service.ts";
import { seeds } from "../testing.ts";
import type { GatewayAddress, Workload } from "../workload.ts";
import { decodeAuthorization, encodeAuthorization } from "./authorization_codec.ts";
import { decodes, seededRandom } from "./hostile_bytes_testing.ts";
import { decodeAddress, encodeServiceAddress, encodeWorkloadAddress } from "./workload_codec.ts";

/** Values of every kind that a message holds, from one source of randomness. */
class Maker {
  readonly #random: () => number;

  constructor(random: () => number) {
    this.#random = random;
  }

  below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }
  flag(): boolean {
    return this.below(2) === 0;
  }
  list<T>(make: () => T): T[] {
    return Array.from({ length: this.below(4) }, make);
  }
  maybe<T>(make: () => T): T | undefined {
    return this.flag() ? make() : undefined;
  }
  /** Never empty, where a decoder's default would come instead. */
  name(): string {
    return "x" + this.text();
  }
  text(): string {
    const letters = ["", "a", "-", ".", "é", "\u{1f600}", "\0", "\uFEFF", "z".repeat(60)];
    return this.list(() => letters[this.below(letters.length)]!).join("");
  }
  port(): number {
    return this.below(65536);
  }
  ip(): IpWords {
    const word = () => this.below(2 ** 32);
    return this.flag() ? [0, 0, 0xffff, word()] : [1 + this.below(2 ** 31), word(), word(), word()];
  }
  gateway(): GatewayAddress {
    return this.flag()
      ? { address: { network: this.text(), ip: this.ip() }, hboneMtlsPort: this.port() }
      : { hostname: { namespace: this.text(), hostname: this.text() }, hboneMtlsPort: this.port() };
  }
  ports() {
    return this.list(() => ({ servicePort: this.port(), targetPort: this.port() }));
  }
  match(): PolicyMatch {
    const texts = () =>
      this.list((): StringMatch => {
        const kind = (["exact", "prefix", "suffix", "presence"] as const)[this.below(4)]!;
        return { kind, value: kind === "presence" ? "" : this.text() };
      });
    const ips = () => this.list(() => ({ ip: this.ip(), prefixLength: this.below(33) }));
    const accounts = () => this.list(() => ({ namespace: this.text(), serviceAccount: this.text() }));
    return {
      namespaces: texts(),
      notNamespaces: texts(),
      principals: texts(),
      notPrincipals: texts(),
      serviceAccounts: accounts(),
      notServiceAccounts: accounts(),
      sourceIps: ips(),
      notSourceIps: ips(),
      destinationIps: ips(),
      notDestinationIps: ips(),
      destinationPorts: this.list(() => this.port()),
      notDestinationPorts: this.list(() => this.port()),
    };
  }
}

function anyWorkload(make: Maker): Workload {
  return {
    uid: make.text(),
    name: make.text(),
    namespace: make.text(),
    addresses: make.list(() => make.ip()),
    hostname: make.text(),
    network: make.text(),
    tunnelProtocol: make.below(2) as 0 | 1,
    trustDomain: make.flag() ? "cluster.local" : make.name(),
    serviceAccount: make.name(),
    waypoint: make.maybe(() => make.gateway()),
    networkGateway: make.maybe(() => make.gateway()),
    node: make.text(),
    canonicalName: make.text(),
    canonicalRevision: make.text(),
    workloadType: make.below(4) as 0 | 1 | 2 | 3,
    workloadName: make.text(),
    nativeTunnel: make.flag(),
    applicationTunnel: make.maybe(() => ({ protocol: make.below(2) as 0 | 1, port: make.port() })),
    authorizationPolicies: make.list(() => make.text()),
    healthy: make.flag(),
    clusterId: make.name(),
    locality: { region: make.text(), zone: make.text(), subzone: make.text() },
    services: new Map(make.list(() => [`${make.text()}/${make.text()}`, make.ports()] as const)),
    hostNetwork: make.flag(),
    capacity: make.below(2 ** 32),
  };
}

function anyService(make: Maker): Service {
  const range = () => ({ network: make.text(), ip: make.ip(), prefixLength: make.below(32) });
  return {
    name: make.text(),
    namespace: make.text(),
    hostname: make.text(),
    addresses: make.list(() => make.flag() ? range() : { network: make.text(), ip: make.ip() }),
    ports: make.ports().map((port) =>
      make.flag() ? port : { ...port, appProtocol: (1 + make.below(5)) as AppProtocol }
    ),
    subjectAltNames: make.list(() => make.text()),
    waypoint: make.maybe(() => make.gateway()),
    weightedWaypoints: make.list(() => ({ destination: make.gateway(), weight: make.below(2 ** 32) })),
    loadBalancing: make.maybe(() => ({
      mode: make.below(4) as LoadBalancingMode,
      routingPreference: make.list(() => (1 + make.below(6)) as LoadBalancingScope),
      allowUnhealthy: make.flag(),
    })),
    ipFamilies: make.below(4) as 0 | 1 | 2 | 3,
    canonical: make.flag(),
    ingressUseWaypoint: make.flag(),
    namespaceOnly: make.flag(),
  };
}

function anyPolicy(make: Maker): Policy {
  return {
    key: "k",
    name: make.text(),
    namespace: make.text(),
    scope: make.below(3) as 0 | 1 | 2,
    action: make.below(2) as 0 | 1,
    rules: make.list(() => ({ clauses: make.list(() => make.list(() => make.match())) })),
    dryRun: make.flag(),
  };
}

/** Changes up to three bytes, so that most of the structure survives. */
function mutated(bytes: Uint8Array, make: Maker): Uint8Array {
  const copy = bytes.slice();
  for (let change = make.below(3); change >= 0 && copy.length > 0; change--) {
    copy[make.below(copy.length)] = make.below(256);
  }
  return copy;
}

Deno.test("codecs give back whatever was encoded, and survive its mutations, seeded", () => {
  const decodePolicy = (bytes: Uint8Array) => decodeAuthorization(bytes, "k");
  for (const seed of seeds()) {
    const make = new Maker(seededRandom(seed));
    const workload = anyWorkload(make), service = anyService(make), policy = anyPolicy(make);
    const workloadBytes = encodeWorkloadAddress(workload), serviceBytes = encodeServiceAddress(service);
    const policyBytes = encodeAuthorization(policy);
    assertEquals(decodeAddress(workloadBytes), { workload }, `seed ${seed}`);
    assertEquals(decodeAddress(serviceBytes), { service }, `seed ${seed}`);
    assertEquals(decodePolicy(policyBytes), policy, `seed ${seed}`);
    for (let round = 0; round < 20; round++) {
      decodes(decodeAddress, mutated(workloadBytes, make));
      decodes(decodeAddress, mutated(serviceBytes, make));
      decodes(decodePolicy, mutated(policyBytes, make));
    }
  }
});
