/** The data path of ztunnel under faults, seed by seed, and the simulation itself held to noticing mistakes. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { Policy } from "../../mesh/policy.ts";
import { Chance } from "./chance.ts";
import { MARK } from "./exchange.ts";
import { isAllowed } from "./policies.ts";
import { runSeed } from "./run_seed.ts";
import type { Mutation } from "./world.ts";
import { EventCounter, SimSocket } from "./stream.ts";

const SEEDS = 100, TWICE_EVERY = 20;
/** The first seed that notices ends it; which one that is changes with every draw of chance. */
const MUTATED_SEEDS = 400;

Deno.test(`the data path keeps its promises under faults, seeds 1 to ${SEEDS}`, () => {
  let exchanges = 0, excused = 0, remote = 0, handedOver = 0;
  for (let seed = 1; seed <= SEEDS; seed++) {
    const outcome = runSeed(seed);
    exchanges += outcome.exchanges;
    excused += outcome.excused;
    remote += outcome.remote;
    handedOver += outcome.handedOver;
    if (seed % TWICE_EVERY === 0) {
      assertEquals(runSeed(seed).hash, outcome.hash, `seed ${seed} runs the same way twice`);
    }
  }
  assert(remote > exchanges / 50, `some go through a gateway: ${remote} of ${exchanges}`);
  assert(handedOver > 100, `connections go to successors: ${handedOver}`);
  assert(excused > exchanges / 10, `faults reach connections: ${excused} of ${exchanges}`);
  assert(excused < exchanges * 9 / 10, `most connections can be held to a good end: ${excused} of ${exchanges}`);
});

/** Seeds that fail without a correction that they led to. When the simulation draws its worlds anew, find others. */
const ONCE_FAILED: readonly (readonly [seed: number, found: string])[] = [
  [247, "a session that only said its new key sat on a stage until its next bytes, and nobody heard the key"],
  [109, "the contexts of an identity whose row went to another were never freed"],
  [111, "a session whose tunnels had all gone before it opened was never closed"],
];

for (const [seed, found] of ONCE_FAILED) Deno.test(`seed ${seed} stays well: ${found}`, () => void runSeed(seed));

/** Every n-th call is true. */
function every(count: number): () => boolean {
  let calls = 0;
  return () => ++calls % count === 0;
}

