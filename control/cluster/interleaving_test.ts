/**
 * The law of a source: however events, cuts, expired versions, denials, CRDs and selectors are interleaved, what is served
 * in the end is what a source would serve that starts then (CP-101, CP-105).
 */
import {
  AUTHORIZATION_POLICIES,
  ENDPOINT_SLICES,
  NAMESPACES,
  NODES,
  PEER_AUTHENTICATIONS,
  PODS,
  SERVICES,
} from "../../kube/resource_types.ts";
import { KubeError, type ResourceType } from "../../kube/api.ts";
import type { LabelSelector } from "../../kube/label_selector.ts";
import { define, namespace, pod, served, smallMesh, SourceRig, undefine, until } from "./testing.ts";

const SEEDS = 25, STEPS = 80;

/** A small generator of numbers from a seed: xorshift. */
function randomOf(seed: number): (bound: number) => number {
  let state = Math.imul(seed, 2654435761) | 1;
  return (bound) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % bound;
  };
}

const SELECTORS: readonly (readonly LabelSelector[])[] = [
  [],
  [{ matchLabels: new Map([["mesh", "on"]]), matchExpressions: [] }],
  [{ matchLabels: new Map(), matchExpressions: [{ key: "mesh", operator: "DoesNotExist", values: [] }] }],
];

class Story {
  readonly rig = new SourceRig(smallMesh());
  selectors = SELECTORS[0]!;
  readonly #random: (bound: number) => number;
  #lift: (() => void)[] = [];

  constructor(seed: number) {
    this.#random = randomOf(seed);
  }

  step(): void {
    const random = this.#random, api = this.rig.api;
    const space = `n${random(3)}`, name = `o${random(4)}`, ip = `10.0.${random(2)}.${random(4) + 1}`;
    const mesh = ["on", "off", undefined][random(3)];
    const labels: Record<string, string> = mesh === undefined ? {} : { mesh };
    const acts: readonly (() => void)[] = [
      () => api.put(NAMESPACES, namespace(space, labels)),
      () => api.remove(NAMESPACES, "", space),
      () => api.put(PODS, pod(space, name, ip, { app: `a${random(2)}` })),
      () => api.put(PODS, pod(space, name, ip, { app: `a${random(2)}` })),
      () => api.remove(PODS, space, name),
      () => api.put(SERVICES, service(space, `s${random(2)}`, random(3))),
      () => api.remove(SERVICES, space, `s${random(2)}`),
      () => api.put(ENDPOINT_SLICES, slice(space, `s${random(2)}`, ip)),
      () =>
        api.put(NODES, { metadata: { name: "node-1", labels: { "topology.kubernetes.io/zone": `z${random(2)}` } } }),
      () => put(api, AUTHORIZATION_POLICIES, policy(space, name, random(4))),
      () => api.remove(AUTHORIZATION_POLICIES, space, name),
      () => put(api, PEER_AUTHENTICATIONS, strict(space, random(2))),
      () => random(2) === 0 ? undefine(api, AUTHORIZATION_POLICIES) : define(api, AUTHORIZATION_POLICIES),
      () => random(2) === 0 ? undefine(api, PEER_AUTHENTICATIONS) : define(api, PEER_AUTHENTICATIONS),
      () => api.cutWatches(),
      () => api.cutWatches(new KubeError(500, "", "a bad moment"), PODS),
      () => api.expireVersions(),
      () => api.bookmark(),
      () => api.holdWatches(random(2) === 0),
      () => void (api.unreachable = random(2) === 0),
      () => this.#lift.push(api.deny([PODS, SERVICES, NAMESPACES][random(3)]!)),
      () => this.#select(SELECTORS[random(SELECTORS.length)]!),
    ];
    acts[random(acts.length)]!();
  }

  /** All bad days are over. */
  calm(): void {
    for (const lift of this.#lift.splice(0)) lift();
    this.rig.api.unreachable = false;
    this.rig.api.holdWatches(false);
  }

  #select(selectors: readonly LabelSelector[]): void {
    this.selectors = selectors;
    this.rig.apply(this.rig.source.select(selectors));
  }
}

/** Stores an object of a kind, if its CRD is there. */
function put(api: SourceRig["api"], type: ResourceType, object: object): void {
  try {
    api.put(type, object);
  } catch (error) {
    if (!(error instanceof KubeError)) throw error; // Its CRD is not there just now.
  }
}

function service(namespace: string, name: string, address: number): object {
  const spec = { clusterIP: `10.96.0.${address + 1}`, selector: { app: "a0" }, ports: [{ port: 80 }] };
  return { metadata: { name, namespace }, spec };
}

function slice(namespace: string, service: string, ip: string): object {
  const labels = { "kubernetes.io/service-name": service };
  return {
    metadata: { name: `${service}-1`, namespace, labels },
    addressType: "IPv4",
    endpoints: [{ addresses: [ip] }],
  };
}

function policy(namespace: string, name: string, form: number): object {
  const specs = [
    {},
    { action: "DENY", rules: [{ from: [{ source: { namespaces: ["n0"] } }] }] },
    { selector: { matchLabels: { app: "a0" } }, rules: [{ from: [{ source: { ipBlocks: ["not an address"] } }] }] },
    { action: "SOMETIMES" },
  ];
  return { metadata: { name, namespace }, spec: specs[form] };
}

function strict(namespace: string, form: number): object {
  return { metadata: { name: "default", namespace }, spec: form === 0 ? { mtls: { mode: "STRICT" } } : { mtls: 7 } };
}

async function check(seed: number): Promise<void> {
  const story = new Story(seed);
  await using rig = await story.rig.open();
  for (let step = 0; step < STEPS; step++) {
    story.step();
    if (step % 4 === 0) await new Promise((resolve) => setTimeout(resolve, 0)); // What is on its way may arrive, or not.
  }
  story.calm();
  await using fresh = new SourceRig(rig.api);
  fresh.source.select(story.selectors);
  await fresh.open();
  const expected = served(fresh.index).join("\n");
  await until(
    `seed ${seed}: what has lived through it serves what a fresh one does`,
    () => served(rig.index).join("\n") === expected,
  );
}

Deno.test("ClusterSource: however its events are interleaved, it ends as a fresh one begins (CP-101, CP-104, CP-105)", async () => {
  const only = Deno.env.get("AMBIT_SEED");
  const seeds = only === undefined ? Array.from({ length: SEEDS }, (_, at) => at + 1) : [Number(only)];
  for (const seed of seeds) await check(seed);
});