/** Mistakes, and what the simulation says of each. */
const MISTAKES: readonly { readonly name: string; readonly noticed: RegExp; readonly make: () => Mutation }[] = [
  {
    name: "a byte is lost on its way from an application",
    noticed: /is the one sent|gets all|nothing disturbed it/,
    make: () => {
      const due = every(40);
      return { received: (_socket, bytes) => bytes.length > 1 && due() ? bytes.length - 1 : bytes.length };
    },
  },
  {
    name: "two bytes change places",
    noticed: /is the one sent|streams begin as sent|nothing disturbed it/,
    make: () => {
      const due = every(40);
      return {
        received: (_socket, bytes) => {
          if (bytes.length > 20 && due()) bytes.subarray(10, 12).reverse();
          return bytes.length;
        },
      };
    },
  },
  {
    name: "a socket is not closed",
    noticed: /descriptors are back|watch the same descriptors|come to an end in calm|given an open descriptor/,
    make: () => {
      const due = every(50);
      return { keepsOpen: (file) => file instanceof SimSocket && due() };
    },
  },
  {
    name: "plaintext is on the wire",
    noticed: /plaintext is seen/,
    make: () => ({
      onWire: (socket, bytes) => {
        if (socket.servicePort === 15008 && bytes.length > 300) bytes.set(MARK, 100);
      },
    }),
  },
  {
    name: "the verdict of policy is inverted",
    noticed: /policy against it is in force/,
    make: () => ({
      isAllowed: (policies, client, server) => policies.length > 0 && !isAllowed(policies, client, server),
    }),
  },
  {
    name: "open connections are not judged again",
    noticed: /policy against it is in force/,
    make: () => ({
      prepare: (world) => {
        for (const node of world.nodes) {
          for (const { shard } of node.workers) shard.refresh = () => void shard.view.refresh();
        }
      },
    }),
  },
  {
    name: "a proxy takes a workload of the mesh for a stranger",
    noticed: /speak HBONE, and nothing else/,
    make: () => ({
      prepare: (world) => {
        for (const node of world.nodes) for (const { shard } of node.workers) shard.view.workloadAt = () => undefined;
      },
    }),
  },
  {
    name: "a key is not changed on one side",
    noticed: /nothing disturbed it/,
    make: () => ({ prepare: (world) => world.nodes.forEach((node) => node.certificates.stubborn = true) }),
  },
  {
    name: "records are taken without looking at their tag",
    noticed: /is the one sent|streams begin as sent/,
    make: () => ({
      prepare: (world) => {
        for (const node of world.nodes) node.certificates.trusting = true;
      },
    }),
  },
  {
    name: "an edge is lost",
    noticed: /come to an end in calm|nothing disturbed it/,
    make: () => {
      const due = every(60);
      return { losesEvent: (file) => file instanceof SimSocket && due() };
    },
  },
  {
    name: "a wake-up is lost for good",
    noticed: /published at the start|pods leave|come to an end|nothing disturbed it/,
    make: () => ({ losesEvent: (file) => file instanceof EventCounter }),
  },
  {
    name: "a flow is not released",
    noticed: /no flow is referenced/,
    make: () => ({
      prepare: (world) => {
        for (const node of world.nodes) {
          for (const { shard } of node.workers) {
            const due = every(5), release = shard.flows.release.bind(shard.flows);
            shard.flows.release = (row) => due() ? undefined : release(row);
          }
        }
      },
    }),
  },
  {
    name: "a stage is not given back",
    noticed: /stages are back|frees stages/,
    make: () => ({
      prepare: (world) => {
        for (const node of world.nodes) {
          for (const { shard } of node.workers) {
            const due = every(50), release = shard.buffers.releaseStage.bind(shard.buffers);
            shard.buffers.releaseStage = (stage) => due() ? undefined : release(stage);
          }
        }
      },
    }),
  },
  {
    name: "received bytes are counted twice",
    noticed: /received bytes are counted/,
    make: () => ({
      prepare: (world) => {
        for (const node of world.nodes) {
          for (const { shard } of node.workers) {
            const count = shard.flows.countBytes.bind(shard.flows);
            shard.flows.countBytes = (row, received, sent) => count(row, received * 2, sent);
          }
        }
      },
    }),
  },
  {
    name: "a successor seals under a number that its predecessor has used",
    noticed: /nothing disturbed it|gets all/,
    make: () => ({
      prepare: (world) => {
        for (const node of world.nodes) {
          for (const { shard } of node.workers) {
            const resume = shard.tls.resumeRecords.bind(shard.tls);
            shard.tls.resumeRecords = (seal, open) =>
              resume({ ...seal, sequence: Math.max(0, seal.sequence - 1) }, open);
          }
        }
      },
    }),
  },
  {
    name: "a removal is ignored",
    noticed: /the state holds what was sent/,
    make: () => ({
      link: () => ({ state: (state) => ({ apply: (type, updates) => state.apply(type, updates, []) }) }),
    }),
  },
  {
    name: "what is refused is said to be taken",
    noticed: /refused are/,
    make: () => ({
      link: () => ({
        state: (state) => ({
          apply(...message) {
            state.apply(...message);
            return { rejected: [] };
          },
        }),
      }),
    }),
  },
  {
    name: "what is refused takes the old one away",
    noticed: /the state holds what was sent/,
    make: () => ({
      link: () => ({
        state: (state) => ({
          apply(type, updates, removed) {
            const { rejected } = state.apply(type, updates, removed);
            state.apply(type, [], rejected.map((it) => it.name));
            return { rejected };
          },
        }),
      }),
    }),
  },
  {
    name: "a version is recorded for a resource that was refused",
    noticed: /names the versions in force/,
    make: () => ({
      link: () => ({
        request: (request) => ({
          ...request,
          initialResourceVersions: new Map(
            [...request.initialResourceVersions].map(([name, version]) => [name, version || "1-1"]),
          ),
        }),
      }),
    }),
  },
  {
    name: "a new stream does not say what is held",
    noticed: /names the versions in force/,
    make: () => ({ link: () => ({ request: (request) => ({ ...request, initialResourceVersions: new Map() }) }) }),
  },
  {
    name: "a refusal is sent as an acknowledgement",
    noticed: /refused are/,
    make: () => ({ link: () => ({ request: (request) => ({ ...request, errorDetail: undefined }) }) }),
  },
  {
    name: "the nonce of an earlier response is echoed",
    noticed: /nonce is echoed/,
    make: () => ({
      link: () => {
        let earlier = "";
        return {
          request(request) {
            const { responseNonce } = request, late = responseNonce === "" ? "" : earlier || responseNonce;
            earlier = responseNonce;
            return { ...request, responseNonce: late };
          },
        };
      },
    }),
  },
  {
    name: "bytes that were lent are kept",
    noticed: /held as it was sent/,
    make: () => ({
      link: () => ({
        state: (state, node) => ({
          apply(type, updates, removed) {
            const result = state.apply(type, updates, removed);
            for (const { name, bytes } of updates) {
              const before = node.state.workloads.get(name);
              if (before !== undefined) node.state.workloads.set(name, { ...before, bytes });
            }
            return result;
          },
        }),
      }),
    }),
  },
  {
    name: "a change is not pushed",
    noticed: /as the control plane says|addresses, not|holds .* to|sees the endpoints/,
    make: () => ({ link: () => ({ losesPush: every(4) }) }),
  },
  {
    name: "an answer does not tell what has gone",
    noticed: /addresses, not|holds .* to|sees the endpoints/,
    make: () => ({
      link: () => ({ outgoing: (outgoing) => outgoing.answers ? { ...outgoing, removed: [] } : outgoing }),
    }),
  },
  {
    name: "a stale snapshot is published",
    noticed: /as the control plane says|holds .* to|sees the endpoints/,
    make: () => ({
      prepare: (world) => {
        for (const { state } of world.nodes) {
          const due = every(4), take = state.takeChanges.bind(state);
          state.takeChanges = () => due() ? { ...take(), workloads: new Set(), policies: new Set() } : take();
        }
      },
    }),
  },
  {
    name: "a worker keeps the policies that it first saw",
    noticed: /holds .* to|policy against it is in force/,
    make: () => ({
      prepare: (world) => {
        for (const node of world.nodes) {
          for (const { shard: { view } } of node.workers) {
            const first = new Map<string, readonly Policy[]>(), policiesFor = view.policiesFor.bind(view);
            view.policiesFor = (workload) => {
              const policies = first.get(workload.uid) ?? policiesFor(workload);
              first.set(workload.uid, policies);
              return policies;
            };
          }
        }
      },
    }),
  },
];

for (const { name, noticed, make } of MISTAKES) {
  Deno.test(`the simulation notices when ${name}`, () => {
    for (let seed = 1; seed <= MUTATED_SEEDS; seed++) {
      try {
        runSeed(seed, { mutation: make() });
      } catch (error) {
        assertMatch((error as Error).message, noticed);
        return;
      }
    }
    throw new Error(`nobody noticed in ${MUTATED_SEEDS} seeds`);
  });
}

Deno.test("Chance gives the same numbers for the same seed, and others for another", () => {
  const draw = (seed: number) => {
    const chance = new Chance(seed);
    return Array.from({ length: 20 }, () => chance.bits());
  };
  assertEquals(draw(7), draw(7));
  assert(draw(7).join() !== draw(8).join());
});
